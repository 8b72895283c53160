"""The directory: what all gateways and workers of a cluster know together, and who decides how many workers there are.

Place in the flow: gateway -> ``place``, ``view``, ``recall``; worker -> ``report`` -> ``Orders``; ``tick``, once a
second, makes the cluster as it should be. Ray runs it as a named actor and starts it again when it dies.

Invariants:
    * it knows nothing of Ray: ``Hands`` does for it what Ray does;
    * nothing it knows is lost with it: workers report everything to a directory of an ``epoch`` they do not know,
      settings included, and until they had time to nobody is told that all places are taken;
    * nothing that a session depends on waits for it: media goes past it, and gateways remember the last view.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from server.cluster.entrance import Entrance, Placement
from server.cluster.keepsakes import Keepsakes
from server.cluster.rollout import Rollout
from server.cluster.roster import Member, Report, Roster
from server.cluster.settings import Settings
from server.cluster.size import Changes, Crew, changes, is_roomy
from server.gateway.fleet import Wanted, WorkerState, worker_of

logger = logging.getLogger(__name__)

SETTLE_S = 2.0
"""A new directory gives the workers at least so long to report before it says that there is no place …"""
SETTLE_MOST_S = 8.0
"""… and so long those that Ray knows of and that have not reported: they may be no workers any more."""
WAITING_WINDOW_S = 10.0


class Hands(Protocol):
    """What is done to the cluster."""

    async def start(self, slot: str, settings: Settings, avoid: frozenset[str]) -> None:
        """Starts an actor of that name, on any node but these, as soon as there is room."""
        ...

    async def stop(self, slot: str) -> None:
        """Ends an actor for good."""
        ...

    async def slots(self) -> set[str]:
        """Names of all actors that there are, or are to be."""
        ...

    async def room(self, settings: Settings, avoid: frozenset[str]) -> int:
        """How many workers all nodes but these could hold together."""
        ...

    async def demand(self, settings: Settings, workers: int) -> None:
        """Tells whoever adds and removes machines how many workers should fit."""
        ...


@dataclass(frozen=True, slots=True)
class Orders:
    """The answer to a report.

    Attributes:
        epoch: of this directory.
        drain: take no more sessions.
        report_in_s: when to report again.
    """

    epoch: str
    drain: bool
    report_in_s: float


@dataclass(frozen=True, slots=True)
class View:
    """What gateways know of the cluster.

    Attributes:
        epoch: of the directory.
        workers: all of them.
        settled: all workers have had the time to report.
        token_key: signs the tokens of all gateways; another one after each restart of the directory, which has
            forgotten what was spent.
    """

    epoch: str
    workers: tuple[WorkerState, ...]
    settled: bool
    token_key: bytes = field(default=b"", repr=False)


class Directory:
    """The state of one cluster."""

    def __init__(self, hands: Hands, now_s: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            hands: what acts for it.
            now_s: a clock.
        """
        self._hands = hands
        self._now_s = now_s
        self._epoch = secrets.token_hex(8)
        self._born_s = now_s()
        self._is_settled = False
        self._token_key = secrets.token_bytes(32)
        self._roster = Roster(now_s)
        self._entrance = Entrance(now_s)
        self._keepsakes = Keepsakes(now_s)
        self._settings: Settings | None = None
        self._started_s: dict[str, float] = {}
        self._new: set[str] = set()
        self._closed_nodes: set[str] = set()
        self._calm_since_s = now_s()
        self._rollout: Rollout | None = None
        self._demanded = 0

    # ---- workers

    async def report(self, report: Report, settings: Settings) -> Orders:
        """Takes what a worker says of itself, and the settings it runs with."""
        if self._settings is None or settings.generation > self._settings.generation:
            self._settings = settings
        member, formers = self._roster.report(report)
        self._new.discard(report.slot)
        for former in formers:
            logger.warning("worker %s is gone; its actor runs again as %s", former, report.worker.name)
            self._keepsakes.lose(former)
        self._keepsakes.put(report.worker.name, report.snapshots, complete=report.complete)
        member.drain = member.drain or report.node in self._closed_nodes or report.worker.state == "draining"
        if report.worker.state == "ready":
            self._started_s.pop(report.slot, None)
        return Orders(self._epoch, member.drain, self._roster.report_in_s)

    # ---- gateways

    async def hello(self, settings: Settings) -> bool | None:
        """A gateway is there; in a cluster without workers they will have its settings.

        Returns:
            None when it is too early to say: ask again. False when the workers run with other options than the
            gateway's.
        """
        if self._settings is None:
            if not self._is_settled and await self._hands.slots():
                return None
            self._is_settled = True
            self._settings = settings
        return not self._settings.differs_from(settings)

    async def place(self, wanted: Wanted) -> Placement:
        """Where a new session should begin, or where in the line it stands."""
        free = sum(worker.free for worker in self._roster.states())
        if free <= 0 and not self._is_settled:
            return Placement(reason="settling")
        placement = self._entrance.ask(wanted, free, lambda: self._roster.reserve(wanted))
        if placement.reason in ("server_full", "line_full") and not placement.ticket:
            # Whoever stands in the line asks every few seconds, and is counted there.
            self._roster.refuse()
        return placement

    async def give_back(self, token_id: str) -> None:
        """A token was used for a session that did not come about."""
        self._entrance.give_back(token_id)

    async def view(self) -> View:
        """All workers."""
        return View(self._epoch, tuple(self._roster.states()), self._is_settled, self._token_key)

    async def lost(self, name: str) -> None:
        """A gateway found nobody at a worker's address."""
        self._roster.set_aside(name)

    async def keep(self, session_id: str, snapshot: bytes) -> None:
        """Takes the latest state of one session, outside the reports of its worker."""
        self._keepsakes.add(worker_of(session_id), session_id, snapshot)

    async def recall(self, session_id: str) -> bytes | None:
        """The latest state of a session."""
        return self._keepsakes.get(worker_of(session_id), session_id)

    async def forget(self, session_id: str) -> None:
        """A session has ended in order, or goes on elsewhere."""
        self._keepsakes.forget(worker_of(session_id), session_id)

    # ---- whoever runs it

    async def drain(self, target: str) -> list[str]:
        """Lets workers finish and leave.

        Args:
            target: name of a worker, or id of a node (its beginning is enough), which then gets no new workers either.

        Returns:
            The names of the workers.
        """
        members = [it for it in self._roster.members if it.report.worker.name == target or it.report.slot == target]
        if not members and len(target) >= 6:
            members = [it for it in self._roster.members if it.report.node.startswith(target)]
            self._closed_nodes |= {it.report.node for it in members} or {target}
        for member in members:
            member.drain = True
        return [it.report.worker.name for it in members]

    async def rollout(self, settings: Settings, at_once: int) -> int:
        """Replaces all workers by ones with these settings, so many at a time.

        Returns:
            How many will be replaced.
        """
        self._settings = settings
        olds = [it for it in self._roster.members if it.report.generation < settings.generation]
        self._rollout = Rollout(at_once, keep=sum(not it.drain for it in olds))
        return len(olds)

    async def status(self) -> dict[str, Any]:
        """Everything, for people and tests."""
        return {
            "epoch": self._epoch,
            "generation": None if self._settings is None else self._settings.generation,
            "workers": [_shown(it) for it in self._roster.members],
            "starting": sorted(self._started_s),
            "closed_nodes": sorted(self._closed_nodes),
            "waiting": self._entrance.waiting,
            "refused_last_minute": self._roster.refused_within(60),
            "rollout": None if self._rollout is None else "running",
            "snapshots": len(self._keepsakes),
            "snapshot_bytes": self._keepsakes.total_bytes,
        }

    # ---- once a second

    async def tick(self) -> None:
        """Looks after the cluster: those who left, those who are missing, those to replace."""
        for name in self._roster.lost():
            logger.warning("worker %s has not been heard of and counts as lost", name)
            self._keepsakes.lose(name)
        existing = await self._hands.slots()
        self._settle(existing)
        settings = self._settings
        if settings is None or not self._is_settled:
            return
        await self._dismiss_finished(existing)
        now_s = self._now_s()
        reported = {it.report.slot: it for it in self._roster.members}
        for slot in existing - reported.keys():
            self._started_s.setdefault(slot, now_s)
        self._started_s = {slot: at_s for slot, at_s in self._started_s.items() if slot in existing}
        self._new.intersection_update(existing)
        crew = [
            Crew(it.report.slot, it.state.state == "ready", it.state.places, it.state.taken)
            for it in reported.values()
            if not it.drain and it.report.slot in existing
        ]
        # One that another directory started, or that is not heard of any more, may have sessions all the same.
        crew += [
            Crew(slot, False, is_new=slot in self._new) for slot in sorted(self._started_s) if slot not in reported
        ]
        closed = frozenset(self._closed_nodes)
        room = await self._hands.room(settings, closed) if settings.size.most is None else 0
        waiting = self._entrance.waiting + self._roster.refused_within(WAITING_WINDOW_S)
        if waiting or not is_roomy(crew):
            self._calm_since_s = now_s
        todo = changes(settings.size, crew, room, waiting, now_s - self._calm_since_s)
        olds = {it.report.slot: it for it in self._roster.members if it.report.generation < settings.generation}
        if olds and self._rollout is None:
            # The directory that began it is gone, or an actor came up late with what was wanted before.
            self._rollout = Rollout(1, keep=sum(one.is_up for one in crew))
        if self._rollout is not None:
            todo = self._replaced(todo, crew, olds, now_s)
        await self._do(todo, settings, closed, len(crew))

    def _replaced(self, todo: Changes, crew: list[Crew], olds: dict[str, Member], now_s: float) -> Changes:
        assert self._rollout is not None
        if not olds:
            logger.info("all workers have the new settings")
            self._rollout = None
            return todo
        return self._rollout.step(
            todo,
            crew,
            olds=frozenset(slot for slot, it in olds.items() if not it.drain),
            leaving=sum(it.drain for it in olds.values()),
            waits_s=max((now_s - at_s for at_s in self._started_s.values()), default=0.0),
            now_s=now_s,
        )

    async def _do(self, todo: Changes, settings: Settings, closed: frozenset[str], present: int) -> None:
        by_slot = {it.report.slot: it for it in self._roster.members}
        for slot in todo.drain:
            logger.info("draining worker %s", by_slot[slot].report.worker.name)
            by_slot[slot].drain = True
        for slot in todo.give_up:
            self._started_s.pop(slot, None)
            self._new.discard(slot)
            await self._hands.stop(slot)
        for _ in range(todo.start):
            slot = f"worker-{secrets.token_hex(4)}"
            self._started_s[slot] = self._now_s()
            self._new.add(slot)
            await self._hands.start(slot, settings, closed)
        wanted = present + todo.start - len(todo.give_up) - len(todo.drain)
        if settings.size.most is not None and wanted != self._demanded:
            self._demanded = wanted
            await self._hands.demand(settings, wanted)

    async def _dismiss_finished(self, existing: Iterable[str]) -> None:
        for member in self._roster.members:
            worker = member.report.worker
            # Its own word that it drains: nobody can come in between.
            if member.drain and worker.state in ("draining", "gone") and worker.taken == 0:
                logger.info("worker %s has finished", worker.name)
                if member.report.slot in existing:
                    await self._hands.stop(member.report.slot)
                self._roster.remove(worker.name)
                self._keepsakes.drop(worker.name)

    def _settle(self, existing: set[str]) -> None:
        age_s = self._now_s() - self._born_s
        missing = existing - {it.report.slot for it in self._roster.members}
        if age_s >= (SETTLE_MOST_S if missing else SETTLE_S):
            self._is_settled = True


def _shown(member: Member) -> dict[str, Any]:
    state, report = member.state, member.report
    return {
        "name": state.name,
        "slot": report.slot,
        "node": report.node,
        "pid": report.pid,
        "generation": report.generation,
        "address": state.address,
        "state": state.state,
        "places": state.places,
        "taken": state.taken,
        "load": state.load,
    }
