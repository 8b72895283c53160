"""When the encoders hurry, in virtual time."""

from __future__ import annotations

from itertools import pairwise

from server.encoder_pressure import LATE_LEAST, LONGEST_PATIENCE_S, PATIENCE_S, EncoderPressure


class Machine:
    """Five sessions whose pictures are late as told."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, bool]] = []
        self.now_s = 100.0
        self.pressure = EncoderPressure(lambda hurried: self.changes.append((round(self.now_s - 100), hurried)))

    def run(self, seconds: float, late_share: float = 0.0) -> None:
        late = 0.0
        for _ in range(int(seconds * 125)):
            late += late_share
            self.pressure.encoded(0.004 if late >= 1 else -0.005, self.now_s)
            late -= late >= 1
            self.now_s += 1 / 125


def test_pictures_in_time_change_nothing():
    machine = Machine()
    machine.run(60)
    assert machine.changes == []


def test_a_second_of_late_pictures_makes_encoders_hurry_at_once():
    machine = Machine()
    machine.run(3)
    machine.run(3, late_share=0.3)
    assert [hurried for _, hurried in machine.changes] == [True]
    assert 3 <= machine.changes[0][0] <= 5


def test_pictures_that_were_not_drawn_in_time_make_encoders_leave_models_the_time():
    machine = Machine()
    for index in range(3 * 125):
        machine.pressure.encoded(-0.005, machine.now_s, held=index % 4 == 0)
        machine.now_s += 1 / 125
    assert [hurried for _, hurried in machine.changes] == [True]


def test_a_few_late_pictures_are_bad_luck():
    machine = Machine()
    machine.run(60, late_share=0.05)
    assert machine.changes == []


def test_one_session_alone_is_judged_by_more_than_one_picture():
    pressure = EncoderPressure()
    for number in range(250):
        pressure.encoded(0.1 if number % 25 < LATE_LEAST - 1 else -0.1, number / 25)
    assert not pressure.hurried


def test_it_goes_back_with_patience():
    machine = Machine()
    machine.run(2, late_share=0.5)
    machine.run(PATIENCE_S + 3)
    assert [hurried for _, hurried in machine.changes] == [True, False]
    assert machine.changes[1][0] - machine.changes[0][0] >= PATIENCE_S


def test_an_attempt_that_fails_makes_it_more_patient_up_to_a_limit():
    machine = Machine()
    waits = []
    for _ in range(7):
        machine.run(2, late_share=0.5)
        hurried_s = machine.now_s
        while machine.pressure.hurried:
            machine.run(0.5)
        waits.append(machine.now_s - hurried_s)
    assert all(later > 1.5 * earlier for earlier, later in pairwise(waits[:5]))
    assert waits[-1] <= LONGEST_PATIENCE_S + 3


def test_patience_comes_back_when_an_attempt_lasted():
    machine = Machine()
    for _ in range(3):
        machine.run(2, late_share=0.5)
        while machine.pressure.hurried:
            machine.run(0.5)
    machine.run(30)
    machine.run(2, late_share=0.5)
    hurried_s = machine.now_s
    while machine.pressure.hurried:
        machine.run(0.5)
    assert machine.now_s - hurried_s <= PATIENCE_S + 3
