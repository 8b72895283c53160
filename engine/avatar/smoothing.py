"""Smooths what was measured frame by frame, without delaying it.

Place in the flow: landmarks along a video or a loop -> the same, without trembling.

Invariant: the filter is symmetric in time, so nothing is late; around a loop it knows no first frame.
"""

from __future__ import annotations

import numpy as np


def smooth(values: np.ndarray, sigma_frames: float, *, cyclic: bool) -> np.ndarray:
    """A Gaussian average over time.

    Args:
        values: (N, ...), one row a frame.
        sigma_frames: width of the average; 0 changes nothing.
        cyclic: whether frame N-1 is followed by frame 0; otherwise the ends are mirrored.

    Returns:
        (N, ...) float32.
    """
    values = np.asarray(values, np.float32)
    count = len(values)
    reach = min(int(np.ceil(3 * sigma_frames)), count - 1)
    if sigma_frames <= 0 or reach < 1:
        return values.copy()
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma_frames))
    weights /= weights.sum()
    around = [(reach, reach)] + [(0, 0)] * (values.ndim - 1)
    wide = np.pad(values, around, mode="wrap" if cyclic else "reflect")
    result = np.zeros_like(values)
    for place, weight in enumerate(weights):
        result += np.float32(weight) * wide[place : place + count]
    return result
