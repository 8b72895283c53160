"""All sessions of the server: who may come in, who is there, and how each one ends.

Place in the flow: POST /offer -> ``Sessions.open`` -> Session + Peer; every other route -> ``Sessions.get``.

Invariants:
    * a place is taken before the first await of ``open``, so two offers can never share the last one;
    * a place is free again only when everything behind it is closed;
    * a session ends exactly once, for one reason, and always frees its place;
    * ids are unguessable: whoever has one may control that session and no other.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from engine.errors import Busy, Closed, NotFound, OfferInvalid
from engine.quality import Quality
from engine.session import Mode, Session
from server import signaling
from server.encoder import EncoderPool
from server.metrics import EndReason, ServerMetrics
from server.peer import Peer, PeerOptions

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 3.5
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
        peer: the browser that watches it.
        avatar: name of the face.
    """

    id: str
    session: Session
    peer: Peer
    avatar: str
    _life: asyncio.Task[None] | None = field(default=None, repr=False)

    def end(self, reason: EndReason) -> None:
        """Starts to end it; the place is free a moment later."""
        if not self.peer.ended.done():
            self.peer.ended.set_result(reason)


class Sessions:
    """The places of the server."""

    def __init__(
        self,
        create: Callable[[str, Quality | None], Awaitable[Session]],
        pool: EncoderPool,
        options: PeerOptions,
        metrics: ServerMetrics,
        max_sessions: int,
        max_duration_s: float,
    ) -> None:
        """
        Args:
            create: makes a session that is not started yet, for the name of a known avatar and the quality asked for.
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
        self._taken = 0
        self._closing = False

    @property
    def taken(self) -> int:
        """Places taken, those still opening or closing included."""
        return self._taken

    async def open(
        self, avatar: str, sdp: str, kind: str, mode: Mode = "say", quality: Quality | None = None
    ) -> tuple[LiveSession, signaling.Description]:
        """Answers an offer with a new session.

        Cancellation undoes everything.

        Args:
            avatar: name of a known avatar.
            sdp: the browser's session description.
            kind: its type, ``offer``.
            mode: what becomes of the microphone.
            quality: how much of the face is restored; the server's own choice when None.

        Raises:
            OfferInvalid: ``offer_invalid``.
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
        if self._taken >= self._max_sessions:
            self._metrics.offer("full")
            raise Busy("server_full", "All places are taken; try again in a moment.")
        self._taken += 1
        session: Session | None = None
        peer: Peer | None = None
        try:
            session = await self._create(avatar, quality)
            await session.start()
            live_id = secrets.token_urlsafe(12)
            peer = Peer(session, live_id, self._pool, self._options, self._metrics)
            description = await peer.answer(offer)
            session.set_mode(mode)
        except BaseException as error:
            self._metrics.offer("invalid" if isinstance(error, OfferInvalid) else "failed")
            await self._free(session, peer)
            raise
        live = LiveSession(live_id, session, peer, avatar)
        self._live[live_id] = live
        live._life = asyncio.create_task(self._live_and_end(live), name="session-life")
        self._metrics.offer("answered")
        return live, description

    def get(self, session_id: str) -> LiveSession:
        """A session by id.

        Raises:
            NotFound: ``session_not_found``: never existed, or has ended.
        """
        live = self._live.get(session_id)
        if live is None or live.peer.ended.done():
            raise NotFound("session_not_found", "There is no such session; it may have ended.")
        return live

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
        everyone = list(self._live.values())
        for live in everyone:
            live.end(EndReason.SHUTDOWN)
        await asyncio.gather(*(_finished(live) for live in everyone))

    async def _live_and_end(self, live: LiveSession) -> None:
        try:
            async with asyncio.timeout(self._max_duration_s):
                reason = await asyncio.shield(live.peer.ended)
        except TimeoutError:
            reason = EndReason.TOO_LONG
            live.end(reason)
        if reason in _FAREWELLS and live.peer.channel.is_open:
            live.peer.channel.send("state", {"state": "ended", "reason": reason, "message": _FAREWELLS[reason]})
            await asyncio.sleep(FAREWELL_S)
        self._metrics.ended(reason)
        logger.info("session %s ended: %s", live.id[:6], reason)
        self._live.pop(live.id, None)
        await self._free(live.session, live.peer)

    async def _free(self, session: Session | None, peer: Peer | None) -> None:
        try:
            for part in (peer, session):
                if part is not None:
                    await _close(part)
        finally:
            self._taken -= 1


async def _close(part: Peer | Session) -> None:
    # What one part does wrong while it closes must not keep the other one open.
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await part.aclose()
    except Exception:
        logger.exception("closing a %s failed", type(part).__name__.lower())


async def _finished(live: LiveSession) -> None:
    if live._life is not None:
        await asyncio.wait([live._life])
