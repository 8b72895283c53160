"""Pictures between two pictures of one video: what moved is moved part of the way, so nothing appears twice.

Place in the flow: two frames of a clip -> ``between`` -> an eased turning point, or a cut nobody sees.

Invariant: share 0 gives the first picture and share 1 the second, bit for bit.
"""

from __future__ import annotations

import cv2
import numpy as np


def between(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """A picture ``share`` of the way from one picture to another.

    Args:
        first, second: (H, W, 3) uint8 BGR, alike but for movement.
        share: in [0, 1].

    Returns:
        (H, W, 3) uint8 BGR.
    """
    if share <= 0:
        return first.copy()
    if share >= 1:
        return second.copy()
    one, other = (cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in (first, second))
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forth, back = (finder.calc(*pair, np.zeros((*one.shape, 2), np.float32)) for pair in ((one, other), (other, one)))
    # Both flows speak of their own picture; for movements this small that stands for the picture between them, too.
    moved_first, moved_second = _pulled(first, forth, share), _pulled(second, back, 1 - share)
    return cv2.addWeighted(moved_first, 1 - share, moved_second, share, 0)


def _pulled(picture: np.ndarray, flow: np.ndarray, share: float) -> np.ndarray:
    height, width = picture.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        picture,
        columns - np.float32(share) * flow[..., 0],
        rows - np.float32(share) * flow[..., 1],
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
