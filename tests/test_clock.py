import pytest

from engine.clock import FrameClock
from tests.fakes import VirtualTime


def test_frames_are_due_40_ms_apart_without_drift(virtual_time: VirtualTime) -> None:
    clock = FrameClock(5.0, virtual_time)
    assert clock.due_s(0) == 5.0
    assert clock.due_s(25 * 3600 * 24) == pytest.approx(5.0 + 3600 * 24, abs=1e-6)


def test_frame_at_is_the_first_frame_not_yet_due(virtual_time: VirtualTime) -> None:
    clock = FrameClock(5.0, virtual_time)
    assert [clock.frame_at(t) for t in (0.0, 5.0, 5.001, 5.039, 5.04, 5.041)] == [0, 0, 1, 1, 1, 2]
    assert all(clock.frame_at(clock.due_s(n)) == n for n in range(100_000, 100_100))


def test_epoch_is_now_unless_given(virtual_time: VirtualTime) -> None:
    assert FrameClock(source=virtual_time).epoch_s == virtual_time.now_s()
