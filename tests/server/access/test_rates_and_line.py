"""Rates and the line in front of a full server, on a virtual clock."""

from __future__ import annotations

import pytest

from engine.errors import Busy
from server.access import line as line_module
from server.access import rates as rates_module
from server.access.line import Line
from server.access.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def allowed(rates: Rates, caller: str, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            rates.take(caller)
            count += 1
        except Busy:
            pass
    return count


def test_a_burst_and_then_the_rate():
    clock = Clock()
    rates = Rates(30, clock)
    assert allowed(rates, "a", 100) == 30
    clock.now += 10
    assert allowed(rates, "a", 100) == 5
    clock.now += 3600
    assert allowed(rates, "a", 100) == 30


def test_the_waiting_time_is_true():
    clock = Clock()
    rates = Rates(2, clock)
    allowed(rates, "a", 2)
    with pytest.raises(Busy) as error:
        rates.take("a")
    assert error.value.retry_after_s == 30
    clock.now += 30
    rates.take("a")


def test_one_caller_does_not_use_up_another_s():
    rates = Rates(5, Clock())
    assert allowed(rates, "a", 9) == 5 and allowed(rates, "b", 9) == 5


def test_memory_is_bounded_and_whoever_still_asks_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(rates_module, "MAX_CALLERS", 3)
    rates = Rates(1, Clock())
    rates.take("busy")
    for n in range(50):
        rates.take(f"other {n}")
        assert allowed(rates, "busy", 1) == 0
    assert len(rates._buckets) == 3


def test_the_order_is_that_of_coming():
    line: Line[str] = Line(Clock())
    first, second = line.join("a"), line.join("b")
    assert (line.ahead(first), line.ahead(second), line.ahead()) == (0, 1, 2)
    line.leave(first)
    assert (line.ahead(second), line.ahead("no ticket")) == (0, 1)
    line.return_first(first, "a")
    assert (line.ahead(first), line.ahead(second)) == (0, 1)


def test_a_higher_priority_goes_ahead_and_equals_stand_as_they_came():
    line: Line[str] = Line(Clock())
    usual, late, low, high = line.join("a"), line.join("b"), line.join("c", 0), line.join("d", 9)
    assert [line.ahead(ticket) for ticket in (high, usual, late, low)] == [0, 1, 2, 3]
    assert [line.ahead(priority=priority) for priority in (9, 6, 5, 0)] == [1, 1, 3, 4]
    line.leave(late)
    line.return_first(late, "b")
    assert [line.ahead(ticket) for ticket in (high, late, usual, low)] == [0, 1, 2, 3]


def test_who_does_not_come_back_loses_the_place_and_who_does_keeps_it():
    clock = Clock()
    line: Line[str] = Line(clock)
    gone, stays = line.join("a"), line.join("b")
    for _ in range(10):
        clock.now += 5
        assert line.find(stays) == "b"
    assert line.find(gone) is None
    assert line.ahead(stays) == 0


def test_the_line_is_bounded(monkeypatch):
    monkeypatch.setattr(line_module, "MAX_WAITING", 2)
    line: Line[str] = Line(Clock())
    line.require_room()
    line.join("a"), line.join("b")
    with pytest.raises(Busy):
        line.require_room()
