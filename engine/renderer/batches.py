"""How many pictures are drawn at a time: as many as the model gains from, fewer when the first would be late.

Place in the flow: waiting pictures -> ``Batches.count`` -> render thread -> ``Batches.drew``.

Invariants:
    * all pictures of a batch wait for the last one, so its time is held against the deadline of the most urgent;
    * a model that gains nothing from batches gets one picture at a time, and nothing is measured.
"""

from __future__ import annotations

MARGIN_S = 0.002
"""Kept free before a deadline."""
_WEIGHT = 0.3


class Batches:
    """The batch sizes of one model.

    Args:
        most: pictures at a time that the model gains from.
    """

    def __init__(self, most: int = 1) -> None:
        self.most = most
        self._known_s: dict[int, float] = {}

    def count(self, now_s: float, due_s: float) -> int:
        """How many pictures to draw at a time.

        Args:
            now_s: monotonic time, seconds.
            due_s: when the most urgent one is due.
        """
        count = self.most
        while count > 1 and now_s + self._expected_s(count) > due_s - MARGIN_S:
            count //= 2
        return count

    def drew(self, count: int, seconds: float) -> None:
        """So many pictures were drawn at a time, and took so long."""
        if self.most > 1:
            size = 1 << (count - 1).bit_length()
            known_s = self._known_s.get(size, seconds)
            self._known_s[size] = known_s + _WEIGHT * (seconds - known_s)

    def _expected_s(self, count: int) -> float:
        """As the smallest batch of at least this size that was measured, else as the largest there was."""
        sizes = sorted(self._known_s)
        larger = [size for size in sizes if size >= count] or sizes[-1:]
        return self._known_s[larger[0]] if larger else 0.0
