"""Who works in the cluster and has places free, by what the workers report about themselves.

Place in the flow: worker -> ``Report`` -> ``Roster.report``; gateway -> ``Roster.reserve`` -> the worker's address.

Invariants:
    * pure: no Ray, and no clock but the one it is given;
    * a place that was given away counts as taken until its worker has had time to say so itself;
    * whoever has not reported for ``SILENT_S``, or was found dead, is given nobody; who reports again is back;
    * what is known can be told anew by the workers themselves: a roster that lost everything is whole again after one
      round of reports.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from server.gateway.fleet import Wanted, WorkerState, pick

REPORT_S = 0.5
"""Between two reports of a worker, in a small cluster."""
REPORTS_A_SECOND = 500
"""That many are easy for one process to take; beyond it workers report less often."""
SILENT_S = 3.0
GONE_S = 15.0
"""Without a report for so long a worker counts as lost."""
RESERVED_S = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of itself.

    Attributes:
        slot: name of the Ray actor that it runs in; an actor that was restarted has the same, and another worker.
        node: id of the Ray node.
        generation: of the settings it runs with.
        worker: the rest, as gateways see it.
        pid: of its process, for people.
        epoch: of the directory that it reported to last; empty at first.
        snapshots: sessions that changed since, as JSON; None for those that ended in order.
        complete: whether ``snapshots`` are all it has.
    """

    slot: str
    node: str
    generation: int
    worker: WorkerState
    pid: int = 0
    epoch: str = ""
    snapshots: Mapping[str, bytes | None] = field(default_factory=dict)
    complete: bool = False


@dataclass(slots=True)
class Member:
    """A worker that has reported, and what the roster adds to it.

    Attributes:
        heard_s: when it reported last.
        reserved: until when each place counts that was given away and not heard of.
        silent: it has not reported for a while; those it has may still reach it.
        dead: a gateway found nobody at its address.
        drain: it is to take no more sessions, let those it has end, and leave.
    """

    report: Report
    heard_s: float
    reserved: list[float] = field(default_factory=list)
    silent: bool = False
    dead: bool = False
    drain: bool = False

    @property
    def state(self) -> WorkerState:
        """As gateways should see it."""
        worker = self.report.worker
        taken = worker.taken + len(self.reserved)
        # What is given away beyond the places that are free is given away of those that yield.
        beyond = max(0, taken - worker.places)
        taken, yielding = taken - beyond, max(0, worker.yielding - beyond)
        state = worker.state
        if self.dead:
            state = "gone"
        elif state == "ready" and (self.drain or self.silent):
            state = "draining"
        return replace(worker, taken=taken, yielding=yielding, state=state)


class Roster:
    """All workers of a cluster."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Args: now_s: a clock."""
        self._now_s = now_s
        self._members: dict[str, Member] = {}
        self._refused_s: deque[float] = deque(maxlen=10_000)

    @property
    def members(self) -> list[Member]:
        """All workers."""
        return list(self._members.values())

    def get(self, name: str) -> Member | None:
        """A worker by name."""
        return self._members.get(name)

    def report(self, report: Report) -> tuple[Member, list[str]]:
        """Takes a report.

        Returns:
            The worker, and the names of workers that it proves to be gone: of one actor only the latest lives.
        """
        name, now_s = report.worker.name, self._now_s()
        formers = [other for other, it in self._members.items() if it.report.slot == report.slot and other != name]
        for former in formers:
            del self._members[former]
        member = self._members.get(name)
        if member is None:
            member = self._members[name] = Member(report, now_s)
        else:
            # As many as have come in since are no longer only reserved; some in the place of one that was lost.
            came = _occupied(report.worker) - _occupied(member.report.worker)
            del member.reserved[: max(0, came)]
            member.report, member.heard_s, member.silent, member.dead = report, now_s, False, False
        return member, formers

    def reserve(self, wanted: Wanted) -> WorkerState:
        """Gives away a place.

        Raises:
            Busy: ``server_full``.
        """
        now_s = self._now_s()
        self._age(now_s)
        chosen = pick((it.state for it in self._members.values()), wanted)
        self._members[chosen.name].reserved.append(now_s + RESERVED_S)
        return replace(chosen, taken=chosen.taken + 1)

    def refuse(self) -> None:
        """Counts a newcomer for whom there was no place, nor one in the line."""
        self._refused_s.append(self._now_s())

    def set_aside(self, name: str) -> None:
        """A gateway found nobody at its address: nothing for it until it reports again."""
        if (member := self._members.get(name)) is not None:
            member.dead = True

    def states(self) -> list[WorkerState]:
        """All workers as gateways should see them."""
        self._age(self._now_s())
        return [state for it in self._members.values() if (state := it.state).state != "gone"]

    def lost(self) -> list[str]:
        """Takes out those that have been silent for too long; returns their names."""
        oldest_s = self._now_s() - max(GONE_S, 4 * self.report_in_s)
        names = [name for name, it in self._members.items() if it.heard_s < oldest_s]
        for name in names:
            del self._members[name]
        return names

    def remove(self, name: str) -> None:
        """It has left."""
        self._members.pop(name, None)

    def refused_within(self, seconds: float) -> int:
        """How many newcomers were sent away in the last seconds."""
        oldest_s = self._now_s() - seconds
        return sum(at_s >= oldest_s for at_s in self._refused_s)

    @property
    def report_in_s(self) -> float:
        """When a worker should report again."""
        return max(REPORT_S, len(self._members) / REPORTS_A_SECOND)

    def _age(self, now_s: float) -> None:
        silent_s = now_s - max(SILENT_S, 3 * self.report_in_s)
        for member in self._members.values():
            member.reserved = [until_s for until_s in member.reserved if until_s > now_s]
            member.silent = member.heard_s < silent_s


def _occupied(worker: WorkerState) -> int:
    return worker.taken - worker.yielding
