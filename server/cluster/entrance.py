"""Who comes in next, for all gateways together: one line, and one memory of the tokens that were used.

Place in the flow: gateway -> ``Directory.place`` -> ``Entrance`` -> ``Roster.reserve``.

Invariants:
    * of two gateways that are shown the same token, one lets its caller in;
    * whoever waits has used the token, and comes in with the ticket it was used for, at whatever gateway;
    * nobody without a ticket comes before somebody with one.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from engine.errors import Busy
from server.access.line import Line
from server.access.tokens import MAX_SPENT
from server.gateway.fleet import Wanted, WorkerState


@dataclass(frozen=True, slots=True)
class Placement:
    """The answer to somebody who wants a place.

    Attributes:
        worker: where it is; None for somebody who does not come in now.
        reason: why not; ``settling``: too early to say, ask again.
        ticket, position: place in the line, of who stands there; 1 is next.
    """

    worker: WorkerState | None = None
    reason: Literal["", "server_full", "line_full", "token_used", "settling"] = ""
    ticket: str = ""
    position: int = 0


class Entrance:
    """The line, and what is spent."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic, unix_s: Callable[[], float] = time.time) -> None:
        """Args: now_s: a clock; unix_s: the one by which tokens expire."""
        self._unix_s = unix_s
        self._line: Line[str] = Line(now_s)
        self._spent: dict[str, str] = {}
        self._forgettable: list[tuple[float, str]] = []

    def ask(self, wanted: Wanted, free: int, reserve: Callable[[], WorkerState]) -> Placement:
        """Lets somebody in, to the line, or not.

        Args:
            wanted: who.
            free: places that nobody has.
            reserve: takes one of them.
        """
        ticket = wanted.ticket
        if ticket and self._line.find(ticket) is None:
            ticket = ""
        # Whoever was refused by a worker asks again with the same token.
        if wanted.token_id and not wanted.avoid and (used_for := self._spent.get(wanted.token_id)) is not None:
            if not used_for or used_for != ticket:
                return Placement(reason="token_used")
        if self._line.ahead(ticket, wanted.priority) < free:
            try:
                worker = reserve()
            except Busy:
                # All that are free have just refused this one.
                return self._wait(wanted, ticket)
            if ticket:
                self._line.leave(ticket)
            self._spend(wanted, "")
            return Placement(worker)
        return self._wait(wanted, ticket)

    def give_back(self, token_id: str) -> None:
        """What the token was used for did not come about."""
        self._spent.pop(token_id, None)

    @property
    def waiting(self) -> int:
        """How many stand in the line."""
        # All are before somebody of the lowest priority.
        return self._line.ahead(priority=0)

    def _wait(self, wanted: Wanted, ticket: str | None) -> Placement:
        if ticket is None:
            return Placement(reason="server_full")
        if not ticket:
            try:
                self._line.require_room()
            except Busy:
                return Placement(reason="line_full")
            ticket = self._line.join(wanted.token_id, wanted.priority)
            self._spend(wanted, ticket)
        return Placement(reason="server_full", ticket=ticket, position=self._line.ahead(ticket) + 1)

    def _spend(self, wanted: Wanted, ticket: str) -> None:
        if not wanted.token_id:
            return
        now_s = self._unix_s()
        while self._forgettable and (self._forgettable[0][0] < now_s or len(self._forgettable) >= MAX_SPENT):
            self._spent.pop(heapq.heappop(self._forgettable)[1], None)
        if wanted.token_id not in self._spent:
            heapq.heappush(self._forgettable, (wanted.token_expires_s, wanted.token_id))
        self._spent[wanted.token_id] = ticket
