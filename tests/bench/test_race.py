"""Candidates against each other: turns, ratios, failures."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from engine.bench.candidates import BASELINE, Candidate, on_cpu, served
from engine.bench.networks import Findings
from engine.bench.race import Row, Worker, WorkerFailed, merged, psnr_db, race, separate_cores
from engine.bench.report import table
from engine.bench.worker import Order, Others, Work


class FakeContestant:
    """Says the speeds it was given, and writes down when it was asked."""

    def __init__(
        self, name: str, speeds: list[float], diary: list[str], level: int = 100, others: list[float] | None = None
    ) -> None:
        self.name, self.speeds, self.diary, self.level, self.others = name, speeds, diary, level, others
        self.closed = False

    def wait(self) -> None:
        self.diary.append(f"{self.name} ready")

    def fps(self, seconds: float) -> tuple[float, float]:
        self.diary.append(self.name)
        turn = self.diary.count(self.name) - 1
        if self.speeds[turn] == 0:
            raise WorkerFailed("out of memory")
        return self.speeds[turn], self.others[turn] if self.others else 0.0

    def pixels(self) -> np.ndarray:
        return np.full((2, 4, 4, 3), self.level, np.uint8)

    def memory_mb(self) -> float:
        return 123.0

    def close(self) -> None:
        self.closed = True


def _race(contestants: dict[Candidate, FakeContestant], rounds: int) -> list[Row]:
    def start(order: Order) -> FakeContestant:
        return contestants[order.candidate]

    return race(list(contestants), Path("weights"), Path("scratch"), [0, 1], rounds, start=start)


def test_candidates_take_turns_so_that_a_busy_moment_hits_all_alike():
    diary: list[str] = []
    names = {BASELINE: "a", served("bf16"): "b"}
    contestants = {way: FakeContestant(name, [10.0] * 3, diary) for way, name in names.items()}
    _race(contestants, 3)
    assert diary == ["a ready", "b ready", *"ababab"]
    assert all(contestant.closed for contestant in contestants.values())


def test_a_ratio_is_that_of_slices_side_by_side_not_of_averages():
    diary: list[str] = []
    rows = _race(
        {
            BASELINE: FakeContestant("a", [10, 5, 10], diary),
            served("bf16"): FakeContestant("b", [50, 25, 50], diary, level=110),
        },
        3,
    )
    assert rows[1].ratio[2] == pytest.approx(5.0)
    assert rows[1].fps[2] == pytest.approx(50.0)
    assert rows[0].ratio[2] == pytest.approx(1.0)
    assert rows[0].psnr_db is None
    assert rows[1].psnr_db == pytest.approx(10 * np.log10(255**2 / 100), abs=0.01)


def test_a_round_that_somebody_disturbed_is_run_again_and_does_not_count():
    diary: list[str] = []
    disturbed = [0.0, 0.9, 0.0, 0.0]
    rows = _race(
        {
            BASELINE: FakeContestant("a", [10, 2, 10, 10], diary),
            served("bf16"): FakeContestant("b", [50, 50, 50, 50], diary, others=disturbed),
        },
        3,
    )
    assert diary.count("a") == 4
    assert rows[0].fps == {2: 10} and rows[1].ratio == {2: 5} and rows[1].others == {2: 0}


def test_on_a_machine_that_is_never_quiet_the_least_disturbed_rounds_count_and_it_is_said():
    diary: list[str] = []
    others = [0.9, 0.5, 0.9, 0.4]
    rows = _race({BASELINE: FakeContestant("a", [2, 9, 2, 9], diary, others=others)}, 2)
    assert diary.count("a") == 4
    assert rows[0].fps == {2: 9} and rows[0].others[2] == pytest.approx(0.45)
    assert "others used 45% of 2 cores" in table(Findings("wav2lip", "wav2lip-96", rows))


def test_time_that_others_took_is_told_from_ones_own():
    idle = Others(tuple(separate_cores(1)))
    ends_s = time.perf_counter() + 0.1
    while time.perf_counter() < ends_s:
        pass
    assert 0 <= idle.share() <= 1
    assert Others(()).share() == 0


def test_a_candidate_that_fails_is_a_row_with_the_reason_and_the_others_go_on():
    diary: list[str] = []
    lost, kept = FakeContestant("b", [50, 0], diary), FakeContestant("c", [70, 70, 70], diary)
    rows = _race({BASELINE: FakeContestant("a", [10] * 3, diary), served("bf16"): lost, served("int8"): kept}, 3)
    assert rows[1].failed == "out of memory" and not rows[1].fps
    assert rows[2].fps == {2: 70} and not rows[2].failed
    assert lost.closed and diary.count("b") == 2


def test_without_its_baseline_a_race_still_gives_speeds():
    diary: list[str] = []
    lost, other = FakeContestant("a", [10, 0], diary), FakeContestant("b", [30, 30], diary)
    rows = _race({BASELINE: lost, served("f32"): other}, 2)
    assert rows[0].failed
    assert rows[1].fps == {2: 30} and rows[1].psnr_db is None


def test_races_on_one_core_and_on_two_become_one_row_each():
    loops = Candidate("torch", "all", "f32", side_by_side=True)
    one = [Row(BASELINE, {1: 8}, {1: 1}, memory_mb=400), Row(served("bf16"), {1: 40}, {1: 5}, psnr_db=50)]
    two = [Row(BASELINE, {2: 12}, {2: 1}, memory_mb=450), Row(loops, {2: 15}, {2: 1.2}), Row(served("bf16"), {2: 75})]
    rows = merged(one, two)
    assert [row.candidate for row in rows] == [BASELINE, served("bf16"), loops]
    assert rows[0].fps == {1: 8, 2: 12} and rows[0].memory_mb == 450
    assert rows[1].fps == {1: 40, 2: 75} and rows[1].psnr_db == 50


def test_a_worker_that_cannot_load_says_why(tmp_path):
    worker = Worker(Order(served("f32"), tmp_path, tmp_path, tuple(separate_cores(1))))
    try:
        with pytest.raises(WorkerFailed, match="material"):
            worker.wait()
    finally:
        worker.close()


def test_an_order_survives_the_command_line(tmp_path):
    for weights in (tmp_path, None):
        order = Order(served("int8"), weights, tmp_path / "with space", (0, 1))
        assert Order.from_json(order.to_json()) == order


@pytest.mark.parametrize(("way", "streams", "threads"), [(BASELINE, 1, 2), (served("bf16"), 2, 1)])
def test_two_cores_are_one_loop_with_two_threads_or_two_streams_with_one(tmp_path, way, streams, threads):
    order = Order(way, tmp_path, tmp_path, (0, 1))
    assert (order.streams, order.threads) == (streams, threads)


class _Counting:
    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def draw(self, rows):
        self.calls.append(list(rows))
        return np.array(rows, np.uint8)[:, None, None, None].repeat(3, 3)


def test_a_slice_lasts_as_long_as_it_should_and_counts_whole_batches():
    runner = _Counting()
    fps = Work(runner, count=5, batch=4, streams=1).slice(0.01)
    assert fps > 4 / 0.02
    assert runner.calls[:2] == [[0, 1, 2, 3], [4, 0, 1, 2]]


def test_all_material_is_drawn_once_whatever_the_batch():
    drawn = Work(_Counting(), count=5, batch=4, streams=1).draw_all()
    assert drawn[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_psnr_of_equal_pictures_is_finite():
    picture = np.zeros((1, 2, 2, 3), np.uint8)
    assert psnr_db(picture, picture) == 99.0


def test_a_processor_without_bf16_is_not_asked_for_it_and_int8_needs_its_file():
    assert not [way for way in on_cpu(96, bf16=False, int8=False) if way.precision in ("bf16", "int8")]
    assert served("int8") in on_cpu(96, bf16=True, int8=True)
    assert on_cpu(96, bf16=True, int8=True)[0] == BASELINE
