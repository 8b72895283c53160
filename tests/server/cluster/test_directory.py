"""The directory of a cluster in virtual time: places, the line, drains, losses, rollouts, and its own death."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace

import pytest

from engine.config import Config
from server.access.line import MAX_WAITING, RETRY_AFTER_S
from server.cluster.directory import SETTLE_MOST_S, SETTLE_S, WAITING_WINDOW_S, Directory
from server.cluster.keepsakes import LOST_FOR_S
from server.cluster.roster import GONE_S, REPORT_S, SILENT_S, Report
from server.cluster.settings import Settings
from server.cluster.size import CALM_S, Changes, Crew, Size, changes
from server.gateway.fleet import Wanted, WorkerState


@dataclass
class Actor:
    slot: str
    settings: Settings
    node: str
    name: str
    taken: int = 0
    yielding: int = 0
    epoch: str = ""
    drain: bool = False
    snapshots: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Cluster:
    """Ray, as far as the directory uses it: nodes with room, and actors that come up a second after they have room."""

    room_by_node: dict[str, int] = field(default_factory=lambda: {"node-a": 2, "node-b": 2})
    places: int = 2
    now: float = 100.0
    pending: dict[str, tuple[Settings, frozenset[str]]] = field(default_factory=dict)
    actors: dict[str, Actor] = field(default_factory=dict)
    demanded: list[int] = field(default_factory=list)
    names: itertools.count = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.directory = Directory(self, self.clock)

    def clock(self) -> float:
        return self.now

    async def start(self, slot, settings, avoid):
        self.pending[slot] = (settings, avoid)

    async def stop(self, slot):
        self.pending.pop(slot, None)
        self.actors.pop(slot, None)

    async def slots(self):
        return set(self.pending) | set(self.actors)

    async def room(self, settings, avoid):
        return sum(room for node, room in self.room_by_node.items() if node not in avoid)

    async def demand(self, settings, workers):
        self.demanded.append(workers)

    def place_pending(self) -> None:
        for slot, (settings, avoid) in list(self.pending.items()):
            for node, room in self.room_by_node.items():
                used = sum(actor.node == node for actor in self.actors.values())
                if node not in avoid and used < room:
                    del self.pending[slot]
                    self.actors[slot] = Actor(slot, settings, node, f"n{next(self.names)}")
                    break

    async def report(self, actor: Actor) -> None:
        state = WorkerState(
            actor.name, f"http://{actor.node}:1", "s", "draining" if actor.drain else "ready", self.places, actor.taken,
            yielding=actor.yielding,
        )  # fmt: skip
        complete = not actor.epoch
        report = Report(
            actor.slot, actor.node, actor.settings.generation, state, 1, actor.epoch, dict(actor.snapshots), complete
        )
        orders = await self.directory.report(report, actor.settings)
        actor.epoch = orders.epoch if actor.epoch in ("", orders.epoch) else ""
        actor.drain = actor.drain or orders.drain

    async def live(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now += 0.5
            await self.report_all()
            self.now += 0.5
            await self.report_all()
            await self.directory.tick()
            self.place_pending()

    async def report_all(self) -> None:
        for actor in list(self.actors.values()):
            await self.report(actor)

    def by_name(self, name: str) -> Actor:
        return next(actor for actor in self.actors.values() if actor.name == name)

    async def enter(self, **wanted) -> Actor | None:
        placement = await self.directory.place(Wanted(**wanted))
        if placement.worker is None:
            return None
        actor = self.by_name(placement.worker.name)
        actor.taken += 1
        return actor


AUTO = Size()


def settings(size: Size = AUTO, generation: int = 1, **options) -> Settings:
    return Settings(json.dumps(options), generation, cpus=1.0, gpus=0.0, size=size)


async def started(size: Size = AUTO, **more) -> Cluster:
    cluster = Cluster(**more)
    assert await cluster.directory.hello(settings(size))
    await cluster.live(3)
    return cluster


async def test_fills_the_machines_it_has() -> None:
    cluster = await started()
    assert len(cluster.actors) == 4
    assert sorted(actor.node for actor in cluster.actors.values()) == ["node-a"] * 2 + ["node-b"] * 2
    cluster.room_by_node["node-c"] = 1
    await cluster.live(3)
    assert len(cluster.actors) == 5


async def test_newcomers_are_spread_and_the_last_place_is_given_once() -> None:
    cluster = await started()
    entered = [await cluster.enter() for _ in range(8)]
    assert None not in entered
    assert {actor.taken for actor in cluster.actors.values()} == {2}
    assert await cluster.enter() is None
    await cluster.report_all()
    assert await cluster.enter() is None


async def test_a_reserved_place_is_free_again_when_nobody_came() -> None:
    cluster = await started(Size(1, 1), places=1)
    assert (await cluster.directory.place(Wanted())).worker is not None
    assert (await cluster.directory.place(Wanted())).worker is None
    await cluster.live(3)
    assert (await cluster.directory.place(Wanted())).worker is not None


async def test_a_place_that_is_kept_for_a_lost_browser_is_given_to_one_who_wants_it() -> None:
    cluster = await started(Size(1, 1))
    (actor,) = cluster.actors.values()
    actor.taken, actor.yielding = 2, 1
    await cluster.report_all()
    assert (await cluster.directory.place(Wanted())).worker is not None
    assert (await cluster.directory.place(Wanted())).worker is None, "once"
    # The newcomer is there, in the place of the one that was lost; nothing is reserved for it any more.
    actor.yielding = 0
    await cluster.report_all()
    assert (await cluster.directory.place(Wanted())).worker is None
    actor.taken = 1
    await cluster.report_all()
    assert (await cluster.directory.place(Wanted())).worker is not None


async def test_a_drained_worker_with_somebody_who_may_come_back_stays() -> None:
    cluster = await started(Size(2, 2))
    guest = await cluster.enter()
    guest.yielding = 1
    await cluster.directory.drain(guest.name)
    await cluster.live(5)
    assert guest.slot in cluster.actors
    guest.taken = guest.yielding = 0
    await cluster.live(2)
    assert guest.slot not in cluster.actors


async def test_one_line_for_all_gateways() -> None:
    cluster = await started(Size(1, 1), places=1)
    first = await cluster.enter()
    one = await cluster.directory.place(Wanted(ticket=""))
    two = await cluster.directory.place(Wanted(ticket=""))
    assert (one.position, two.position) == (1, 2)
    assert (await cluster.directory.place(Wanted(ticket=two.ticket))).position == 2
    first.taken = 0
    await cluster.live(3)
    # Whoever would not wait comes after those who do, and the second one after the first.
    assert (await cluster.directory.place(Wanted())).worker is None
    assert (await cluster.directory.place(Wanted(ticket=two.ticket))).worker is None
    assert (await cluster.directory.place(Wanted(ticket=one.ticket))).worker is not None
    assert (await cluster.directory.place(Wanted(ticket=two.ticket))).position == 1


async def test_a_token_is_used_once_at_whatever_gateway() -> None:
    cluster = await started(Size(1, 1), places=1)
    token = {"token_id": "t1", "token_expires_s": 2e9}
    assert (await cluster.directory.place(Wanted(**token))).worker is not None
    assert (await cluster.directory.place(Wanted(**token))).reason == "token_used"
    await cluster.directory.give_back("t1")
    waiting = await cluster.directory.place(Wanted(**token, ticket=""))
    assert waiting.ticket
    assert (await cluster.directory.place(Wanted(**token, ticket=""))).reason == "token_used"
    assert (await cluster.directory.place(Wanted(**token, ticket=waiting.ticket))).ticket == waiting.ticket


async def test_a_worker_found_dead_is_given_nobody_until_it_reports() -> None:
    cluster = await started(Size(2, 2))
    lost, other = cluster.actors.values()
    await cluster.directory.lost(lost.name)
    assert {(await cluster.enter()).name for _ in range(2)} == {other.name}
    await cluster.report(lost)
    assert (await cluster.enter()).name == lost.name


async def test_a_silent_worker_is_given_nobody() -> None:
    cluster = await started(Size(2, 2))
    _, other = cluster.actors.values()
    cluster.now += SILENT_S + 0.1
    await cluster.report(other)
    assert {(await cluster.enter()).name for _ in range(2)} == {other.name}


async def test_what_was_said_survives_a_restarted_actor() -> None:
    cluster = await started(Size(1, 1))
    (actor,) = cluster.actors.values()
    actor.snapshots = {f"{actor.name}-x": b"{}", f"{actor.name}-y": b'{"a":1}'}
    await cluster.report(actor)
    former = actor.name
    cluster.actors[actor.slot] = again = Actor(actor.slot, actor.settings, "node-b", "again")
    await cluster.report(again)
    assert await cluster.directory.recall(f"{former}-y") == b'{"a":1}'
    await cluster.directory.forget(f"{former}-y")
    assert await cluster.directory.recall(f"{former}-y") is None
    assert [worker.name for worker in (await cluster.directory.view()).workers] == ["again"]
    cluster.now += LOST_FOR_S + 1
    assert await cluster.directory.recall(f"{former}-x") is None


async def test_a_lost_node_is_noticed_and_what_was_said_there_is_kept() -> None:
    cluster = await started(Size(2, 2))
    actor = next(iter(cluster.actors.values()))
    actor.snapshots = {f"{actor.name}-x": b"{}"}
    await cluster.report(actor)
    del cluster.actors[actor.slot]
    cluster.pending[actor.slot] = (actor.settings, frozenset())
    cluster.room_by_node[actor.node] = 0
    await cluster.live(GONE_S + 2)
    assert len(cluster.actors) == 2, "it runs again on another machine"
    assert await cluster.directory.recall(f"{actor.name}-x") == b"{}"


async def test_a_drained_worker_finishes_and_leaves() -> None:
    cluster = await started(Size(2, 2))
    guest = await cluster.enter()
    await cluster.directory.drain(guest.name)
    await cluster.live(10)
    assert guest.slot in cluster.actors and guest.drain, "nobody loses a session for a drain"
    assert len(cluster.actors) == 3, "another one takes its place"
    guest.taken = 0
    await cluster.live(2)
    assert guest.slot not in cluster.actors
    assert len(cluster.actors) == 2


async def test_a_drained_node_gets_no_new_workers() -> None:
    cluster = await started()
    names = await cluster.directory.drain("node-a")
    assert len(names) == 2
    await cluster.live(5)
    assert {actor.node for actor in cluster.actors.values()} == {"node-b"}
    assert not cluster.pending


async def test_a_new_directory_learns_everything_from_the_workers() -> None:
    cluster = await started(Size(2, 2))
    guest = await cluster.enter()
    guest.snapshots = {f"{guest.name}-x": b"{}"}
    await cluster.report_all()
    before = dict(cluster.actors)
    cluster.directory = Directory(cluster, cluster.clock)
    assert await cluster.directory.hello(settings(generation=99)) is None, "too early to say"
    assert not (await cluster.directory.view()).settled
    await cluster.live(SETTLE_S + 3)
    assert await cluster.directory.recall(f"{guest.name}-x") == b"{}"
    assert cluster.actors == before, "nobody is started or stopped for it"
    assert await cluster.directory.hello(settings(generation=99)) is True
    assert sum(worker.taken for worker in (await cluster.directory.view()).workers) == 1


@pytest.mark.parametrize("spare", [0, 1])
async def test_a_rollout_replaces_all_and_ends_no_session(spare: int) -> None:
    cluster = await started(Size(3, 3), room_by_node={"node-a": 3 + spare})
    old = list(cluster.actors)
    guest = await cluster.enter()
    assert await cluster.directory.rollout(settings(Size(3, 3), generation=2, greeting="new"), at_once=1) == 3
    least = 9
    for _ in range(150):
        await cluster.live(1)
        ready = [w for w in (await cluster.directory.view()).workers if w.state == "ready"]
        least = min(least, len(ready))
    assert least >= 2 + spare, "never more than one is missing, and none where there is room for one more"
    assert guest.slot in cluster.actors
    guest.taken = 0
    await cluster.live(60)
    assert len(cluster.actors) == 3 and not set(old) & set(cluster.actors)
    assert {actor.settings.generation for actor in cluster.actors.values()} == {2}
    assert (await cluster.directory.status())["rollout"] is None


async def test_grows_with_the_crowd_and_shrinks_slowly() -> None:
    cluster = await started(Size(1, 3), room_by_node={"node-a": 9})
    assert len(cluster.actors) == 1
    for _ in range(8):
        await cluster.enter()
        await cluster.live(2)
    assert len(cluster.actors) == 3
    assert cluster.demanded[-1] == 3
    for actor in cluster.actors.values():
        actor.taken = 0
    await cluster.live(CALM_S - 10)
    assert len(cluster.actors) == 3
    await cluster.live(3 * CALM_S)
    assert len(cluster.actors) == 1
    assert cluster.demanded[-1] == 1


async def crowded(size: Size) -> Cluster:
    """A cluster of four workers with three sessions each of ten."""
    cluster = await started(size, room_by_node={"node-a": 20}, places=10)
    while len(cluster.actors) < 4:
        await cluster.directory.place(Wanted())
        for actor in cluster.actors.values():
            actor.taken = 10
        await cluster.live(1)
    for actor in cluster.actors.values():
        actor.taken = 3
    cluster.pending.clear()
    await cluster.live(1)
    assert len(cluster.actors) == 4
    return cluster


@pytest.mark.parametrize("unheard", [1, 2, 3])
async def test_workers_that_are_not_heard_of_keep_their_sessions(unheard: int) -> None:
    cluster = await crowded(Size(2, 20))
    quiet = dict(list(cluster.actors.items())[:unheard])
    heard = [actor for actor in cluster.actors.values() if actor.slot not in quiet]
    cluster.report_all = lambda: report_each(cluster, heard)  # type: ignore[method-assign]
    await cluster.live(GONE_S + 2 * CALM_S)
    assert quiet.keys() <= cluster.actors.keys(), "whoever is not heard of may be there all the same"
    assert sum(not actor.drain for actor in heard) >= min(2, len(heard)), "nor is one that is heard of drained for it"


async def report_each(cluster: Cluster, actors: list[Actor]) -> None:
    for actor in actors:
        if actor.slot in cluster.actors:
            await cluster.report(actor)


async def test_a_new_directory_stops_nobody_who_has_not_reported_yet() -> None:
    cluster = await crowded(Size(2, 20))
    before = dict(cluster.actors)
    first = next(iter(cluster.actors.values()))
    cluster.directory = Directory(cluster, cluster.clock)
    cluster.report_all = lambda: report_each(cluster, [first])  # type: ignore[method-assign]
    await cluster.live(SETTLE_MOST_S + GONE_S + 5)
    assert before.keys() <= cluster.actors.keys()


async def test_an_actor_that_never_came_up_is_given_up_when_the_crowd_is_gone() -> None:
    cluster = await started(Size(1, 3), room_by_node={"node-a": 1})
    (actor,) = cluster.actors.values()
    actor.taken = 2
    await cluster.live(2)
    assert cluster.pending, "for more there is no machine yet"
    actor.taken = 0
    await cluster.live(3)
    assert not cluster.pending and actor.slot in cluster.actors


async def test_whoever_waits_in_the_line_counts_once_however_often_he_asks() -> None:
    cluster = await started(Size(1, 20), room_by_node={"node-a": 1}, places=4)
    (actor,) = cluster.actors.values()
    actor.taken = 4
    await cluster.report_all()
    tickets = [(await cluster.directory.place(Wanted(ticket="", priority=priority))).ticket for priority in (0, 5, 9)]
    for _ in range(round(WAITING_WINDOW_S) // RETRY_AFTER_S):
        await cluster.live(RETRY_AFTER_S)
        for ticket in tickets:
            assert (await cluster.directory.place(Wanted(ticket=ticket))).ticket == ticket
    await cluster.live(1)
    # Four who are there, three who wait, and one place to spare: four a worker.
    assert cluster.demanded[-1] == 2
    status = await cluster.directory.status()
    assert (status["waiting"], status["refused_last_minute"]) == (3, 0)


async def test_whoever_finds_no_place_in_the_line_counts_too() -> None:
    cluster = await started(Size(1, 1), places=1)
    await cluster.enter()
    for _ in range(MAX_WAITING):
        assert (await cluster.directory.place(Wanted(ticket=""))).ticket
    assert (await cluster.directory.place(Wanted(ticket=""))).reason == "line_full"
    assert (await cluster.directory.place(Wanted())).reason == "server_full"
    assert (await cluster.directory.status())["refused_last_minute"] == 2


def test_only_actors_that_were_no_worker_yet_are_given_up() -> None:
    up = [Crew(f"up-{number}", True, places=10, taken=1) for number in range(2)]
    unheard, new = Crew("unheard", False), Crew("new", False, is_new=True)
    size = Size(1, 10)
    assert changes(size, [*up, unheard, new], 0, 0, 0.0) == Changes(give_up=("new",))
    assert changes(size, [*up, unheard], 0, 0, 0.0) == Changes()
    assert changes(size, [*up, unheard], 0, 0, CALM_S) == Changes(drain=("up-0",)), "one of two is enough"
    assert changes(size, [up[0], unheard], 0, 0, CALM_S) == Changes(), "but the only one that is heard of stays"


async def test_a_gateway_with_other_options_is_told() -> None:
    cluster = await started()
    assert await cluster.directory.hello(settings(generation=5, greeting="other")) is False


def test_settings_carry_what_was_set_and_leave_the_rest_to_the_machine(monkeypatch) -> None:
    made = Settings.of(Config(cluster="local", cluster_workers="2-5", avatar="leo", port=9000, worker_cpus=4))
    assert made.size == Size(2, 5)
    assert json.loads(made.options) == {"avatar": "leo", "cluster_workers": "2-5", "worker_cpus": 4.0}
    config = made.config(max_sessions=7)
    assert (config.avatar, config.max_sessions, config.port) == ("leo", 7, 8080)
    monkeypatch.setenv("VISAVIS_NODE_ADDRESS", "203.0.113.7")
    assert made.config().node_address == "203.0.113.7", "a machine says its own address"
    assert not made.differs_from(replace(made, generation=3))


def test_reports_get_rarer_as_the_cluster_grows() -> None:
    cluster = Cluster()
    roster = cluster.directory._roster
    assert roster.report_in_s == REPORT_S
    for number in range(2000):
        roster.report(Report(f"s{number}", "n", 1, WorkerState(f"w{number}", state="ready", places=1)))
    assert roster.report_in_s == 4.0
