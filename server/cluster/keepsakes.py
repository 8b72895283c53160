"""What survives a worker: the latest state of each of its sessions, as JSON, bounded.

Place in the flow: reports of workers -> ``Keepsakes.put`` -> a gateway whose visitor comes back -> ``Keepsakes.take``.

Invariants:
    * as long as a worker reports, exactly the sessions it reports are kept for it;
    * those of a lost worker are kept for ``LOST_FOR_S``: whoever has not come back by then will not;
    * never more than ``MAX_BYTES``; the ones of workers lost longest ago go first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LOST_FOR_S = 300.0
MAX_BYTES = 512 << 20
MAX_ITEM_BYTES = 256 << 10


@dataclass(slots=True)
class _Shelf:
    items: dict[str, bytes] = field(default_factory=dict)
    lost_s: float | None = None


class Keepsakes:
    """Snapshots of sessions by the worker that has, or had, them."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Args: now_s: a clock."""
        self._now_s = now_s
        self._shelves: dict[str, _Shelf] = {}
        self._bytes = 0

    def put(self, worker: str, items: Mapping[str, bytes | None], *, complete: bool) -> None:
        """Takes what a worker reported.

        Args:
            worker: its name.
            items: session id -> snapshot; None when the session ended in order.
            complete: whether these are all of its sessions, so that what is missing is forgotten.
        """
        shelf = self._shelves.setdefault(worker, _Shelf())
        shelf.lost_s = None
        if complete:
            self._clear(shelf)
        for session_id, item in items.items():
            self._bytes -= len(shelf.items.pop(session_id, b""))
            if item is not None and len(item) <= MAX_ITEM_BYTES:
                shelf.items[session_id] = item
                self._bytes += len(item)
        if self._bytes > MAX_BYTES:
            self._make_room()

    def add(self, worker: str, session_id: str, item: bytes) -> None:
        """Takes one snapshot from somebody else than its worker, of whom nothing needs to be known."""
        shelf = self._shelves.get(worker)
        lost_s = self._now_s() if shelf is None else shelf.lost_s
        self.put(worker, {session_id: item}, complete=False)
        self._shelves[worker].lost_s = lost_s

    def lose(self, worker: str) -> None:
        """The worker is gone; its sessions may come back elsewhere for a while."""
        shelf = self._shelves.get(worker)
        if shelf is not None and shelf.lost_s is None:
            shelf.lost_s = self._now_s()

    def drop(self, worker: str) -> None:
        """The worker left in order, and its sessions have ended."""
        if (shelf := self._shelves.pop(worker, None)) is not None:
            self._clear(shelf)

    def get(self, worker: str, session_id: str) -> bytes | None:
        """The latest snapshot of a session, if there is one."""
        self._sweep()
        shelf = self._shelves.get(worker)
        return None if shelf is None else shelf.items.get(session_id)

    def forget(self, worker: str, session_id: str) -> None:
        """The session ended in order, or goes on under another id."""
        if (shelf := self._shelves.get(worker)) is not None:
            self._bytes -= len(shelf.items.pop(session_id, b""))

    @property
    def total_bytes(self) -> int:
        """Of all snapshots."""
        return self._bytes

    def __len__(self) -> int:
        return sum(len(shelf.items) for shelf in self._shelves.values())

    def _sweep(self) -> None:
        oldest_s = self._now_s() - LOST_FOR_S
        for name, shelf in list(self._shelves.items()):
            if shelf.lost_s is not None and shelf.lost_s < oldest_s:
                self.drop(name)

    def _make_room(self) -> None:
        self._sweep()
        lost = sorted((it.lost_s, name) for name, it in self._shelves.items() if it.lost_s is not None)
        for _, name in lost:
            if self._bytes <= MAX_BYTES:
                return
            self.drop(name)
        # All of living workers: the first ones kept are the ones longest without a word.
        for shelf in self._shelves.values():
            while self._bytes > MAX_BYTES and shelf.items:
                self._bytes -= len(shelf.items.pop(next(iter(shelf.items))))

    def _clear(self, shelf: _Shelf) -> None:
        self._bytes -= sum(map(len, shelf.items.values()))
        shelf.items.clear()
