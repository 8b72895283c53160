"""The line in front of a full server: who comes next, in the order in which they came.

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


class Line(Generic[P]):
    """Those who wait, each with the permission to come in."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Args: now_s: a clock."""
        self._now_s = now_s
        self._entries: dict[str, _Entry[P]] = {}

    def find(self, ticket: str) -> P | None:
        """The permission behind a ticket, which is thereby kept; None when it was lost."""
        self._sweep()
        entry = self._entries.get(ticket)
        if entry is None:
            return None
        entry.seen_s = self._now_s()
        return entry.permission

    def ahead(self, ticket: str | None = None) -> int:
        """How many come before a ticket; all of them before somebody who has none."""
        self._sweep()
        if ticket not in self._entries:
            return len(self._entries)
        return list(self._entries).index(ticket)

    def require_room(self) -> None:
        """Raises Busy: ``server_full`` when nobody else may join."""
        if len(self._entries) >= MAX_WAITING:
            raise Busy("server_full", "All places are taken, and many wait for one; try again later.", retry_after_s=30)

    def join(self, permission: P) -> str:
        """A ticket at the end of the line."""
        ticket = secrets.token_urlsafe(16)
        self._entries[ticket] = _Entry(permission, self._now_s())
        return ticket

    def leave(self, ticket: str) -> None:
        """Takes a ticket out of the line."""
        self._entries.pop(ticket, None)

    def return_first(self, ticket: str, permission: P) -> None:
        """Puts a ticket back in front: the place its owner got did not come about."""
        self._entries = {ticket: _Entry(permission, self._now_s()), **self._entries}

    def _sweep(self) -> None:
        oldest_s = self._now_s() - TICKET_LIFETIME_S
        if any(entry.seen_s < oldest_s for entry in self._entries.values()):
            self._entries = {ticket: entry for ticket, entry in self._entries.items() if entry.seen_s >= oldest_s}
