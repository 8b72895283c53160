"""What a worker wants to survive it: collected here, and sent to the directory with its next report.

Place in the flow: session -> ``Memory.keep`` -> ``WorkerMemory`` -> report -> directory.

Invariants:
    * keeping costs the session nothing but the JSON: it never waits for the network;
    * everything of all living sessions is at hand for a directory that has lost it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from server.gateway.fleet import Snapshot


class WorkerMemory:
    """``Memory`` for the sessions of one worker."""

    def __init__(self, fetch: Callable[[str], Awaitable[bytes | None]]) -> None:
        """Args: fetch: asks the directory for a session of another worker."""
        self._fetch = fetch
        self._kept: dict[str, bytes] = {}
        self._changed: dict[str, bytes | None] = {}
        self.news = asyncio.Event()
        """Set when there is something to report."""

    async def keep(self, session_id: str, snapshot: Snapshot) -> None:
        """See ``Memory``."""
        packed = json.dumps(snapshot, ensure_ascii=False, separators=(",", ":")).encode()
        if self._kept.get(session_id) != packed:
            self._kept[session_id] = self._changed[session_id] = packed
            self.news.set()

    async def recall(self, session_id: str) -> Snapshot | None:
        """See ``Memory``."""
        found = self._kept.get(session_id) or await self._fetch(session_id)
        return None if found is None else json.loads(found)

    async def forget(self, session_id: str) -> None:
        """See ``Memory``."""
        if self._kept.pop(session_id, None) is not None:
            self._changed[session_id] = None
            self.news.set()

    def changes(self) -> dict[str, bytes | None]:
        """What is new since it was asked last."""
        self.news.clear()
        changed, self._changed = self._changed, {}
        return changed

    def everything(self) -> dict[str, bytes | None]:
        """All sessions, for a directory that knows none."""
        self.changes()
        return dict(self._kept)

    def give_back(self, changed: dict[str, bytes | None]) -> None:
        """A report did not arrive: what was in it is still new."""
        self._changed = {**changed, **self._changed}
