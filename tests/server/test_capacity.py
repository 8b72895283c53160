"""Capacity: what is measured, what of it is believed, and when."""

import asyncio
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from engine import cores
from engine.avatar.bundle import write_avatar
from engine.config import Config, usable_cores
from engine.errors import BackendFailed
from server import capacity
from server.capacity import Capacity, combined
from tests.fakes import tiny_avatar


class Places:
    def __init__(self, taken: int = 0) -> None:
        self.places, self.taken = 99, taken


class Gauge:
    value = 0.0

    def set(self, value: float) -> None:
        self.value = value


@pytest.fixture
def config(tmp_path, avatars_dir):
    return Config(avatars_dir=avatars_dir, cache_dir=tmp_path / "cache", data_dir=tmp_path, render_threads=1)


@pytest.fixture
def machine(monkeypatch):
    """What the next measurements say, and how many there were."""

    class Machine:
        def __init__(self):
            self.says, self.measured = [Capacity(350.0)], 0

        async def measure(self, config, processes=1):
            self.measured += 1
            found = self.says[min(self.measured, len(self.says)) - 1]
            if isinstance(found, Exception):
                raise found
            return found

    machine = Machine()
    monkeypatch.setattr(capacity, "measure", machine.measure)
    monkeypatch.setattr(capacity, "_RETRY_S", 0.01)
    return machine


@pytest.mark.parametrize(("pictures_per_s", "sessions"), [(10, 1), (87.5, 2), (350, 8), (437, 9)])
def test_a_fifth_of_the_machine_stays_free_and_one_session_is_always_let_in(pictures_per_s, sessions):
    assert Capacity(pictures_per_s).talking_sessions == sessions


def test_what_others_took_meanwhile_is_added_and_makes_it_doubtful(monkeypatch):
    monkeypatch.setattr(capacity.os, "cpu_count", lambda: usable_cores())
    cores = usable_cores()
    told = {"pictures_per_s": 100.0, "cpu_s": 0.6 * cores, "wall_s": 1.0, "busy_s": 0.62 * cores}
    quiet, noisy = combined([told]), combined([told | {"busy_s": 1.1 * cores}])
    assert quiet.undisturbed and quiet.pictures_per_s == pytest.approx(100 / 0.98)
    assert not noisy.undisturbed and noisy.pictures_per_s == pytest.approx(200)


def test_in_a_container_with_a_quota_others_of_the_machine_take_nothing_away(monkeypatch, tmp_path):
    monkeypatch.setattr(capacity.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(capacity.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    (tmp_path / "groups").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("800000 100000\n")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "_LIMITS", tmp_path)
    told = {"pictures_per_s": 100.0, "cpu_s": 8.0, "wall_s": 1.0, "busy_s": 60.0}
    assert combined([told]) == Capacity(100.0, True)
    assert Config(workers="auto").workers == 8 and capacity.rough_places(Config()) == 16


def test_processes_add_up_and_none_is_somebody_else(monkeypatch):
    monkeypatch.setattr(capacity.os, "cpu_count", lambda: usable_cores())
    told = {"pictures_per_s": 60.0, "cpu_s": 0.5 * usable_cores(), "wall_s": 1.0, "busy_s": 1.0 * usable_cores()}
    assert combined([told, told]) == Capacity(120.0, True)


async def test_a_number_that_somebody_gave_is_left_alone(config, machine):
    config = config.model_copy(update={"max_sessions": 3})
    places = Places()
    await capacity.settle_places(config, places, Gauge())
    assert places.places == 99 and await capacity.measured_places(config) == 3 == capacity.rough_places(config)
    assert machine.measured == 0


async def test_it_is_measured_once_and_remembered(config, machine):
    places, gauge = Places(), Gauge()
    await capacity.settle_places(config, places, gauge)
    assert places.places == gauge.value == 8
    again = Places()
    await capacity.settle_places(config, again, Gauge())
    assert again.places == 8 == await capacity.measured_places(config) and machine.measured == 1


async def test_another_model_size_or_number_of_processes_is_measured_anew(config, machine, tmp_path):
    await capacity.measured_places(config)
    for changed in ({"lipsync": "other"}, {"render_threads": 7}, {"video_codec": "vp8"}):
        assert capacity.remembered(config.model_copy(update=changed)) is None
    assert capacity.remembered(config, 2) is None and capacity.remembered(config) is not None


async def test_a_measurement_that_somebody_walked_into_does_not_count(config, machine):
    places = Places(taken=1)
    settling = asyncio.create_task(capacity.settle_places(config, places, Gauge()))
    await asyncio.sleep(0.05)
    assert machine.measured == 0 and places.places == 99, "nobody is disturbed by it either"
    places.taken = 0
    await asyncio.wait_for(settling, 5)
    assert places.places == 8


async def test_a_busy_machine_is_measured_again_and_never_remembered(config, machine):
    machine.says = [Capacity(50.0, False)]
    places = Places()
    await capacity.settle_places(config, places, Gauge())
    assert machine.measured == 5 and places.places == 1 and capacity.remembered(config) is None
    machine.says = [Capacity(50.0, False)] * 6 + [Capacity(350.0)]
    await capacity.settle_places(config, places, Gauge())
    assert places.places == 8 and capacity.remembered(config) is not None


async def test_what_cannot_be_measured_leaves_the_guess(config, machine, caplog):
    machine.says = [BackendFailed("capacity_unknown", "It could not be measured.")]
    places = Places()
    await capacity.settle_places(config, places, Gauge())
    assert places.places == 99 and "could not be measured" in caplog.text
    assert await capacity.measured_places(config) == capacity.rough_places(config) == 2 * usable_cores()


def test_a_damaged_memory_counts_as_none(config):
    config.cache_dir.mkdir()
    for text in ("", "[]", '{"x": 1}', "\x00"):
        (config.cache_dir / "capacity.json").write_text(text)
        assert capacity.remembered(config) is None
    capacity.remember(config, 1, Capacity(100.0))
    assert capacity.remembered(config) == Capacity(100.0)


async def test_processes_that_end_early_are_a_typed_error(config, monkeypatch):
    async def broken():
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print('{}')", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )

    monkeypatch.setattr(capacity, "_start", broken)
    with pytest.raises(BackendFailed) as caught:
        await capacity.measure(config)
    assert caught.value.code == "capacity_unknown" and "--max-sessions" in caught.value.message


async def test_a_real_process_draws_encodes_and_sends(tmp_path):
    avatars = tmp_path / "avatars"
    write_avatar(avatars / "big", _big())
    config = Config(avatars_dir=avatars, cache_dir=tmp_path / "cache", data_dir=tmp_path, render_threads=1)
    found = await capacity.measure(config)
    assert found.pictures_per_s > 5
    capacity.remember(config, 1, found)
    kept = json.loads((tmp_path / "cache" / "capacity.json").read_text())
    assert [entry["talking_sessions"] for entry in kept.values()] == [found.talking_sessions]


def _big():
    """The tiny avatar, four times as large: the built-in model refuses faces that are too small."""
    tiny = tiny_avatar(name="big")
    frames = tiny.frames.repeat(4, 1).repeat(4, 2)
    return replace(
        tiny, size=(frames.shape[2], frames.shape[1]), frames=np.ascontiguousarray(frames),
        landmarks=tiny.landmarks * 4, boxes=tiny.boxes * 4,
    )  # fmt: skip
