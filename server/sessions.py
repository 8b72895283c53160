"""All sessions of the server: who may come in, who is there, and how each one ends.

Place in the flow: POST /offer -> ``Sessions.open`` -> Session + Peer; every other route -> ``Sessions.get``. A browser
whose connection broke off comes back through ``Sessions.rejoin``: the same session, another peer.

Invariants:
    * a place is taken before the first await of ``open``, so two offers can never share the last one;
    * a place is free again only when everything behind it is closed;
    * a session whose browser was lost waits for it, silent, and for no longer than its place is wanted by others;
    * a session ends exactly once, for one reason, and always frees its place;
    * ids are unguessable: whoever has one may control that session and no other.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterator

from engine.errors import Busy, Closed, NotFound, OfferInvalid
from engine.session import Mode, Session
from server import signaling
from server.audience import Audience
from server.countdown import Countdown
from server.encoder_pool import EncoderPool
from server.fan import Fan
from server.live_session import CLOSE_TIMEOUT_S, LiveSession, close
from server.manner import Manner
from server.metrics import EndReason, ServerMetrics
from server.packing import Background
from server.peer import Peer
from server.peer_options import PeerOptions
from server.showing import Showing, Watcher
from server.snapshot import Snapshot
from server.stage import NO_WISHES, Wishes

logger = logging.getLogger(__name__)

LOST = (EndReason.VANISHED, EndReason.CONNECTION_FAILED, EndReason.NEVER_CONNECTED)
"""Ways to lose a browser that did not mean to go."""
ENDLESS_S = 10 * 365 * 86_400.0


class Sessions:
    """The places of the server."""

    def __init__(
        self,
        create: Callable[[str, Wishes], Awaitable[tuple[Session, Manner]]],
        pool: EncoderPool,
        options: PeerOptions,
        metrics: ServerMetrics,
        max_sessions: int,
        max_duration_s: float,
        id_prefix: str = "",
    ) -> None:
        """
        Args:
            create: makes a session that is not started yet, for the name of a known avatar and what is wanted of it,
                and how it answers.
            pool: where all peers encode.
            options: how peers connect.
            metrics: where to count.
            max_sessions: places.
            max_duration_s: longest life of a session.
            id_prefix: what all ids begin with, so that others can tell whose they are.
        """
        self._create = create
        self._pool = pool
        self._options = options
        self._metrics = metrics
        self.places = max_sessions
        """How many sessions there may be at a time; who is here stays when it falls."""
        self._max_duration_s = max_duration_s
        self._id_prefix = id_prefix
        self.on_ended: Callable[[LiveSession, EndReason], None] = lambda live, reason: None
        """Told of the end of each session."""
        self._live: dict[str, LiveSession] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._taken = 0
        self.asked = 0
        """How often a place was asked for."""
        self._closing = False

    @property
    def taken(self) -> int:
        """Places taken, those still opening or closing included."""
        return self._taken

    @property
    def live(self) -> Collection[LiveSession]:
        """All sessions, those that are ending included."""
        return self._live.values()

    def new_id(self) -> str:
        """An unguessable id that nobody has."""
        return self._id_prefix + secrets.token_urlsafe(12)

    async def open(
        self,
        avatar: str,
        sdp: str,
        kind: str,
        mode: Mode = "say",
        wishes: Wishes = NO_WISHES,
        max_duration_s: float | None = None,
    ) -> tuple[LiveSession, signaling.Description]:
        """Answers an offer with a new session.

        Cancellation undoes everything.

        Args:
            avatar: name of a known avatar.
            sdp: the browser's session description.
            kind: its type, ``offer``.
            mode: what becomes of the microphone.
            wishes: what else is wanted of the session.
            max_duration_s: its longest life, where that is shorter than everybody's.

        Raises:
            OfferInvalid: ``offer_invalid``.
            NotFound: ``style_unknown``, ``language_model_unknown``.
            Busy: ``server_full``.
            Closed: the server is stopping.
        """
        if self._closing:
            raise Closed("shutting_down", "The server is stopping.")
        try:
            offer = signaling.read_offer(sdp, kind)
        except OfferInvalid:
            self._metrics.offer("invalid")
            raise
        longest_s = min(self._max_duration_s, max_duration_s or self._max_duration_s)
        try:
            live, description = await self._open(avatar, offer, mode, wishes, longest_s)
        except Busy:
            raise
        except BaseException as error:
            self._metrics.offer("invalid" if isinstance(error, OfferInvalid | NotFound) else "failed")
            raise
        self._metrics.offer("answered")
        return live, description

    async def open_unseen(self, avatar: str, mode: Mode = "say", wishes: Wishes = NO_WISHES) -> LiveSession:
        """A session without a browser of its own, for all who take its fan; it lasts for as long as it is of use.

        Args:
            avatar: name of a known avatar.
            mode: whether it answers.
            wishes: what else is wanted of it.

        Raises:
            NotFound, Busy, Closed: as ``open``.
        """
        if self._closing:
            raise Closed("shutting_down", "The server is stopping.")
        return (await self._open(avatar, None, mode, wishes, ENDLESS_S))[0]

    async def _open(
        self, avatar: str, offer: signaling.Offer | None, mode: Mode, wishes: Wishes, longest_s: float
    ) -> tuple[LiveSession, signaling.Description]:
        self.asked += 1
        lost = None
        if self._taken < self.places:
            self._taken += 1
        else:
            lost = next(self._waiting(), None)
            if lost is None:
                self.turned_away()
                raise Busy("server_full", "All places are taken; try again in a moment.")
            # Somebody who is here comes before somebody who may come back.
            lost.passed_on = True
            lost.end(EndReason.VANISHED)
        session: Session | None = None
        peer: Showing | None = None
        fan: Fan | None = None
        try:
            if lost is not None:
                await lost.finished()
            session, manner = await self._create(avatar, wishes)
            await session.start()
            live_id = self.new_id()
            fan = Fan(
                session.clock,
                self._pool,
                self._options.video_bitrate,
                lambda seconds: self._metrics.encode_ms.observe(seconds * 1000),
                self._metrics.pictures_dropped.inc,
            )
            watchers: set[Watcher] = {fan.offer}
            description = signaling.Description("", "")
            if offer is None:
                peer = audience = self._audience(session, manner, live_id, fan, watchers)
                audience.begin()
            else:
                peer = browser = self._peer(session, manner, live_id, fan, watchers)
                description = await browser.answer(offer)
            session.set_mode(mode)
            if wishes.background is not None:
                peer.packing.choose(wishes.background)
        except BaseException:
            await self._free(session, peer, fan)
            raise
        end_s = time.monotonic() + longest_s
        live = LiveSession(
            live_id, session, peer, avatar, manner, fan, watchers, bool(wishes.former), end_s, wishes.priority
        )
        self._live[live_id] = live
        live.life = asyncio.create_task(self._live_and_end(live), name="session-life")
        self._lives.add(live.life)
        live.life.add_done_callback(self._lives.discard)
        return live, description

    def _peer(self, session: Session, manner: Manner, live_id: str, fan: Fan, watchers: set[Watcher]) -> Peer:
        return Peer(session, manner, live_id, self._pool, self._options, self._metrics, fan, watchers)

    def _audience(self, session: Session, manner: Manner, live_id: str, fan: Fan, watchers: set[Watcher]) -> Audience:
        return Audience(session, manner, live_id, self._options, fan, watchers)

    async def rejoin(
        self, session_id: str, sdp: str, kind: str, background: Background | None = None
    ) -> tuple[LiveSession, signaling.Description]:
        """Answers an offer of a browser that lost its connection, or wants another: its session goes on with it.

        Args:
            session_id: of a session that lives; whoever watched it until now watches it no more.
            sdp: the browser's session description.
            kind: its type, ``offer``.
            background: what is behind the person from now on; as before when None.

        Raises:
            NotFound: ``session_not_found``.
            OfferInvalid: ``offer_invalid``; when it was found late, the session waits for a better one.
        """
        try:
            offer = signaling.read_offer(sdp, kind)
        except OfferInvalid:
            self._metrics.offer("invalid")
            raise
        async with self.get(session_id).joining:
            live = self.get(session_id)
            former = live.peer
            # Frames are for one: the former peer must have stopped taking them.
            await former.let_go(EndReason.VANISHED)
            peer = self._peer(live.session, live.manner, live.id, live.fan, live.watchers)
            peer.channel.continue_from(former.channel)
            peer.packing.choose(background or former.packing.background)
            try:
                description = await peer.answer(offer)
                self.get(session_id)
            except BaseException as error:
                self._metrics.offer("invalid" if isinstance(error, OfferInvalid) else "failed")
                live.dismiss(peer)
                live.tell()
                raise
            live.peer = peer
            live.tell()
            live.dismiss(former)
        self._metrics.offer("answered")
        return live, description

    def _waiting(self) -> Iterator[LiveSession]:
        """Sessions whose browser is lost, the one that waits longest first."""
        return (live for live in self._live.values() if live.lost and not live.ended.done())

    def get(self, session_id: str) -> LiveSession:
        """A session by id.

        Raises:
            NotFound: ``session_not_found``: never existed, or has ended.
        """
        if not self.lives(session_id):
            raise NotFound("session_not_found", "There is no such session; it may have ended.")
        return self._live[session_id]

    @property
    def free(self) -> int:
        """Places that nobody has taken, or only somebody who is lost."""
        return self.places - self._taken + sum(1 for _ in self._waiting())

    def turned_away(self) -> None:
        """Counts an offer for which there was no place."""
        self._metrics.offer("full")

    async def knows(self, session_id: str) -> bool:
        """As ``lives``, of sessions wherever they are."""
        return self.lives(session_id)

    async def recall(self, session_id: str) -> Snapshot | None:
        """What is left of a session that was lost: nothing, where it would have been lost with this process."""
        return None

    def lives(self, session_id: str) -> bool:
        """Whether there is such a session."""
        live = self._live.get(session_id)
        return live is not None and not live.ended.done()

    def shows(self, avatar: str) -> bool:
        """Whether somebody looks at an avatar."""
        return any(live.avatar == avatar for live in self._live.values())

    async def close(self, session_id: str) -> None:
        """Ends a session and returns when its place is free.

        Raises:
            NotFound: ``session_not_found``.
        """
        live = self.get(session_id)
        live.end(EndReason.CLOSED)
        await live.finished()

    def shut_door(self) -> None:
        """Lets no one in any more, save those who come back."""
        self._closing = True

    async def drain(self, limit_s: float) -> None:
        """Lets no one in any more, and returns when all have gone, or after a while."""
        self.shut_door()
        if self._lives:
            await asyncio.wait(self._lives, timeout=limit_s)

    async def aclose(self) -> None:
        """Ends all sessions at once and lets no one in; idempotent."""
        self._closing = True
        for live in self._live.values():
            live.end(EndReason.SHUTDOWN)
        # Those that were ending anyway are among them.
        if self._lives:
            await asyncio.wait(self._lives)

    async def _live_and_end(self, live: LiveSession) -> None:
        countdown = Countdown(lambda *event: live.peer.channel.send(*event), EndReason.TOO_LONG)
        while not live.ended.done():
            left_s = live.end_s - time.monotonic()
            if left_s <= 0:
                live.end(EndReason.TOO_LONG)
            elif live.peer.ended.done() and live.joining.locked():
                # Somebody is taking over, and tells when that is done.
                await live.news(min(left_s, CLOSE_TIMEOUT_S))
            elif live.peer.ended.done():
                await self._wait_for_return(live, left_s)
            else:
                live.peer.ended.add_done_callback(lambda _: live.tell())
                await live.news(countdown.left(left_s))
        reason = live.ended.result()
        await live.say_farewell(reason)
        self._metrics.ended(reason)
        self.on_ended(live, reason)
        logger.info("session %s ended: %s", live.id[:6], reason)
        self._live.pop(live.id, None)
        try:
            await live.dismissed()
        finally:
            await self._free(live.session, live.peer, live.fan, passed_on=live.passed_on)

    async def _wait_for_return(self, live: LiveSession, left_s: float) -> None:
        """Keeps a session whose peer has ended until a new one shows it, or nobody will."""
        lost, reason = live.peer, live.peer.ended.result()
        if reason in LOST and live.fan.is_wanted:
            # Others watch: it goes on before them, and whoever comes back finds it going on.
            live.peer = audience = self._audience(live.session, live.manner, live.id, live.fan, live.watchers)
            audience.channel.continue_from(lost.channel)
            await lost.let_go(reason)
            audience.begin()
            live.dismiss(lost)
            return
        patience_s = min(left_s, self._options.return_timeout_s)
        # Who never opened our channel knows no way back.
        if reason not in LOST or not live.peer.channel.known or patience_s <= 0:
            live.end(reason)
            return
        logger.info("session %s lost its browser: %s", live.id[:6], reason)
        # What it says is kept for whoever comes back to hear it.
        live.session.pause()
        live.dismiss(lost)
        live.lost = True
        gone_s = time.monotonic() + patience_s
        while not live.ended.done() and live.peer is lost:
            wait_s = gone_s - time.monotonic()
            if wait_s > 0 or live.joining.locked():
                await live.news(wait_s if wait_s > 0 else CLOSE_TIMEOUT_S)
            else:
                live.end(reason)
        live.lost = False

    async def _free(
        self, session: Session | None, peer: Showing | None, fan: Fan | None, *, passed_on: bool = False
    ) -> None:
        try:
            for part in (peer, fan, session):
                if part is not None:
                    await close(part)
        finally:
            self._taken -= not passed_on
