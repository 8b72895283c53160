"""The governor under a virtual clock: it goes down before a picture is late, and up again when there is time."""

from __future__ import annotations

import itertools

import pytest

from engine.governor import DOWN_LOAD, PATIENCE_S, UP_LOAD, Governor
from engine.quality import AUTO, LIVE, MOST, QualityState, wanted_level
from engine.restore.base import LIVE_LEVEL, MAX_LEVEL
from tests.simulated import Machine, Speaker, steps

SLOW_FROM_S, SLOW_TO_S = 4.0, 10.0


def slow_for_a_while(slow_s: float, usual_s: float = 0.008):
    return lambda now_s: slow_s if SLOW_FROM_S <= now_s < SLOW_TO_S else usual_s


@pytest.mark.parametrize(
    "slow_s,lead_s,expected",
    [
        (0.030, 0.2, [3, 2, 3]),
        (0.045, 0.2, [3, 2, 3]),
        (0.120, 0.2, [3, 0, 2, 3]),
        (0.030, 0.06, [3, 2, 3]),
        (0.055, 0.06, [3, 0, 2, 3]),
    ],
    ids=str,
)
def test_slow_restorer_is_given_up_and_taken_back_without_a_late_picture(
    slow_s: float, lead_s: float, expected: list[int]
) -> None:
    machine = Machine(slow_for_a_while(slow_s))
    speaker = machine.speaker(3, lead_s)
    machine.run(40.0)
    first_s, last_s = speaker.levels[1][0], speaker.levels[-1][0]
    assert speaker.seat.level == 3 and SLOW_FROM_S < first_s < SLOW_FROM_S + 1.0 and last_s > SLOW_TO_S
    assert steps(speaker) == expected
    assert len(speaker.shown) == 1000 and speaker.late == 0


def test_level_with_restored_pictures_of_the_avatar_is_where_a_short_machine_stays() -> None:
    machine = Machine(slow_for_a_while(0.1), ready=True)
    speaker = machine.speaker(3)
    machine.run(30.0)
    assert steps(speaker) == [3, 1, 2, 3] and speaker.late == 0
    assert speaker.reasons == ["load", "recovered", "asked"]


def test_restorer_that_never_fits_is_never_tried_live() -> None:
    machine = Machine(lambda now_s: 1.0)
    speaker = machine.speaker(MOST)
    machine.run(120.0)
    assert speaker.late == 0 and speaker.restored == 0 and machine.probes == [] and speaker.seat.level == 0
    assert speaker.seat.state == QualityState(MOST, 0, "load")


def test_attempts_that_fail_become_rare() -> None:
    machine = Machine(lambda now_s: 0.005 if now_s < 1 else 0.1)
    machine.speaker(3)
    machine.run(200.0)
    gaps_s = [b - a for (a, _), (b, _) in zip(machine.probes, machine.probes[1:], strict=False)]
    assert gaps_s[0] >= 2 * PATIENCE_S and 50 < max(gaps_s) < 65
    assert all(b >= a - 0.2 for a, b in itertools.pairwise(gaps_s)) and len(machine.probes) < 10


def test_restorer_that_is_slow_now_and_then_does_not_make_levels_flap() -> None:
    machine = Machine(lambda now_s: 0.1 if now_s > 1 and now_s % 8 < 1 else 0.006)
    speaker = machine.speaker(3)
    machine.run(120.0)
    rises = [at_s for (at_s, level), (_, before) in zip(speaker.levels[1:], speaker.levels, strict=False)
             if level > before]  # fmt: skip
    assert all(b - a >= PATIENCE_S - 1e-6 for a, b in itertools.pairwise(rises))
    assert speaker.late == 0 and len(speaker.levels) < 25


def test_one_slow_picture_is_forgiven() -> None:
    machine = Machine(lambda now_s: 0.03 if 2.0 <= now_s < 2.02 else 0.01)
    speaker = machine.speaker(3)
    machine.run(10.0)
    assert steps(speaker) == [3] and speaker.late == 0


def test_dearest_sessions_step_down_first_and_together() -> None:
    machine = Machine(lambda now_s: 0.004, lambda now_s: 0.003)
    cheap, *dear = speakers = [machine.speaker(2), machine.speaker(5), machine.speaker(5)]
    machine.run(2.0)
    assert [speaker.seat.level for speaker in speakers] == [2, 5, 5]
    machine.restore_s = lambda now_s: 0.0125
    machine.run(3.0)
    # 25 x (3 x 3 + 12.5 / 2 + 2 x 12.5) ms would be 1.0; with all three at level 2 it is 0.7.
    assert [speaker.seat.level for speaker in dear] == [2, 2] and cheap.seat.level == 2
    assert dear[0].levels[-1][0] == pytest.approx(dear[1].levels[-1][0], abs=0.001)
    assert cheap.late == dear[0].late == dear[1].late == 0 and len(cheap.levels) == 1


def test_crowd_steps_down_before_it_is_late_and_up_when_it_has_gone() -> None:
    machine = Machine(lambda now_s: 0.008, lambda now_s: 0.005)
    first = machine.speaker(3)
    machine.run(2.0)
    crowd = [machine.speaker(3, speaks=lambda now_s: now_s < 6) for _ in range(3)]
    machine.run(20.0)
    assert min(level for _, level in first.levels) < 3 and first.seat.level == 3
    assert [speaker.late for speaker in [first, *crowd]] == [0, 0, 0, 0]
    assert first.levels[1][0] < 2.1, "what newcomers cost is known before it happens"


def test_newcomer_gets_no_more_than_those_who_do_without() -> None:
    machine = Machine(lambda now_s: 0.004 if now_s < 1 else 0.1)
    machine.speaker(3)
    machine.run(3.0)
    newcomer = machine.speaker(4)
    assert newcomer.seat.level == 0 and newcomer.seat.state.reason == "load"


def test_session_may_ask_for_something_else_at_any_time() -> None:
    machine = Machine(lambda now_s: 0.004)
    speaker = machine.speaker(AUTO)
    assert speaker.seat.state == QualityState(AUTO, 3, "auto"), "4 ms is fast enough for live restoring"
    machine.governor.ask(speaker.seat, 5, 5, 0.0)
    machine.run(1.0)
    assert set(speaker.shown) == {5}
    machine.governor.ask(speaker.seat, 0, 0, machine.now_s)
    machine.run(1.0)
    assert speaker.shown[-1] == 0 and speaker.seat.state == QualityState(0, 0, "asked")


def test_asking_again_for_what_there_is_no_time_for_changes_nothing() -> None:
    machine = Machine(lambda now_s: 0.004 if now_s < 1 else 0.1)
    speaker = machine.speaker(3)
    machine.run(3.0)
    machine.governor.ask(speaker.seat, 3, 3, machine.now_s)
    assert speaker.seat.level == 0


def test_avatar_that_is_not_restored_yet_is_told_as_preparing_and_one_that_cannot_as_failed() -> None:
    governor = Governor()
    seat = governor.enrol(1, 1, lambda seat, before, after: None, 0.0)
    assert seat.state == QualityState(1, 0, "preparing")
    governor.prepared(seat, True)
    assert seat.state == QualityState(1, 1, "asked")
    governor.prepared(seat, False)
    assert seat.state == QualityState(1, 0, "failed")


def test_failing_restorer_is_left_alone_for_a_while() -> None:
    machine = Machine(lambda now_s: 0.004)
    speaker = machine.speaker(3)
    machine.run(1.0)
    machine.governor.failed(speaker.seat, machine.now_s)
    assert speaker.seat.state == QualityState(3, 0, "failed")
    machine.run(2 * PATIENCE_S + 1)
    assert machine.probes and speaker.seat.level == 3


def test_session_that_left_counts_no_more() -> None:
    machine = Machine(lambda now_s: 0.004)
    speaker = machine.speaker(3)
    machine.run(1.0)
    assert machine.governor.load(machine.now_s) == pytest.approx(25 * 0.010, rel=0.1)
    assert machine.governor.leave(speaker.seat) and not machine.governor.leave(speaker.seat)
    assert machine.governor.load(machine.now_s) == 0


def test_encoding_and_windows_count_on_the_whole_machine() -> None:
    governor = Governor(threads=1, cores=2)
    for stage, seconds in (("window", 0.001), ("predict", 0.002), ("encode", 0.004)):
        governor.observe(stage, seconds)
    seats = [governor.enrol(0, 0, lambda seat, before, after: None, 0.0) for _ in range(10)]
    assert governor.load(0.0) == 0, "whoever is idle sends what was encoded for all"
    for seat in seats[:3]:
        governor.admit(seat, 0.0, 0.1)
    assert governor.load(0.0) == pytest.approx(25 * 3 * 0.007 / 2)


def test_levels_are_those_of_the_restorer() -> None:
    assert (LIVE, MOST) == (LIVE_LEVEL, MAX_LEVEL)
    assert wanted_level(AUTO, fast=False) == 1 and wanted_level(AUTO, fast=True) == 3 and wanted_level(0, True) == 0
    assert UP_LOAD < DOWN_LOAD < 1


def test_levels_of_speakers_are_told_once() -> None:
    machine = Machine(slow_for_a_while(0.12))
    speaker: Speaker = machine.speaker(3)
    machine.run(30.0)
    assert len(steps(speaker)) == len(speaker.levels), "no change is told that is none"


def test_lowest_priority_does_without_first_and_equals_together() -> None:
    machine = Machine(lambda now_s: 0.003, lambda now_s: 0.002)
    low = [machine.speaker(3, priority=2) for _ in range(2)]
    usual = [machine.speaker(5) for _ in range(2)]
    high = machine.speaker(5, priority=9)
    machine.run(2.0)
    assert [speaker.seat.level for speaker in [*low, *usual, high]] == [3, 3, 5, 5, 5]
    machine.restore_s = lambda now_s: 0.0075
    machine.run(3.0)
    # 25 x (5 x 2 + 3 x 7.5) ms is 0.81: those that matter least lose everything before anybody else loses a level.
    assert [speaker.seat.level for speaker in [*low, *usual, high]] == [0, 0, 5, 5, 5]
    assert low[0].seat.state.reason == "priority" and low[0].levels[-1][0] == low[1].levels[-1][0]
    machine.restore_s = lambda now_s: 0.012
    machine.run(3.0)
    assert usual[0].seat.level == usual[1].seat.level < 5 and high.seat.level == 5
    assert [speaker.late for speaker in [*low, *usual, high]] == [0] * 5


def test_whoever_matters_more_steps_up_first_and_takes_from_those_below() -> None:
    machine = Machine(slow_for_a_while(0.1, 0.014), lambda now_s: 0.004)
    low, high = machine.speaker(3, priority=1), machine.speaker(3, priority=7)
    machine.run(40.0)
    # There is time for one of them: 25 x (2 x 4 + 14) ms is 0.55, with both it would be 0.9.
    assert high.seat.level == 3 and low.seat.level <= 2
    up_s = [next(at_s for at_s, level in speaker.levels if at_s > SLOW_TO_S and level >= 2) for speaker in (high,)]
    assert all(at_s >= up_s[0] for at_s, level in low.levels if at_s > SLOW_TO_S and level >= 2)
    assert low.late == high.late == 0


def test_newcomer_that_matters_more_does_not_do_without_for_others() -> None:
    machine = Machine(lambda now_s: 0.008, lambda now_s: 0.003)
    low = [machine.speaker(3, priority=3) for _ in range(4)]
    machine.run(3.0)
    assert min(speaker.seat.level for speaker in low) < 3
    newcomer = machine.speaker(3, priority=8)
    machine.run(3.0)
    assert newcomer.seat.level == 3 and len(newcomer.levels) == 1


def test_pictures_that_do_not_fit_are_made_room_for_by_those_that_matter_less() -> None:
    governor = Governor()
    told: list[tuple[int, int]] = []
    low = governor.enrol(3, 3, lambda seat, before, after: told.append((before, after)), 0.0, 2)
    high = governor.enrol(3, 3, lambda seat, before, after: None, 0.0, 6)
    for seat in (low, high):
        governor.admit(seat, 0.0, 1.0)
    for number in range(3):
        governor.missed(high, 0.1 * number)
    assert high.level == 3 and low.level == 2 and told == [(3, 2)] and low.state.reason == "priority"


def test_pictures_restored_together_need_the_time_of_all() -> None:
    governor = Governor()
    seat = governor.enrol(3, 3, lambda seat, before, after: None, 0.0)
    governor.learn(0.010, 0.0)
    assert governor.admit(seat, 0.0, 0.040, beside=2).level == 3
    assert governor.admit(seat, 0.0, 0.040, beside=3).level == 0
    assert governor.fits(3, 0.0, 0.040, [], 2) and not governor.fits(3, 0.0, 0.040, [], 3)
