"""The line in front of a full server: who comes next, by priority and then in the order in which they came.

Place in the flow: ``Access.admission`` -> ``Line``; its tickets travel in the answer to an offer and in the next offer.

Invariants:
    * a ticket is an unguessable name of a place in the line, and carries the permission of whoever got it;
    * who does not show it for a while has lost it, so nobody waits for people who have left;
    * the line is bounded.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from engine.errors import Busy

MAX_WAITING = 200
RETRY_AFTER_S = 3
TICKET_LIFETIME_S = 15.0
"""Since it was shown last."""
USUAL_PRIORITY = 5
HIGHEST_PRIORITY = 9

P = TypeVar("P")


class Waiting(Busy):
    """All places are taken, and the caller stands in the line.

    Attributes:
        ticket: to be shown with the next try.
        position: 1 is next.
    """

    def __init__(self, ticket: str, position: int) -> None:
        super().__init__(
            "server_full",
            f"All places are taken; you are number {position} in the line.",
            retry_after_s=RETRY_AFTER_S,
        )
        self.ticket = ticket
        self.position = position

    def queue(self) -> dict[str, object]:
        """As the wire shows it."""
        return {"ticket": self.ticket, "position": self.position, "retry_after_s": RETRY_AFTER_S}


@dataclass(slots=True)
class _Entry(Generic[P]):
    permission: P
    seen_s: float
    place: tuple[int, int]
    """Smaller comes first: priority downwards, then a running number."""


class Line(Generic[P]):
    """Those who wait, each with the permission to come in."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Args: now_s: a clock."""
        self._now_s = now_s
        self._entries: dict[str, _Entry[P]] = {}
        self._last = 0

    def find(self, ticket: str) -> P | None:
        """The permission behind a ticket, which is thereby kept; None when it was lost."""
        self._sweep()
        entry = self._entries.get(ticket)
        if entry is None:
            return None
        entry.seen_s = self._now_s()
        return entry.permission

    def ahead(self, ticket: str | None = None, priority: int = USUAL_PRIORITY) -> int:
        """How many come before a ticket; before somebody who has none, all of the same priority and above."""
        self._sweep()
        entry = self._entries.get(ticket or "")
        place = entry.place if entry is not None else (-priority, self._last + 1)
        return sum(other.place < place for other in self._entries.values())

    def require_room(self) -> None:
        """Raises Busy: ``server_full`` when nobody else may join."""
        if len(self._entries) >= MAX_WAITING:
            raise Busy("server_full", "All places are taken, and many wait for one; try again later.", retry_after_s=30)

    def join(self, permission: P, priority: int = USUAL_PRIORITY) -> str:
        """A ticket behind all of the same priority and above. Args: permission; priority: 0 to 9."""
        ticket = secrets.token_urlsafe(16)
        self._last += 1
        self._entries[ticket] = _Entry(permission, self._now_s(), (-priority, self._last))
        return ticket

    def leave(self, ticket: str) -> None:
        """Takes a ticket out of the line."""
        self._entries.pop(ticket, None)

    def return_first(self, ticket: str, permission: P, priority: int = USUAL_PRIORITY) -> None:
        """Puts a ticket back in front of its priority: the place its owner got did not come about."""
        first = min((entry.place[1] for entry in self._entries.values()), default=0)
        self._entries[ticket] = _Entry(permission, self._now_s(), (-priority, first - 1))

    def _sweep(self) -> None:
        oldest_s = self._now_s() - TICKET_LIFETIME_S
        if any(entry.seen_s < oldest_s for entry in self._entries.values()):
            self._entries = {ticket: entry for ticket, entry in self._entries.items() if entry.seen_s >= oldest_s}
