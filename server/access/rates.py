"""How often one caller may ask: a bucket of tokens each.

Place in the flow: ``Access`` -> ``Rates.take`` before anything that costs the server something.

Invariant: memory is bounded; who asked longest ago is forgotten first, which by then is a full bucket again.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from engine.errors import Busy

MAX_CALLERS = 20_000


class Rates:
    """One rate for any number of callers: so many at once, and so many a minute."""

    def __init__(self, per_minute: int, now_s: Callable[[], float] = time.monotonic) -> None:
        """Args: per_minute: size of a bucket, filled again within a minute; now_s: a clock."""
        self._size = float(per_minute)
        self._now_s = now_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Counts one request.

        Raises:
            Busy: ``too_many_requests``, with when to come back.
        """
        now_s = self._now_s()
        left, since_s = self._buckets.pop(caller, (self._size, now_s))
        left = min(self._size, left + (now_s - since_s) * self._size / 60)
        allowed = left >= 1
        self._buckets[caller] = (left - 1 if allowed else left, now_s)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait_s = math.ceil((1 - left) * 60 / self._size)
            raise Busy("too_many_requests", f"Too many requests; try again in {wait_s} s.", retry_after_s=wait_s)
