"""How well a mouth fits the sound: opening against the truth, closed lips, rounded and wide shapes, silence.

Place in the flow: mouth tracks at 25 fps (predicted) + tracks or gestures (true) -> plain numbers.

Invariants:
    * everything here is a pure function of arrays;
    * a positive lag means that the prediction is late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.types import FPS, MOUTH_SHAPES

OPENING_WEIGHTS = {
    "jawOpen": 1.0,
    "mouthLowerDown": 0.4,
    "mouthUpperUp": 0.2,
    "mouthPress": -0.3,
    "mouthRollLower": -0.2,
    "mouthPucker": -0.2,
}
"""How far each shape parts the lips, relative to the jaw."""

SHUT_OPENING = 0.12
"""Lips count as shut below this opening: about an eighth of the widest."""

_OPENING = np.array([OPENING_WEIGHTS.get(name, 0.0) for name in MOUTH_SHAPES], np.float32)
_MIN_FRAMES = 8


def opening(mouth: np.ndarray) -> np.ndarray:
    """How far the lips are apart, from 0 for shut to about 1.

    Args:
        mouth: (..., len(MOUTH_SHAPES)) weights.

    Returns:
        (...) float32, never negative.
    """
    return np.maximum(0.0, mouth @ _OPENING)


@dataclass(frozen=True, slots=True)
class SyncResult:
    """Correlation of two openings.

    Attributes:
        correlation: Pearson's r without any shift.
        best: r at the best lag.
        lag_frames: the lag at which it is best; positive when the prediction is late.
        frames: how many were compared; without any the rest means nothing.
    """

    correlation: float
    best: float
    lag_frames: int
    frames: int


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two series, 0 when either is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale > 1e-9 else 0.0


def correlation_at(predicted: np.ndarray, true: np.ndarray, lag_frames: int) -> float:
    """Pearson's r of ``predicted[i + lag]`` against ``true[i]``."""
    count = min(len(predicted), len(true))
    predicted, true = predicted[:count], true[:count]
    if count - abs(lag_frames) < _MIN_FRAMES:
        return 0.0
    if lag_frames >= 0:
        return correlation(predicted[lag_frames:], true[: count - lag_frames])
    return correlation(predicted[:lag_frames], true[-lag_frames:])


def sync(clips: Sequence[tuple[np.ndarray, np.ndarray]], max_lag: int = 6) -> SyncResult:
    """Correlation of openings over clips, each clip counting by its length.

    Args:
        clips: (predicted, true) openings, (N,) each, of one video each.
        max_lag: lags are tried from ``-max_lag`` to ``max_lag`` frames.
    """
    if not clips:
        return SyncResult(0.0, 0.0, 0, 0)
    lags = range(-max_lag, max_lag + 1)
    weights = np.array([min(len(p), len(t)) for p, t in clips], np.float64)
    table = np.array([[correlation_at(p, t, lag) for lag in lags] for p, t in clips])
    means = (table * weights[:, None]).sum(0) / weights.sum()
    best = int(np.argmax(means))
    return SyncResult(float(means[max_lag]), float(means[best]), best - max_lag, int(weights.sum()))


def shut_rate(mouth: np.ndarray, limit: float = SHUT_OPENING) -> float:
    """Share of frames with shut lips.

    Args:
        mouth: (N, len(MOUTH_SHAPES)).
    """
    return float((opening(mouth) < limit).mean())


def closure_rate(mouth: np.ndarray, closures_s: Sequence[tuple[float, float]], limit: float = SHUT_OPENING) -> float:
    """Share of closures (p, b, m) during which the lips shut at least once, one frame of tolerance around them.

    Args:
        mouth: (N, len(MOUTH_SHAPES)) at 25 fps.
        closures_s: (start, end) of each closure in the sound, seconds.
        limit: opening below which lips count as shut.

    Returns:
        0 to 1; NaN without closures.
    """
    return closure_rate_of(opening(mouth) < limit, closures_s)


def closure_rate_of(shut: np.ndarray, closures_s: Sequence[tuple[float, float]]) -> float:
    """The same of lips that are known to be shut or not.

    Args:
        shut: (N,) bool at 25 fps.
        closures_s: (start, end) of each closure in the sound, seconds.
    """
    hits = []
    for start_s, end_s in closures_s:
        first = max(0, round(start_s * FPS - 0.5) - 1)
        last = min(len(shut), round(end_s * FPS - 0.5) + 1)
        if first < last:
            hits.append(bool(shut[first : last + 1].any()))
    return float(np.mean(hits)) if hits else float("nan")


def false_shut_rate(mouth: np.ndarray, vowels_s: Sequence[tuple[float, float]], limit: float = SHUT_OPENING) -> float:
    """Share of open vowels whose middle frame is wrongly shut; the price of shutting too eagerly.

    Args:
        mouth: (N, len(MOUTH_SHAPES)) at 25 fps.
        vowels_s: (start, end) of each vowel, seconds.
        limit: opening below which lips count as shut.
    """
    middles = [int((start_s + end_s) / 2 * FPS) for start_s, end_s in vowels_s]
    shut = [bool(opening(mouth[middle]) < limit) for middle in middles if middle < len(mouth)]
    return float(np.mean(shut)) if shut else float("nan")


def shape_at(mouth: np.ndarray, spans_s: Sequence[tuple[float, float]], shapes: Sequence[str]) -> np.ndarray:
    """The strongest sum of some shapes within each span.

    Args:
        mouth: (N, len(MOUTH_SHAPES)) at 25 fps.
        spans_s: (start, end) of each sound, seconds.
        shapes: names whose weights are added.

    Returns:
        (number of spans inside the track,) float32.
    """
    columns = [MOUTH_SHAPES.index(name) for name in shapes]
    total = mouth[:, columns].sum(1)
    values = []
    for start_s, end_s in spans_s:
        first, last = int(start_s * FPS), max(int(start_s * FPS) + 1, int(np.ceil(end_s * FPS)))
        if first < len(total):
            values.append(total[first:last].max())
    return np.array(values, np.float32)
