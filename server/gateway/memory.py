"""What a gateway on one machine remembers of its workers' sessions, in its own memory.

Place in the flow: a worker's ``/internal/events`` -> ``LocalMemory`` -> ``RemoteSessions.recall``.

Invariants: nothing is kept for longer than the session could have lasted, nor of more sessions than a bound; what was
not touched for longest goes first.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from server.gateway.fleet import Snapshot

MAX_SESSIONS = 10_000
UNKNOWN_S = 3600.0
"""What does not say when it ends is kept for so long."""


class LocalMemory:
    """A ``Memory`` for one process; see there."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        """Args: now_s: Unix time."""
        self._now_s = now_s
        self._kept: OrderedDict[str, tuple[Snapshot, float]] = OrderedDict()

    async def keep(self, session_id: str, snapshot: Snapshot) -> None:
        """See ``Memory``."""
        end_at_s = snapshot.get("end_at_s", self._now_s() + UNKNOWN_S)
        self._kept.pop(session_id, None)
        self._kept[session_id] = (snapshot, end_at_s)
        # What is kept this moment may be over as well.
        while self._kept and (len(self._kept) > MAX_SESSIONS or self._is_over(next(iter(self._kept)))):
            self._kept.popitem(last=False)

    async def recall(self, session_id: str) -> Snapshot | None:
        """See ``Memory``."""
        if session_id not in self._kept or self._is_over(session_id):
            self._kept.pop(session_id, None)
            return None
        return self._kept[session_id][0]

    async def forget(self, session_id: str) -> None:
        """See ``Memory``."""
        self._kept.pop(session_id, None)

    def _is_over(self, session_id: str) -> bool:
        return self._kept[session_id][1] <= self._now_s()
