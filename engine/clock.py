"""When each frame is due: one monotonic epoch from which every track counts its 40 ms.

Place in the flow: AvatarFrame -> frame clock -> video encoder + audio track.

Invariants:
    * frame n is due at ``epoch_s + n * 40 ms``, computed from n and never accumulated, so nothing drifts;
    * time only comes from a ``TimeSource``, so tests run hours in milliseconds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Protocol

from engine.types import FRAME_MS

FRAME_S = FRAME_MS / 1000


class TimerHandle(Protocol):
    """A call that has not happened yet."""

    def cancel(self) -> None:
        """Forgets the call; harmless after it happened."""
        ...


class TimeSource(Protocol):
    """Where time comes from."""

    def now_s(self) -> float:
        """Monotonic seconds."""
        ...

    def call_at(self, when_s: float, callback: Callable[[], None]) -> TimerHandle:
        """Calls back on the running event loop once ``now_s() >= when_s``."""
        ...


class MonotonicTime:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def call_at(self, when_s: float, callback: Callable[[], None]) -> TimerHandle:
        """Calls back on the running event loop once ``now_s() >= when_s``."""
        # Relative on purpose: another event loop's own clock may count from elsewhere.
        return asyncio.get_running_loop().call_later(max(0.0, when_s - time.monotonic()), callback)


class FrameClock:
    """Frame numbers as times, times as frame numbers.

    Attributes:
        epoch_s: when frame 0 is due; monotonic seconds.
        source: where time comes from.
    """

    def __init__(self, epoch_s: float | None = None, source: TimeSource | None = None) -> None:
        self.source: TimeSource = source if source is not None else MonotonicTime()
        self.epoch_s = self.source.now_s() if epoch_s is None else epoch_s

    def now_s(self) -> float:
        """Monotonic seconds."""
        return self.source.now_s()

    def due_s(self, frame: int) -> float:
        """When a frame is due, monotonic seconds."""
        return self.epoch_s + frame * FRAME_S

    def frame_at(self, time_s: float) -> int:
        """The first frame that is due at ``time_s`` or later."""
        # The tolerance keeps a frame's own due time from rounding up to the next frame.
        return max(0, math.ceil((time_s - self.epoch_s) / FRAME_S - 1e-6))
