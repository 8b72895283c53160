"""Keeps the state of a worker's sessions outside it, so that they can go on elsewhere when it is lost.

Place in the flow: Sessions -> ``Keeper`` -> ``Memory.keep`` -> the gateway, or whatever the memory is.

Invariants:
    * what was heard is kept within half a second, or within seconds where it is much;
    * a session in which nothing happens costs a comparison;
    * a session that ended in order is forgotten; one that a stopping worker ends is kept as it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from engine.aio import Tasks
from server.gateway.fleet import Memory
from server.live_session import LiveSession
from server.metrics import EndReason
from server.peer import Peer
from server.sessions import Sessions
from server.snapshot import Snapshot

logger = logging.getLogger(__name__)

LOOK_S = 0.4
CLOSE_TIMEOUT_S = 2.0
BYTES_A_SECOND = 50_000
"""What the snapshots of one session may cost on average, once they are large."""


@dataclass(slots=True)
class _Kept:
    mark: tuple[Any, ...]
    again_s: float


class Keeper:
    """Looks at all sessions of one worker. Its ``run`` is a task."""

    def __init__(self, sessions: Sessions, memory: Memory) -> None:
        """Args: sessions: of this worker; memory: outlives it."""
        self._sessions = sessions
        self._memory = memory
        self._kept: dict[str, _Kept] = {}
        self._tasks = Tasks("keeper")
        self._lasts: set[asyncio.Task[None]] = set()
        sessions.on_ended = self._ended

    async def run(self) -> None:
        """Keeps what has changed, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for live in list(self._sessions.live):
                if _can_return(live) and not live.ended.done():
                    try:
                        await self._look(live)
                    except Exception:
                        # A memory that fails must not take the sessions with it.
                        logger.exception("a session could not be kept")

    async def aclose(self) -> None:
        """Waits for what is being kept. Idempotent."""
        if self._lasts:
            await asyncio.wait(self._lasts, timeout=CLOSE_TIMEOUT_S)
        await self._tasks.aclose()

    async def _look(self, live: LiveSession) -> None:
        kept, now_s = self._kept.get(live.id), time.monotonic()
        if kept is not None and now_s < kept.again_s:
            return
        mark = _mark(live)
        if kept is not None and kept.mark == mark:
            return
        snapshot = Snapshot.of(live)
        await self._memory.keep(live.id, snapshot.model_dump(mode="json"))
        size = sum(len(line.text) for line in snapshot.lines)
        self._kept[live.id] = _Kept(mark, now_s + size / BYTES_A_SECOND)

    def _ended(self, live: LiveSession, reason: EndReason) -> None:
        self._kept.pop(live.id, None)
        if not _can_return(live):
            return
        if reason is EndReason.SHUTDOWN:
            last = self._memory.keep(live.id, Snapshot.of(live).model_dump(mode="json"))
        else:
            last = self._memory.forget(live.id)
        task = self._tasks.start(last, "last")
        self._lasts.add(task)
        task.add_done_callback(self._lasts.discard)


def _can_return(live: LiveSession) -> bool:
    """Whether its browser knows a way back; who only watches has none."""
    return isinstance(live.peer, Peer) and live.peer.channel.known


def _mark(live: LiveSession) -> tuple[Any, ...]:
    """Is another one when something has changed."""
    session = live.session
    lines = session.said_so_far()
    return (
        len(lines), lines[-1].text if lines else "", session.mode, session.voice_change, session.quality.asked,
        live.manner.style, live.manner.language_model, live.peer.packing.background,
    )  # fmt: skip
