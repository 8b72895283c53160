"""Rounds the opening of a mouth: lips of flesh stretch into an oval, the sculpted ones of the training data do not.

Place in the flow: flow and alpha of the picture network -> the same, bent -> ``warp.speak``.

Invariants:
    * a shut jaw bends nothing, and the bend grows smoothly with the mouth vector;
    * face and opening are bent together, so the lip's edge stays the opening's edge; teeth stay where they are.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.lipsync.builtin.mouth_inside import Place
from engine.types import MOUTH_SHAPES

_JAW, _FUNNEL = MOUTH_SHAPES.index("jawOpen"), MOUTH_SHAPES.index("mouthFunnel")
_RISE_D, _CORNERS_FALL_D, _CORNERS_IN = 0.015, 0.085, 0.08
"""At ``jawOpen`` 1: how far the upper lip's middle rises, its corners fall, d, and by what share they come nearer."""
_POUT_FALL_D, _POUT_LIFT_D, _POUT_IN = 0.07, 0.10, 0.50
"""Per ``jawOpen`` x ``mouthFunnel``: how far corners fall and the lower lip rises, by what share the corners near."""
_CORNER_AT_D, _ASIDE_D = 0.20, 0.22
"""Where the fall is greatest beside the middle, and how it fades away from there, d."""
_SEAM_D, _UPPER_REACH_D = 0.04, 0.12
_LOWER_LIP_D, _LOWER_REACH_D = 0.36, 0.16
_WIDTH_REACH_D, _HEIGHT_REACH_D = 0.30, 0.28


def rounded(
    flow: np.ndarray, alpha: np.ndarray, box: np.ndarray, place: Place, mouth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The network's layers with the opening rounded.

    Args:
        flow: (2, s, s) float32 backward warp x, y in grid units (1 = half the crop).
        alpha: (s, s) float32 in [0, 1].
        box: y1, y2, x1, x2 of the square crop, pixels of the frame.
        place: where the mouth's inside lies in the frame.
        mouth: (10,) float32 in [0, 1].

    Returns:
        Flow and alpha, new arrays.
    """
    jaw = float(mouth[_JAW])
    pout = jaw * float(mouth[_FUNNEL])
    size = alpha.shape[0]
    per_pixel = float(box[1] - box[0]) / size / place.distance_px
    corner = np.array([box[2], box[0]])
    pixels = np.arange(size, dtype=np.float32)
    x, y = (pixels + 0.5)[None] * per_pixel, (pixels + 0.5)[:, None] * per_pixel
    cosine, sine = (float(part) for part in place.across)
    left, up = (float(part) / place.distance_px for part in place.middle - corner)
    u = (x - left) * cosine + (y - up) * sine
    v = (y - up) * cosine - (x - left) * sine

    aside = (u / _CORNER_AT_D) ** 2
    fading = np.exp(-((u / _ASIDE_D) ** 2) / 2)
    at_seam = np.exp(-(((v - _SEAM_D) / _UPPER_REACH_D) ** 2) / 2)
    at_lower_lip = np.exp(-(((v - _LOWER_LIP_D * jaw) / _LOWER_REACH_D) ** 2) / 2)
    around = np.exp(-((u / _WIDTH_REACH_D) ** 2) / 2 - (((v - _SEAM_D) / _HEIGHT_REACH_D) ** 2) / 2)
    fall = (_CORNERS_FALL_D * jaw + _POUT_FALL_D * pout) * aside - _RISE_D * jaw
    down = fading * (at_seam * fall - at_lower_lip * (_POUT_LIFT_D * pout))
    inward = -u * around * (_CORNERS_IN * jaw + _POUT_IN * pout)

    # Backwards: what has moved down by a pixel is found a pixel further up.
    back_x = -(inward * cosine - down * sine) / per_pixel
    back_y = -(inward * sine + down * cosine) / per_pixel
    map_x, map_y = back_x + pixels, back_y + pixels[:, None]
    both = cv2.remap(np.dstack([*flow, alpha]), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    bent = np.stack([both[..., 0] + back_x * (2 / size), both[..., 1] + back_y * (2 / size)])
    return bent, np.ascontiguousarray(both[..., 2])
