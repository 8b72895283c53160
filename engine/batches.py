"""How many pictures are drawn at a time: as many as the model gains from, fewer when the first would be late.

Place in the flow: waiting pictures -> ``Batches.count`` -> render thread, or model process -> ``Batches.drew``.

Invariants:
    * pure, time comes in with every call;
    * all pictures of a batch wait for the last one, so its time is held against the deadline of the most urgent;
    * a model that gains nothing from batches gets one picture at a time.
"""

from __future__ import annotations

MARGIN_S = 0.002
"""Kept free before a deadline."""
_WEIGHT = 0.3
_SINGLE_WEIGHT = 0.1
_HOPEFUL = 0.8
"""What a batch takes of its mean when all goes well."""


class Batches:
    """The batch sizes of one model.

    Args:
        most: pictures at a time that the model gains from.
    """

    def __init__(self, most: int = 1) -> None:
        self.most = most
        # By size: mean and mean deviation, seconds.
        self._known_s: dict[int, tuple[float, float]] = {}

    def count(self, now_s: float, due_s: float) -> int:
        """How many pictures to draw at a time.

        Args:
            now_s: monotonic time, seconds.
            due_s: when the most urgent one is due.
        """
        count = self.most
        while count > 1 and now_s + self.expected_s(count) > due_s - MARGIN_S:
            count //= 2
        return count

    def drew(self, count: int, seconds: float) -> None:
        """So many pictures were drawn at a time, and took so long."""
        size = 1 << (count - 1).bit_length()
        # Nothing is known before the first single picture, and one slow one says little about the next.
        first, weight = ((seconds, 0.0), _WEIGHT) if self.most > 1 else ((0.0, 0.0), _SINGLE_WEIGHT)
        mean_s, deviation_s = self._known_s.get(size, first)
        mean_s += weight * (seconds - mean_s)
        deviation_s += weight * (abs(seconds - mean_s) - deviation_s)
        self._known_s[size] = mean_s, min(deviation_s, mean_s)

    def expected_s(self, count: int) -> float:
        """What so many pictures at a time usually take; as the next larger batch that was measured, or the largest."""
        return self._of(count)[0]

    def likely_s(self, count: int) -> float:
        """What most batches of the size take no longer than."""
        return sum(self._of(count))

    def least_s(self, count: int) -> float:
        """What they take when all goes well: in doubt a picture is tried."""
        return _HOPEFUL * self.expected_s(count)

    def _of(self, count: int) -> tuple[float, float]:
        sizes = sorted(self._known_s)
        larger = [size for size in sizes if size >= count] or sizes[-1:]
        return self._known_s[larger[0]] if larger else (0.0, 0.0)
