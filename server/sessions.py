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
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from engine.errors import Busy, Closed, NotFound, OfferInvalid
from engine.session import Mode, Session
from server import signaling
from server.countdown import Countdown
from server.encoder import EncoderPool
from server.manner import Manner
from server.metrics import EndReason, ServerMetrics
from server.peer import Peer, PeerOptions
from server.stage import NO_WISHES, Wishes

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 3.5
LOST = (EndReason.VANISHED, EndReason.CONNECTION_FAILED, EndReason.NEVER_CONNECTED)
"""Ways to lose a browser that did not mean to go."""
FAREWELL_S = 0.05
"""Closing a connection throws away what its data channel has not sent; this is time for one message."""

_FAREWELLS = {
    EndReason.IDLE: "Nothing was said for a while, so the place was given back.",
    EndReason.TOO_LONG: "The longest time a session may last is over.",
    EndReason.CLOSED: "The session was closed.",
}


@dataclass(slots=True)
class LiveSession:
    """One place that is taken.

    Attributes:
        id: what the browser calls it.
        session: the conversation.
        peer: the browser that watches it; another one after it was lost and came back.
        avatar: name of the face.
        manner: how it answers.
        ended: done when the session is of no more use; the first reason counts.
    """

    id: str
    session: Session
    peer: Peer
    avatar: str
    manner: Manner
    ended: asyncio.Future[EndReason] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _lost: bool = False
    _passed_on: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _joining: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _formers: set[asyncio.Task[None]] = field(default_factory=set, repr=False)
    _life: asyncio.Task[None] | None = field(default=None, repr=False)

    def end(self, reason: EndReason) -> None:
        """Starts to end it; the place is free a moment later."""
        if not self.ended.done():
            self.ended.set_result(reason)
        self._news.set()

    def _dismiss(self, peer: Peer) -> None:
        """Closes a peer that shows the session no more, while the session goes on."""
        task = asyncio.create_task(_close(peer), name="former-peer")
        self._formers.add(task)
        task.add_done_callback(self._formers.discard)


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
        """
        self._create = create
        self._pool = pool
        self._options = options
        self._metrics = metrics
        self._max_sessions = max_sessions
        self._max_duration_s = max_duration_s
        self._live: dict[str, LiveSession] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._taken = 0
        self._closing = False

    @property
    def taken(self) -> int:
        """Places taken, those still opening or closing included."""
        return self._taken

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
        lost = None
        if self._taken < self._max_sessions:
            self._taken += 1
        else:
            lost = next(self._waiting(), None)
            if lost is None:
                self.turned_away()
                raise Busy("server_full", "All places are taken; try again in a moment.")
            # Somebody who is here comes before somebody who may come back.
            lost._passed_on = True
            lost.end(EndReason.VANISHED)
        session: Session | None = None
        peer: Peer | None = None
        try:
            if lost is not None:
                await _finished(lost)
            session, manner = await self._create(avatar, wishes)
            await session.start()
            live_id = secrets.token_urlsafe(12)
            peer = Peer(session, manner, live_id, self._pool, self._options, self._metrics)
            description = await peer.answer(offer)
            session.set_mode(mode)
        except BaseException as error:
            self._metrics.offer("invalid" if isinstance(error, OfferInvalid | NotFound) else "failed")
            await self._free(session, peer)
            raise
        live = LiveSession(live_id, session, peer, avatar, manner)
        self._live[live_id] = live
        live._life = asyncio.create_task(self._live_and_end(live, max_duration_s), name="session-life")
        self._lives.add(live._life)
        live._life.add_done_callback(self._lives.discard)
        self._metrics.offer("answered")
        return live, description

    async def rejoin(self, session_id: str, sdp: str, kind: str) -> tuple[LiveSession, signaling.Description]:
        """Answers an offer of a browser that lost its connection, or wants another: its session goes on with it.

        Args:
            session_id: of a session that lives; whoever watched it until now watches it no more.
            sdp: the browser's session description.
            kind: its type, ``offer``.

        Raises:
            NotFound: ``session_not_found``.
            OfferInvalid: ``offer_invalid``; when it was found late, the session waits for a better one.
        """
        try:
            offer = signaling.read_offer(sdp, kind)
        except OfferInvalid:
            self._metrics.offer("invalid")
            raise
        async with self.get(session_id)._joining:
            live = self.get(session_id)
            former = live.peer
            # Frames are for one: the former peer must have stopped taking them.
            await former.let_go(EndReason.VANISHED)
            peer = Peer(live.session, live.manner, live.id, self._pool, self._options, self._metrics)
            peer.channel.continue_from(former.channel)
            peer.packing.choose(former.packing.background)
            try:
                description = await peer.answer(offer)
                self.get(session_id)
            except BaseException as error:
                self._metrics.offer("invalid" if isinstance(error, OfferInvalid) else "failed")
                live._dismiss(peer)
                live._news.set()
                raise
            peer.watch(former.watcher)
            live.peer = peer
            live._news.set()
            live._dismiss(former)
        self._metrics.offer("answered")
        return live, description

    def _waiting(self) -> Iterator[LiveSession]:
        """Sessions whose browser is lost, the one that waits longest first."""
        return (live for live in self._live.values() if live._lost and not live.ended.done())

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
        return self._max_sessions - self._taken + sum(1 for _ in self._waiting())

    def turned_away(self) -> None:
        """Counts an offer for which there was no place."""
        self._metrics.offer("full")

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
        await _finished(live)

    async def aclose(self) -> None:
        """Ends all sessions at once and lets no one in; idempotent."""
        self._closing = True
        for live in self._live.values():
            live.end(EndReason.SHUTDOWN)
        # Those that were ending anyway are among them.
        if self._lives:
            await asyncio.wait(self._lives)

    async def _live_and_end(self, live: LiveSession, max_duration_s: float | None) -> None:
        end_s = time.monotonic() + min(self._max_duration_s, max_duration_s or self._max_duration_s)
        countdown = Countdown(lambda *event: live.peer.channel.send(*event), EndReason.TOO_LONG)
        while not live.ended.done():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                live.end(EndReason.TOO_LONG)
            elif live.peer.ended.done() and not live._joining.locked():
                await self._wait_for_return(live, left_s)
            else:
                live.peer.ended.add_done_callback(lambda _: live._news.set())
                await _news(live, countdown.left(left_s))
        reason = live.ended.result()
        if reason in _FAREWELLS and live.peer.channel.is_open:
            live.peer.channel.send("state", {"state": "ended", "reason": reason, "message": _FAREWELLS[reason]})
            await asyncio.sleep(FAREWELL_S)
        self._metrics.ended(reason)
        logger.info("session %s ended: %s", live.id[:6], reason)
        self._live.pop(live.id, None)
        try:
            if live._formers:
                await asyncio.wait(live._formers)
        finally:
            await self._free(live.session, live.peer, passed_on=live._passed_on)

    async def _wait_for_return(self, live: LiveSession, left_s: float) -> None:
        """Keeps a session whose peer has ended until a new one shows it, or nobody will."""
        lost, reason = live.peer, live.peer.ended.result()
        patience_s = min(left_s, self._options.return_timeout_s)
        # Who never opened our channel knows no way back.
        if reason not in LOST or not live.peer.channel.known or patience_s <= 0:
            live.end(reason)
            return
        logger.info("session %s lost its browser: %s", live.id[:6], reason)
        # What it says is kept for whoever comes back to hear it.
        live.session.pause()
        live._dismiss(lost)
        live._lost = True
        gone_s = time.monotonic() + patience_s
        while not live.ended.done() and live.peer is lost:
            wait_s = gone_s - time.monotonic()
            if wait_s > 0 or live._joining.locked():
                await _news(live, wait_s if wait_s > 0 else CLOSE_TIMEOUT_S)
            else:
                live.end(reason)
        live._lost = False

    async def _free(self, session: Session | None, peer: Peer | None, *, passed_on: bool = False) -> None:
        try:
            for part in (peer, session):
                if part is not None:
                    await _close(part)
        finally:
            self._taken -= not passed_on


async def _close(part: Peer | Session) -> None:
    # What one part does wrong while it closes must not keep the other one open.
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await part.aclose()
    except Exception:
        logger.exception("closing a %s failed", type(part).__name__.lower())


async def _news(live: LiveSession, timeout_s: float) -> None:
    """Returns when something happened to a session, at the latest after a while."""
    try:
        async with asyncio.timeout(timeout_s):
            await live._news.wait()
    except TimeoutError:
        return
    live._news.clear()


async def _finished(live: LiveSession) -> None:
    if live._life is not None:
        await asyncio.wait([live._life])
