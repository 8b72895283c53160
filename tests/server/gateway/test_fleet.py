"""Where newcomers go, and what is done about workers that die, hang, drain or are replaced; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from engine.config import Config
from engine.errors import BackendFailed, Busy, ConfigInvalid
from server.gateway.fleet import Wanted, WorkerState, pick, worker_of
from server.gateway.local import HANG_S, LONGEST_DELAY_S, Backoff, LocalFleet
from server.gateway.memory import LocalMemory
from server.gateway.process import share


def ready(name: str, taken: int, places: int = 4, **more: Any) -> WorkerState:
    return WorkerState(name, f"unix:/{name}", "s", "ready", places, taken, **more)


def test_a_newcomer_goes_where_most_is_free():
    assert pick([ready("w1", 2), ready("w2", 1), ready("w3", 3)], Wanted()).name == "w2"
    assert pick([ready("w1", 2, places=8), ready("w2", 1, places=3)], Wanted()).name == "w1", "share, not number"


def test_of_equals_the_one_that_shows_the_face_then_the_idle_one():
    equals = [ready("w1", 1, load=0.1), ready("w2", 1, load=0.9, avatars=frozenset({"maya"}))]
    assert pick(equals, Wanted("maya")).name == "w2"
    assert pick(equals, Wanted("leo")).name == "w1"


def test_nobody_goes_where_there_is_no_place():
    draining = WorkerState("w2", "unix:/w2", "s", "draining", 4, 0)
    with pytest.raises(Busy):
        pick([ready("w1", 4), draining, ready("w3", 0)], Wanted(avoid=frozenset({"w3"})))


def test_an_id_says_whose_it_is():
    assert worker_of("w12-a-b_c") == "w12"
    assert worker_of("nobody") == ""


def test_places_and_threads_are_divided_and_none_is_lost():
    config = Config(max_sessions=7, render_threads=8)
    shares = [share(config, 3, 12, number) for number in range(3)]
    assert [one.places for one in shares] == [3, 2, 2]
    assert all(one.render_threads == 3 and one.encoder_threads == 4 and one.cores == 4 for one in shares)
    assert share(Config(max_sessions=1, render_threads=1), 4, 2, 3).places == 1


def test_who_dies_early_is_started_ever_later_and_a_long_life_makes_up_for_it():
    backoff = Backoff()
    delays = [backoff.after(1.0) for _ in range(12)]
    assert delays[0] == 0 and delays[1] < delays[2] < delays[3] and delays[-1] == LONGEST_DELAY_S
    assert backoff.after(3600.0) == 0


# Processes in virtual time --------------------------------------------------------------------------------------------


class _Timeless(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer whenever there is nothing else to do."""

    def __init__(self) -> None:
        self._virtual_s = 0.0
        super().__init__()
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None) -> Any:
            found = select(0)
            if not found and timeout:
                self._virtual_s += timeout
            return found

        self._selector.select = jump  # type: ignore[attr-defined, method-assign]

    def time(self) -> float:
        return self._virtual_s

    def stand_still(self, seconds: float) -> None:
        """So much time passes in which nothing is done."""
        self._virtual_s += seconds


def in_virtual_time(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = _Timeless()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


class FakeProcess:
    """A worker that does what a test says."""

    def __init__(self, name: str, number: int, world: World) -> None:
        self.name, self.secret, self.address = name, "s", f"unix:/{name}"
        self.number = number
        self.told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.ends: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.exited = asyncio.ensure_future(self.ends)
        self.drains = self.terminated = False
        self.state = {"places": 2, "taken": 0, "load": 0.0, "avatars": [], "draining": False, "asked": 0}
        self._world = world
        self._beating = asyncio.create_task(self._beat())
        self.hangs = False

    async def ready(self) -> None:
        await asyncio.sleep(2.0)
        if self._world.fail_with is not None:
            raise self._world.fail_with

    async def _beat(self) -> None:
        while not self.ends.done():
            if not self.hangs:
                self.told.put_nowait({"state": dict(self.state)})
            await asyncio.sleep(0.5)

    def tell(self, **state: Any) -> None:
        self.state |= state
        self.told.put_nowait({"state": dict(self.state)})

    async def events(self):
        while (told := await self.told.get()) is not None:
            yield told

    async def drain(self) -> None:
        self.drains = True
        self.tell(draining=True)

    def terminate(self) -> None:
        self.terminated = True
        self.die(0)

    def kill(self) -> None:
        self.die(-9)

    def die(self, code: int = -9) -> None:
        if not self.ends.done():
            self.ends.set_result(code)
            self.told.put_nowait(None)

    async def aclose(self) -> None:
        self.kill()
        self._beating.cancel()
        await asyncio.wait([self.exited, self._beating])


class World:
    def __init__(self, drain_s: float = 0.0) -> None:
        self.started: list[FakeProcess] = []
        self.fail_with: Exception | None = None
        self.refuse_with: Exception | None = None
        self.memory = LocalMemory()
        self.fleet = LocalFleet(2, self.start, self.memory, drain_s)

    async def start(self, name: str, number: int) -> FakeProcess:
        if self.refuse_with is not None:
            raise self.refuse_with
        self.started.append(FakeProcess(name, number, self))
        return self.started[-1]

    async def names(self, state: str = "ready") -> list[str]:
        return [worker.name for worker in await self.fleet.workers() if worker.state == state]


def test_a_dead_worker_is_replaced_by_one_of_another_name():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        assert await world.names() == ["w1", "w2"]
        world.started[0].die()
        await asyncio.sleep(0.1)
        assert await world.names() == ["w2"] and await world.names("starting") == ["w3"]
        await asyncio.sleep(3)
        assert sorted(await world.names()) == ["w2", "w3"]
        assert world.started[2].number == world.started[0].number, "the same share of the machine"
        await world.fleet.aclose()
        assert all(process.ends.done() for process in world.started)

    in_virtual_time(scene)


def test_a_worker_that_hangs_is_as_good_as_dead():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        world.started[1].hangs = True
        await asyncio.sleep(HANG_S + 3)
        assert world.started[1].ends.done()
        assert sorted(await world.names()) == ["w1", "w3"]
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_a_gateway_that_stood_still_itself_takes_nobody_for_hung():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Timeless)
        for _ in range(5):
            # As after a SIGSTOP: every timer is due, and what the workers said has still to be read.
            loop.stand_still(60)
            await asyncio.sleep(1.7)
        assert await world.names() == ["w1", "w2"] and len(world.started) == 2
        world.started[0].hangs = True
        await asyncio.sleep(HANG_S + 3)
        assert sorted(await world.names()) == ["w2", "w3"], "whoever hangs is found out all the same"
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_whatever_goes_wrong_with_a_worker_its_place_is_filled_again():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        world.started[0].told.put_nowait({"state": {"no": "such thing"}})
        await asyncio.sleep(4)
        assert world.started[0].ends.done()
        assert sorted(await world.names()) == ["w2", "w3"], "one that tells nonsense"
        world.refuse_with = OSError(24, "Too many open files")
        world.started[1].die()
        await asyncio.sleep(30)
        assert await world.names() == ["w3"] and await world.names("starting") == []
        world.refuse_with = None
        await asyncio.sleep(LONGEST_DELAY_S + 3)
        assert len(await world.names()) == 2, "one that could not be started for a while"
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_a_replacement_that_fails_in_an_unforeseen_way_replaces_nothing():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        world.fail_with = RuntimeError("unforeseen")
        world.fleet.roll()
        await asyncio.sleep(10)
        assert await world.names() == ["w1", "w2"]
        assert not any(process.drains or process.terminated for process in world.started[:2])
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_an_unforeseen_failure_of_the_first_worker_ends_the_start():
    async def scene() -> None:
        world = World()
        world.fail_with = RuntimeError("unforeseen")
        with pytest.raises(BackendFailed):
            await world.fleet.open()
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_a_place_that_yields_is_given_once():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        first, second = world.started
        first.tell(taken=2, yielding=1)
        second.tell(taken=2)
        await asyncio.sleep(0.1)
        assert (await world.fleet.place(Wanted())).name == "w1"
        with pytest.raises(Busy):
            await world.fleet.place(Wanted())
        first.tell(yielding=0, asked=1)
        await asyncio.sleep(0.1)
        with pytest.raises(Busy):
            await world.fleet.place(Wanted())
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_what_a_worker_said_last_is_remembered_when_it_is_dead():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        first = world.started[0]
        first.told.put_nowait({"keep": "w1-x", "snapshot": {"avatar": "maya"}})
        first.told.put_nowait({"keep": "w1-y", "snapshot": {"avatar": "leo"}})
        first.told.put_nowait({"forget": "w1-y"})
        first.die()
        await asyncio.sleep(0.1)
        assert await world.memory.recall("w1-x") == {"avatar": "maya"}
        assert await world.memory.recall("w1-y") is None
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_two_newcomers_never_get_one_place():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        placed = [(await world.fleet.place(Wanted())).name for _ in range(4)]
        assert sorted(placed) == ["w1", "w1", "w2", "w2"]
        with pytest.raises(Busy):
            await world.fleet.place(Wanted())
        # One was refused, so that its place is free again; the other one came.
        world.started[0].tell(asked=2, taken=1)
        await asyncio.sleep(0.1)
        assert (await world.fleet.place(Wanted())).name == "w1"
        with pytest.raises(Busy):
            await world.fleet.place(Wanted())
        # Who never came loses what was reserved.
        await asyncio.sleep(6)
        assert (await world.fleet.place(Wanted())).name in ("w1", "w2")
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_workers_are_replaced_one_after_the_other_and_their_sessions_let_finish():
    async def scene() -> None:
        world = World(drain_s=30)
        await world.fleet.open()
        first, second = world.started
        first.tell(taken=1)
        world.fleet.roll()
        world.fleet.roll()
        await asyncio.sleep(3)
        assert sorted(await world.names()) == ["w2", "w3"], "another one serves before the first one leaves"
        assert await world.names("draining") == ["w1"] and first.drains and not first.terminated
        assert not second.drains, "one at a time"
        await asyncio.sleep(5)
        assert not first.terminated
        first.tell(taken=0)
        await asyncio.sleep(4)
        assert first.terminated and sorted(await world.names()) == ["w3", "w4"]
        assert second.terminated
        await asyncio.sleep(60)
        assert len(world.started) == 4, "who was retired is not replaced again"
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_who_does_not_finish_in_time_goes_on_elsewhere():
    async def scene() -> None:
        world = World(drain_s=10)
        await world.fleet.open()
        world.started[0].tell(taken=1)
        world.fleet.roll()
        await asyncio.sleep(20)
        assert world.started[0].terminated
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_a_new_version_that_cannot_start_replaces_nothing():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        world.fail_with = ConfigInvalid("broken", "No.")
        world.fleet.roll()
        await asyncio.sleep(10)
        assert await world.names() == ["w1", "w2"]
        assert not any(process.terminated for process in world.started[:2])
        await world.fleet.aclose()

    in_virtual_time(scene)


def test_what_a_person_has_to_mend_ends_the_start():
    async def scene() -> None:
        world = World()
        world.fail_with = ConfigInvalid("avatar_missing", "There is no avatar.")
        with pytest.raises(ConfigInvalid):
            await world.fleet.open()
        await world.fleet.aclose()
        assert len(world.started) == 1 and world.started[0].ends.done()

    in_virtual_time(scene)


def test_a_stopping_server_waits_for_its_sessions_and_no_longer_than_it_may():
    async def scene() -> None:
        world = World()
        await world.fleet.open()
        world.started[0].tell(taken=1)
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        loop.call_later(4, world.started[0].tell)
        loop.call_later(5, lambda: world.started[0].tell(taken=0))
        await world.fleet.drain(30)
        assert 5 <= loop.time() - since_s < 6
        await world.fleet.aclose()

    in_virtual_time(scene)
