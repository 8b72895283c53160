import asyncio
import time

import pytest

from engine.clock import FRAME_S, FrameClock
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


async def test_wait_until_returns_at_its_time(virtual_time: VirtualTime) -> None:
    clock = FrameClock(source=virtual_time)
    waiting = asyncio.create_task(clock.wait_until(clock.due_s(2)))
    await virtual_time.advance(2 * FRAME_S - 0.001)
    assert not waiting.done()
    await virtual_time.advance(0.001)
    assert waiting.done()


async def test_real_clock_waits_in_real_time_and_not_for_the_past() -> None:
    clock = FrameClock()
    started_s = time.monotonic()
    await clock.wait_until(clock.due_s(-10))
    await clock.wait_until(clock.due_s(1))
    assert time.monotonic() - started_s >= 0.03


async def test_cancelled_wait_leaves_no_timer(virtual_time: VirtualTime) -> None:
    waiting = asyncio.create_task(FrameClock(source=virtual_time).wait_until(virtual_time.now_s() + 1))
    await virtual_time.settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await virtual_time.advance(2)
