"""One place that is taken: a session, who shows it, and what others get of it.

Place in the flow: ``Sessions`` makes it and ends it; routes and outputs work with it.

Invariants: it ends once, for the first reason; what watches it goes on watching when another browser takes over.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field

from engine.session import Session
from server.fan import Fan
from server.manner import Manner
from server.metrics import EndReason
from server.showing import Showing, Watcher

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
        peer: the browser that watches it; another one after it was lost and came back, an audience where there is none.
        avatar: name of the face.
        manner: how it answers.
        fan: its pictures and sound for others.
        watchers: who is shown every frame; each must return at once.
        resumed: it goes on with what was said in a session that was lost.
        priority: 0 to 9; who has less goes short first.
        end_s: monotonic time at which it has lasted for as long as it may.
        ended: done when the session is of no more use; the first reason counts.
        lost: its browser is gone and may come back.
        passed_on: its place goes to somebody else when it is free.
        joining: held while another browser takes over.
        life: the task that ends it.
    """

    id: str
    session: Session
    peer: Showing
    avatar: str
    manner: Manner
    fan: Fan
    watchers: set[Watcher]
    resumed: bool = False
    end_s: float = math.inf
    priority: int = 5
    ended: asyncio.Future[EndReason] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    lost: bool = False
    passed_on: bool = False
    joining: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    life: asyncio.Task[None] | None = field(default=None, repr=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _formers: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    def end(self, reason: EndReason) -> None:
        """Starts to end it; the place is free a moment later."""
        if not self.ended.done():
            self.ended.set_result(reason)
        self._news.set()

    def tell(self) -> None:
        """Wakes whoever waits for news."""
        self._news.set()

    async def news(self, timeout_s: float) -> None:
        """Returns when something happened to it, at the latest after a while. For its life alone."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    def dismiss(self, peer: Showing) -> None:
        """Closes a peer that shows the session no more, while the session goes on."""
        task = asyncio.create_task(close(peer), name="former-peer")
        self._formers.add(task)
        task.add_done_callback(self._formers.discard)

    async def say_farewell(self, reason: EndReason) -> None:
        """Tells the browser that and why it ends, where there is something to be told."""
        if reason in _FAREWELLS and self.peer.channel.is_open:
            self.peer.channel.send("state", {"state": "ended", "reason": reason, "message": _FAREWELLS[reason]})
            await asyncio.sleep(FAREWELL_S)

    async def dismissed(self) -> None:
        """Returns when all former peers are closed."""
        if self._formers:
            await asyncio.wait(self._formers)

    async def finished(self) -> None:
        """Returns when it has ended and its place is free."""
        if self.life is not None:
            await asyncio.wait([self.life])


async def close(part: Showing | Session | Fan) -> None:
    """Closes a part of a session; what it does wrong meanwhile must not keep the others open."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await part.aclose()
    except Exception:
        logger.exception("closing a %s failed", type(part).__name__.lower())
