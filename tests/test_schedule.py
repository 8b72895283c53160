"""The schedule under a virtual clock: everybody in time while there is time for all, and fair when there is not."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from engine.batches import Batches
from engine.clock import FRAME_S
from engine.schedule import GATHER_S, OWNER_LIMIT, PRIORITY, STARVED_S, WAITING_LIMIT, Schedule

LEAD_S = 5 * FRAME_S


@dataclass(eq=False)
class Speaker:
    """A session that speaks.

    Attributes:
        phase_s: when its first picture is due.
        lead_s: how long before it is due a picture is asked for.
        burst: asks for so many pictures that were due in the past when it begins: it is catching up.
    """

    phase_s: float = 0.0
    lead_s: float = LEAD_S
    priority: int = PRIORITY
    burst: int = 0
    speaks: Callable[[float], bool] = lambda now_s: True
    in_time: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    given_up: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of its pictures that were in time."""
        return len(self.in_time) / max(1, len(self.in_time) + len(self.late) + len(self.given_up))


@dataclass
class Machine:
    """Lanes that draw the pictures of all speakers in virtual time.

    Attributes:
        draw_s: what so many pictures at a time take.
        sizes: of the batches drawn.
    """

    draw_s: Callable[[int], float]
    lanes: int = 1
    most: int = 1
    sizes: list[int] = field(default_factory=list)

    def run(self, speakers: list[Speaker], seconds: float) -> None:
        batches = Batches(self.most)
        schedule: Schedule[tuple[Speaker, float]] = Schedule(batches, self.lanes)
        order = itertools.count()
        events: list[tuple[float, int, Speaker | None, float]] = []
        for speaker in speakers:
            for number in range(-speaker.burst, round(seconds / FRAME_S)):
                due_s = LEAD_S + speaker.phase_s + number * FRAME_S
                heapq.heappush(events, (max(0.0, due_s - speaker.lead_s), next(order), speaker, due_s))
        for _ in range(self.lanes):
            heapq.heappush(events, (0.0, next(order), None, 0.0))
        idle: list[int] = []
        while events:
            now_s, number, speaker, due_s = heapq.heappop(events)
            if speaker is not None:
                if speaker.speaks(now_s) and schedule.has_room(speaker):
                    schedule.add((speaker, due_s), due_s, now_s, speaker, speaker.priority)
                for lane in idle:
                    heapq.heappush(events, (now_s, lane, None, 0.0))
                idle.clear()
                continue
            wait_s = schedule.gather_s(now_s)
            if wait_s > 1e-9:
                heapq.heappush(events, (now_s + wait_s, number, None, 0.0))
                continue
            if not schedule:
                idle.append(number)
                continue
            turn = schedule.take(now_s)
            for loser, was_due_s in turn.given_up:
                loser.given_up.append(was_due_s)
            took_s = self.draw_s(len(turn.items)) if turn.items else 0.0
            if turn.items:
                self.sizes.append(len(turn.items))
                batches.drew(len(turn.items), took_s)
            for owner, was_due_s in turn.items:
                (owner.in_time if now_s + took_s <= was_due_s + 1e-9 else owner.late).append(was_due_s)
            heapq.heappush(events, (now_s + took_s, number, None, 0.0))


def crowd(count: int, **options: float) -> list[Speaker]:
    return [Speaker(phase_s=0.037 * number % FRAME_S, **options) for number in range(count)]  # type: ignore[arg-type]


def test_everybody_is_in_time_while_there_is_time_for_all() -> None:
    speakers = crowd(9)
    Machine(lambda count: 0.004).run(speakers, 20.0)
    assert [speaker.share for speaker in speakers] == [1.0] * 9


@pytest.mark.parametrize("lanes", [1, 2])
def test_session_that_runs_ahead_delays_nobodys_picture(lanes: int) -> None:
    greedy, urgent = crowd(6 * lanes), crowd(2 * lanes, lead_s=0.012)
    Machine(lambda count: 0.0045, lanes).run([*greedy, *urgent], 20.0)
    assert [speaker.share for speaker in [*greedy, *urgent]] == [1.0] * (8 * lanes)


def test_session_that_is_late_and_catches_up_makes_nobody_late() -> None:
    behind, others = Speaker(burst=7, phase_s=-0.5), crowd(6)
    Machine(lambda count: 0.005).run([behind, *others], 10.0)
    assert [speaker.share for speaker in others] == [1.0] * 6
    assert len(behind.in_time) >= 230


def test_session_that_always_asks_too_late_makes_nobody_late_and_is_served_where_there_is_room() -> None:
    hasty, others = Speaker(lead_s=0.001), crowd(6)
    Machine(lambda count: 0.005).run([hasty, *others], 10.0)
    assert [speaker.share for speaker in others] == [1.0] * 6 and not hasty.in_time
    assert len(hasty.late) > 200, "what comes of it is shown in place of the next picture, should that be late"


@pytest.mark.parametrize(("count", "draw_s", "lanes"), [(2, 0.030, 1), (9, 0.008, 1), (12, 0.009, 2), (30, 0.004, 1)])
def test_where_there_is_not_enough_time_everybody_gets_the_same_share(count: int, draw_s: float, lanes: int) -> None:
    speakers = crowd(count)
    Machine(lambda _: draw_s, lanes).run(speakers, 30.0)
    shares = [speaker.share for speaker in speakers]
    most = lanes * FRAME_S / (count * draw_s)
    assert max(shares) - min(shares) < 0.03 and min(shares) > 0.9 * most


def test_who_does_without_takes_turns() -> None:
    speakers = crowd(5)
    Machine(lambda count: 0.010).run(speakers, 30.0)
    for speaker in speakers:
        lost_s = sorted([*speaker.given_up, *speaker.late])[2:]
        gaps = [round((later_s - one_s) / FRAME_S) for one_s, later_s in itertools.pairwise(lost_s)]
        assert min(gaps) >= 2, "four in five are drawn: nobody does without twice in a row"


def test_lowest_priority_does_without_first_and_equals_share() -> None:
    low, usual, high = crowd(3, priority=2), crowd(3), crowd(3, priority=8)
    Machine(lambda count: 0.0065).run([*low, *usual, *high], 30.0)
    assert min(speaker.share for speaker in high) == 1.0
    assert min(speaker.share for speaker in usual) > 0.98
    shares = [speaker.share for speaker in low]
    assert 0.0 < max(shares) < 0.15 and max(shares) - min(shares) < 0.03


def gpu(count: int) -> float:
    """A batch of one takes 4 ms, each further one 0.6 ms."""
    return 0.0034 + 0.0006 * count


def test_batches_fill_with_load_and_everybody_is_in_time() -> None:
    for count, smallest in ((4, 1.0), (24, 2.0), (40, 8.0)):
        machine, speakers = Machine(gpu, most=16), crowd(count)
        machine.run(speakers, 10.0)
        assert min(speaker.share for speaker in speakers) > 0.995
        assert sum(machine.sizes) / len(machine.sizes) >= smallest


def test_batches_stay_full_and_fair_where_there_is_not_enough_time() -> None:
    machine, speakers = Machine(gpu, most=16), crowd(80)
    machine.run(speakers, 10.0)
    shares = [speaker.share for speaker in speakers]
    most = FRAME_S / gpu(16) * 16 / 80
    assert min(shares) > 0.85 * most and max(shares) - min(shares) < 0.05


def test_pictures_wait_for_company_while_they_have_the_time() -> None:
    batches = Batches(8)
    schedule: Schedule[int] = Schedule(batches)
    batches.drew(8, 0.010)
    assert schedule.gather_s(0.0) == 0.0
    schedule.add(1, 0.1, 0.0)
    assert schedule.gather_s(0.001) == pytest.approx(GATHER_S - 0.001)
    assert schedule.gather_s(GATHER_S) == 0.0, "no longer than that"
    schedule.add(2, 0.015, 0.002)
    assert schedule.gather_s(0.0025) == pytest.approx(0.0005) and schedule.gather_s(0.01) == 0.0, "nor too long"
    for number in range(6):
        schedule.add(number, 1.0, 0.0)
    assert schedule.gather_s(0.0) == 0.0, "there are enough"
    alone: Schedule[int] = Schedule(Batches(1))
    alone.add(1, 1.0, 0.0)
    assert alone.gather_s(0.0) == 0.0


def test_late_picture_that_nobody_gives_up_is_drawn_though_there_is_never_time() -> None:
    batches = Batches()
    for _ in range(200):
        batches.drew(1, 0.010)
    schedule: Schedule[str] = Schedule(batches, gives_up=False)
    schedule.add("late", 0.0, 1.0, "somebody")
    now_s, drawn = 1.0, []
    while "late" not in drawn:
        schedule.add("urgent", now_s + 0.0101, now_s, now_s)
        drawn += schedule.take(now_s).items
        now_s += 0.010
    assert STARVED_S < now_s - 1.0 < STARVED_S + 0.03


def test_who_was_left_out_is_drawn_when_there_is_time_again() -> None:
    batches = Batches()
    for _ in range(200):
        batches.drew(1, 0.010)
    schedule: Schedule[str] = Schedule(batches)
    first, _ = schedule.add("one", 0.0105, 0.0, "one"), schedule.add("other", 0.0105, 0.0, "other")
    third = schedule.add("third", 0.0106, 0.0, "third")
    assert schedule.take(0.0).items == ["third"] and first.left_out and not third.waits
    schedule.remove(first)
    assert schedule.take(0.0).items == ["other"]


def test_nobody_fills_the_schedule_alone() -> None:
    schedule: Schedule[int] = Schedule(Batches())
    me, you = object(), object()
    for number in range(OWNER_LIMIT):
        schedule.add(number, number, 0.0, me)
    assert not schedule.has_room(me) and schedule.has_room(you) and schedule.has_room()
    schedule.take(0.0)
    assert schedule.has_room(me)
    for number in range(WAITING_LIMIT):
        schedule.add(number, number, 0.0)
    assert not schedule.has_room() and not schedule.has_room(you)


def test_what_was_removed_is_not_taken_and_may_be_removed_again() -> None:
    schedule: Schedule[str] = Schedule(Batches())
    first, _ = schedule.add("first", 1.0, 0.0), schedule.add("second", 1.0, 0.0)
    schedule.remove(first)
    schedule.remove(first)
    assert len(schedule) == 1 and schedule.due_s() == [1.0] and schedule.take(0.0).items == ["second"]
    schedule.add("third", 1.0, 0.0)
    assert schedule.clear() == ["third"] and len(schedule) == 0


def test_eighty_sessions_cost_next_to_nothing_even_with_too_little_time() -> None:
    def microseconds(draw_s: float) -> float:
        batches = Batches()
        schedule: Schedule[int] = Schedule(batches)
        batches.drew(1, draw_s * 10)
        took_s, owners = [], [object() for _ in range(80)]
        for number in range(400):
            due_s = 0.02 + (number // 80) * FRAME_S + (number % 80) * FRAME_S / 80
            schedule.add(number, due_s, 0.0, owners[number % 80])
        for _ in range(50):
            before_s = time.perf_counter()
            schedule.take(0.0)
            took_s.append(time.perf_counter() - before_s)
        return sorted(took_s)[len(took_s) // 2] * 1e6

    assert microseconds(0.0004) < 200 and microseconds(0.01) < 3000
