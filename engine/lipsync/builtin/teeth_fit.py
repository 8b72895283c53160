"""Finds where the lips of a face bare its teeth, so that everybody shows as much of them as people do.

Place in the flow: layers that the picture network makes of a wide open mouth -> edges of both lips ->
``MouthInside.fitted``.

Invariant: one answer a face, over all its pictures, so that teeth never creep.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from engine.lipsync.builtin.mouth_inside import PROBE_JAW, Place
from engine.types import MOUTH_SHAPES

PROBE = np.array([{"jawOpen": PROBE_JAW, "mouthLowerDown": 0.2}.get(name, 0.0) for name in MOUTH_SHAPES], np.float32)
"""The mouth at which lips are looked for: an open vowel."""
_STEPS_PER_D = 100
_HALF_WIDTH_D, _HIGHEST_D, _LOWEST_D = 0.13, -0.20, 0.60
_FEWEST_SHARE = 0.25
"""An opening found in fewer of the columns than this is a doubtful spot; likewise the share of edges further out."""


def lip_edges(alpha: np.ndarray, box: np.ndarray, place: Place) -> tuple[float, float] | None:
    """The upper and the lower edge of the opening in the mouth's middle.

    Args:
        alpha: (s, s) float32 opening of the probe mouth.
        box: y1, y2, x1, x2 of the square crop, pixels of the frame.
        place: where the mouth is in the frame.

    Returns:
        d below the mouth's middle, or None when the mouth did not open.
    """
    pixels_per_d = place.distance_px * alpha.shape[0] / (box[1] - box[0])
    middle = (place.middle - np.array([box[2], box[0]])) * alpha.shape[0] / (box[1] - box[0]) - 0.5
    u = np.arange(-_HALF_WIDTH_D, _HALF_WIDTH_D, 1 / _STEPS_PER_D)
    v = np.arange(_HIGHEST_D, _LOWEST_D, 1 / _STEPS_PER_D)
    cosine, sine = place.across
    map_x = (middle[0] + pixels_per_d * (u[None] * cosine - v[:, None] * sine)).astype(np.float32)
    map_y = (middle[1] + pixels_per_d * (u[None] * sine + v[:, None] * cosine)).astype(np.float32)
    shown = cv2.remap(alpha, map_x, map_y, cv2.INTER_LINEAR) > 0.5
    shown = shown[:, shown.any(0)]
    if shown.shape[1] < _FEWEST_SHARE * len(u):
        return None
    upper, lower = v[shown.argmax(0)], v[len(v) - 1 - shown[::-1].argmax(0)]
    # Both edges bow away from the teeth; where half of a mouth stays shut, the open half still tells.
    return float(np.quantile(upper, _FEWEST_SHARE)), float(np.quantile(lower, 1 - _FEWEST_SHARE))


def usual_edges(edges: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """The median of what several pictures of a face showed; None when hardly any mouth opened."""
    found = [pair for pair in edges if pair is not None]
    if 2 * len(found) < len(edges) or not found:
        return None
    upper, lower = np.median(found, axis=0)
    return float(upper), float(lower)
