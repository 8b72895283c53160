"""Which waiting picture is drawn next, when many sessions want theirs in time and there may not be time for all.

Place in the flow: render queue, model process -> ``Schedule.add`` -> ``take`` -> the thread that draws.

While there is time for all, the earliest deadline goes first, which is the order that keeps every deadline when any
order does. As soon as one cannot be kept, somebody must do without, and the deadlines no longer say who: whoever is
late already would push all others late, and whoever has the earlier phase would get everything. So the pictures are
gone through in the order of their deadlines, and whenever one would be late, one of those so far is left out (Moore
and Hodgson's rule, which loses fewest): of the lowest priority, and among equals of whoever did without least. That is
counted much as fair queueing counts what it gives: whoever had enough for a while owes others little for it.

Invariants:
    * a picture that cannot be in time any more does not delay one that can;
    * it is given up when a later one of its owner waits, else drawn when that makes nobody late, or after
      ``STARVED_S``: a slow machine shows fewer pictures, but those in sync, and nobody waits for ever;
    * bounded, for each owner too: nobody keeps others out by asking for much;
    * pure: no clock, no lock. Where there is time for all, ``take`` looks at no more pictures than it takes.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engine.batches import MARGIN_S, Batches

T = TypeVar("T")

PRIORITY = 5
"""Of whoever does not say; 0 does without first, 9 last."""
PRIORITIES = 10
WAITING_LIMIT = 1024
"""Pictures that may wait: five for each of two hundred sessions."""
OWNER_LIMIT = 8
"""Pictures of one owner that may wait: producers run five frames ahead."""
GATHER_S = 0.004
"""How long pictures wait for company where a model gains from it and they have the time."""

STARVED_S = 0.1
"""A late picture that nobody gave up is drawn after so long, whoever gets late for it."""
_HORIZON_S = 0.08
"""Who does without is decided among the pictures of the next two frames: what comes later may be taken back yet."""
_LOSERS_KEPT = 512
_REMEMBERED = 12
"""Pictures that an owner may have to make good, having done without less than others: half a second of them."""


@dataclass(frozen=True, slots=True)
class Urgency:
    """What a model that serves several processes needs to know to be fair.

    Attributes:
        due_s: when the picture is needed, monotonic seconds, which are those of all processes of a machine.
        owner: number of the session; 0 for nobody's.
        priority: 0 to 9; where time is short, the lowest does without first.
    """

    due_s: float = 0.0
    owner: int = 0
    priority: int = PRIORITY


NOT_URGENT = Urgency()


# Priority, what its owner did without, when last, a number to tell equals apart; the lowest goes first.
_Loser = tuple[int, int, int, int, "Ticket[T]"]


@dataclass(eq=False, slots=True)
class Ticket(Generic[T]):
    """One picture that waits.

    Attributes:
        item: the picture.
        due_s: when it is needed, monotonic seconds.
        owner: whose it is, hashable; itself when nobody's.
        priority: 0 to 9.
        added_s: since when it waits.
        waits: not yet taken, removed or given up.
        left_out: must do without as things stand.
    """

    item: T
    due_s: float
    owner: Hashable
    priority: int
    added_s: float
    waits: bool = True
    left_out: bool = False

    @property
    def late_since_s(self) -> float:
        """When it was, or will be, both here and late."""
        return max(self.added_s, self.due_s)


@dataclass(slots=True)
class Turn(Generic[T]):
    """What a thread gets.

    Attributes:
        items: to draw now, the most urgent first.
        given_up: not to be drawn at all.
    """

    items: list[T] = field(default_factory=list)
    given_up: list[T] = field(default_factory=list)


class Schedule(Generic[T]):
    """The waiting pictures of all sessions; the caller keeps threads apart.

    Args:
        batches: how many pictures are drawn at a time, and what that takes.
        lanes: threads that draw.
        gives_up: whether pictures are given up for later ones; else all are drawn some time.
        owner_limit: pictures of one owner that may wait.
    """

    def __init__(
        self, batches: Batches, lanes: int = 1, *, gives_up: bool = True, owner_limit: int = OWNER_LIMIT
    ) -> None:
        self._owner_limit = owner_limit
        self._batches = batches
        self._lanes = lanes
        self._gives_up = gives_up
        # Side by side, in the order of deadlines: a list of plain floats is searched and copied at no cost.
        self._tickets: list[Ticket[T]] = []
        self._due_s: list[float] = []
        self._of_owner: Counter[Hashable] = Counter()
        # What an owner did without, and the number of that loss among all. And what the last one of a priority had done
        # without until then, which is where newcomers begin.
        self._lost: dict[Hashable, tuple[int, int]] = {}
        self._losses = 0
        self._usual = [0] * PRIORITIES

    def __len__(self) -> int:
        return len(self._tickets)

    def has_room(self, owner: Hashable = None, count: int = 1) -> bool:
        """Whether so many more pictures of an owner may wait."""
        return len(self._tickets) + count <= WAITING_LIMIT and (
            owner is None or self._of_owner[owner] + count <= self._owner_limit
        )

    def add(
        self, item: T, due_s: float, now_s: float, owner: Hashable = None, priority: int = PRIORITY
    ) -> Ticket[T]:
        """Another picture waits. Ask ``has_room`` before."""
        ticket = Ticket(item, due_s, owner, priority, now_s)
        if owner is None:
            # Every one for itself.
            ticket.owner = ticket
        at = bisect_right(self._due_s, due_s)
        self._tickets.insert(at, ticket)
        self._due_s.insert(at, due_s)
        self._of_owner[ticket.owner] += 1
        return ticket

    def remove(self, ticket: Ticket[T]) -> None:
        """A picture waits no more; harmless when it did not."""
        if ticket.waits:
            self._remove([ticket])

    def clear(self) -> list[T]:
        """Takes out everything."""
        items = [ticket.item for ticket in self._tickets]
        self._remove(list(self._tickets))
        return items

    def due_s(self) -> list[float]:
        """When each waiting picture is due, the first one first."""
        return self._due_s.copy()

    def gather_s(self, now_s: float) -> float:
        """How long to wait for company before ``take``; 0 when that gains nothing or would make somebody late."""
        most = self._batches.most
        if most == 1 or not 0 < len(self._tickets) < most:
            return 0.0
        until_s = min(ticket.added_s for ticket in self._tickets) + GATHER_S
        latest_s = self._due_s[0] - self._batches.expected_s(most) - MARGIN_S
        return max(0.0, min(until_s, latest_s) - now_s)

    def take(self, now_s: float) -> Turn[T]:
        """Takes what to draw next, and what to give up, out of the waiting ones; call only when there are any."""
        batches, turn = self._batches, Turn[T]()
        first = bisect_left(self._due_s, now_s + batches.likely_s(1))
        count = batches.count(now_s, self._due_s[first]) if first < len(self._due_s) else batches.most
        kept, late, slack_s, short = self._sort(now_s, count, turn)
        if short and count < batches.most:
            # In a hurry batches get small, and small ones take longer in all: that would only make more of them late.
            count = batches.most
            kept, late, slack_s, _ = self._sort(now_s, count, turn)
        room_for_late = count - min(count, len(kept))
        if late and slack_s >= batches.likely_s(count):
            room_for_late = max(1, room_for_late)
        starved = min(late, key=lambda ticket: ticket.late_since_s, default=None)
        if starved is not None and now_s - starved.late_since_s > STARVED_S:
            late.sort(key=lambda ticket: ticket is not starved)
            room_for_late = max(1, room_for_late)
        chosen = late[:room_for_late]
        for ticket in chosen:
            self._do_without(ticket)
        chosen += kept[: count - len(chosen)]
        self._remove(chosen)
        turn.items += [ticket.item for ticket in chosen]
        return turn

    def _sort(
        self, now_s: float, count: int, turn: Turn[T]
    ) -> tuple[list[Ticket[T]], list[Ticket[T]], float, bool]:
        """Tells who can be in time: pictures to draw, late ones, the time to spare among the first, somebody loses."""
        step_s, at_a_time = self._batches.likely_s(count), count * self._lanes
        hopeless_s = now_s + self._batches.least_s(count)

        def done_s(position: int) -> float:
            return now_s + (position // at_a_time + 1) * step_s

        late: list[Ticket[T]] = []
        given_up: list[Ticket[T]] = []
        on_time: list[Ticket[T]] = []
        losers: list[_Loser[T]] = []
        lost = 0
        passed: Counter[Hashable] = Counter()
        order = itertools.count()
        total, slack_s = len(self._tickets), float("inf")
        for index, ticket in enumerate(self._tickets):
            due_s, fit = ticket.due_s, len(on_time) - lost
            if due_s < now_s + step_s:
                owner = ticket.owner
                if self._gives_up and ticket.due_s < hopeless_s and self._of_owner[owner] > 1:
                    self._of_owner[owner] -= 1
                    given_up.append(ticket)
                else:
                    late.append(ticket)
                continue
            ticket.left_out = False
            if done_s(fit + total - index - 1) <= due_s:
                # All that follow are in time even if each had the deadline of this one.
                following = self._tickets[index : index + max(0, at_a_time - fit)]
                for other in following:
                    other.left_out = False
                on_time += following
                slack_s = due_s - done_s(fit + total - index - 1)
                break
            if due_s > now_s + _HORIZON_S and fit >= at_a_time:
                break
            on_time.append(ticket)
            heapq.heappush(losers, self._candidate(ticket, passed, next(order)))
            if done_s(fit) > due_s:
                self._leave_out(losers, passed)
                lost += 1
        for ticket in given_up:
            self._of_owner[ticket.owner] += 1
            self._do_without(ticket)
        self._remove(given_up)
        turn.given_up += [ticket.item for ticket in given_up]
        kept = [ticket for ticket in on_time if not ticket.left_out]
        if late:
            slack_s = min([slack_s, *(ticket.due_s - done_s(at) for at, ticket in enumerate(kept))])
        return kept, late, slack_s, lost > 0

    def _candidate(self, ticket: Ticket[T], passed: Counter[Hashable], order: int) -> _Loser[T]:
        lost, last = self._lost_by(ticket)
        return ticket.priority, lost + passed[ticket.owner], last, order, ticket

    def _lost_by(self, ticket: Ticket[T]) -> tuple[int, int]:
        usual = self._usual[ticket.priority]
        lost, last = self._lost.get(ticket.owner, (usual, 0))
        return max(lost, usual - _REMEMBERED), last

    def _leave_out(self, losers: list[_Loser[T]], passed: Counter[Hashable]) -> None:
        """Decides who does without among those gone through so far."""
        while True:
            top = losers[0]
            ticket = top[-1]
            now = self._candidate(ticket, passed, top[3])
            if now == top:
                heapq.heappop(losers)
                passed[ticket.owner] += 1
                ticket.left_out = True
                return
            heapq.heapreplace(losers, now)

    def _do_without(self, ticket: Ticket[T]) -> None:
        """Counts what an owner did without for others; what it asked for too late is its own affair."""
        if ticket.owner is ticket or not ticket.left_out:
            return
        lost, _ = self._lost_by(ticket)
        self._losses += 1
        # At the end of the table, which is a queue of those that did without last.
        self._lost.pop(ticket.owner, None)
        self._lost[ticket.owner] = lost + 1, self._losses
        self._usual[ticket.priority] = lost
        if len(self._lost) > _LOSERS_KEPT:
            del self._lost[next(iter(self._lost))]

    def _remove(self, tickets: list[Ticket[T]]) -> None:
        for ticket in tickets:
            at = bisect_right(self._due_s, ticket.due_s) - 1
            while self._tickets[at] is not ticket:
                at -= 1
            del self._tickets[at], self._due_s[at]
            ticket.waits = False
            owner = ticket.owner
            self._of_owner[owner] -= 1
            if not self._of_owner[owner]:
                del self._of_owner[owner]
