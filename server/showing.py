"""What all who show a session have in common, whether there is a browser behind them or not.

Place in the flow: session -> ``Showing`` (a ``Peer`` or an ``Audience``) -> whoever watches; ``Sessions`` owns it.

Invariants:
    * it owns every task it starts, and ``let_go`` ends them all;
    * whatever goes wrong inside, the outside sees one thing: ``ended`` with a reason;
    * it never closes the session it shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiortc import RTCIceCandidate

from engine.session import Session
from engine.types import AvatarFrame
from server.channel import ControlChannel
from server.manner import Manner
from server.metrics import EndReason
from server.packing import Dress, Packing
from server.peer_options import PeerOptions

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 1.5

Watcher = Callable[[AvatarFrame], None]
"""Is shown every frame; must return at once."""


class Showing:
    """Shows one session."""

    def __init__(
        self,
        session: Session,
        manner: Manner,
        session_id: str,
        options: PeerOptions,
        watchers: set[Watcher] | None = None,
    ) -> None:
        """
        Args:
            session: what it shows; started, and not closed by it.
            manner: how it answers.
            session_id: told to the browser.
            options: how long what may take.
            watchers: who is shown every frame beside; whoever owns the set may change it at any time.
        """
        self._session = session
        self._options = options
        self._watchers = set() if watchers is None else watchers
        self.channel = ControlChannel(session, manner, session_id, lambda: self._end(EndReason.CLOSED))
        self.packing = Packing(lambda: options.matte(session.avatar), self._wear, self.channel.send)
        self.channel.on_background = self.packing.choose
        self.ended: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        """Done when it is of no more use; the first reason counts."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def add_candidates(self, candidates: Sequence[RTCIceCandidate]) -> None:
        """Takes ways to reach the browser that it found after its offer; of no use without one."""

    async def let_go(self, reason: EndReason = EndReason.CLOSED) -> None:
        """Ends every task, so that another can show the session; quick and idempotent. Call ``aclose`` too."""
        self._end(reason)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        await self.packing.aclose()

    async def aclose(self) -> None:
        """Ends every task; idempotent and time-limited."""
        await self.let_go()

    def _show(self, frame: AvatarFrame) -> None:
        for watcher in tuple(self._watchers):
            watcher(frame)

    def _wear(self, dress: Dress | None) -> None:
        """Dresses the browser's pictures from now on."""

    def _start(self, name: str, work: Coroutine[Any, Any, None], reason: EndReason | None) -> None:
        """Runs work; its end is the end of all when a reason is given, its failure always is."""

        async def guarded() -> None:
            try:
                await work
            except Exception:
                logger.exception("the task %s of a session's %s failed", name, type(self).__name__.lower())
                self._end(EndReason.FAILED)
            else:
                if reason is not None:
                    self._end(reason)

        task = asyncio.create_task(guarded(), name=f"{type(self).__name__.lower()}-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, reason: EndReason) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
