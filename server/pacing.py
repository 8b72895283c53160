"""Parcels that wait for their time.

Place in the flow: encoder or idle loop -> PacedParcels -> ``next_parcel`` of a track.

Invariants:
    * a parcel never leaves before it is due, and at once when that has passed;
    * a reader that waits for a parcel is woken once, when it is due, not when it arrives: half the wake-ups of a crowd.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from aiortc.mediastreams import MediaStreamError

from server.rtp import Parcel


class PacedParcels:
    """A queue with times. One reader.

    Args:
        limit: parcels held; ``put`` beyond it loses the oldest, so ask ``full`` where that matters.

    Attributes:
        late_s: how long after its time the last parcel left, seconds.
    """

    def __init__(self, limit: int) -> None:
        self._parcels: deque[tuple[float, Parcel, int]] = deque(maxlen=limit)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.late_s = 0.0

    @property
    def full(self) -> bool:
        """Whether the next ``put`` would lose a parcel."""
        return len(self._parcels) == self._parcels.maxlen

    def put(self, parcel: Parcel, timestamp: int, due_s: float) -> None:
        """Adds a parcel.

        Args:
            parcel: it.
            timestamp: its position in units of the codec's clock.
            due_s: monotonic time at which it is to leave; later than that of the one before.
        """
        self._parcels.append((due_s, parcel, timestamp))
        if self._waiter is not None and self._timer is None:
            self._wake_at(due_s)

    async def take(self) -> tuple[Parcel, int]:
        """The oldest parcel and its timestamp, at its time.

        Raises:
            MediaStreamError: closed, before or during the wait.
        """
        while not self._closed:
            if self._parcels:
                due_s, parcel, timestamp = self._parcels[0]
                late_s = time.monotonic() - due_s
                if late_s >= 0:
                    self._parcels.popleft()
                    self.late_s = late_s
                    return parcel, timestamp
            self._waiter = asyncio.get_running_loop().create_future()
            if self._parcels:
                self._wake_at(self._parcels[0][0])
            try:
                await self._waiter
            finally:
                self._waiter = None
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
        raise MediaStreamError

    def close(self) -> None:
        """Wakes the reader and forgets what waits; idempotent."""
        self._parcels.clear()
        self._closed = True
        self._wake()

    def _wake_at(self, due_s: float) -> None:
        # The loop's clock is the monotonic one.
        self._timer = asyncio.get_running_loop().call_at(due_s, self._wake)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
