"""What a worker wants to be remembered, on its way to a gateway that reads it.

Place in the flow: ``Keeper`` -> ``RelayMemory`` -> ``GET /internal/events`` -> the gateway's ``LocalMemory``.

Invariants: of every session only the latest word waits, so what waits is bounded by the sessions there are; what was
told to nobody is told to the next reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server.gateway.fleet import Snapshot


class RelayMemory:
    """A ``Memory`` that only passes on."""

    def __init__(self) -> None:
        self._waiting: dict[str, Snapshot | None] = {}
        self.on_word: Callable[[], None] = lambda: None
        """Called when there is something to take."""

    async def keep(self, session_id: str, snapshot: Snapshot) -> None:
        """See ``Memory``."""
        self._put(session_id, snapshot)

    async def recall(self, session_id: str) -> Snapshot | None:
        """See ``Memory``; a worker never asks, its gateway does."""
        return self._waiting.get(session_id)

    async def forget(self, session_id: str) -> None:
        """See ``Memory``."""
        self._put(session_id, None)

    def take(self) -> list[dict[str, Any]]:
        """Everything that waits, as lines of ``/internal/events``."""
        waiting, self._waiting = self._waiting, {}
        return [
            {"forget": session_id} if snapshot is None else {"keep": session_id, "snapshot": snapshot}
            for session_id, snapshot in waiting.items()
        ]

    def _put(self, session_id: str, snapshot: Snapshot | None) -> None:
        self._waiting[session_id] = snapshot
        self.on_word()
