"""Pastes a predicted face back onto its idle picture, feathered by the patch's mask.

Place in the flow: LipSync -> FacePatch -> paste -> AvatarFrame.

Invariants:
    * the idle picture is never changed and shares no memory with the result;
    * only the patch's box is touched; where the mask is 0, or the patch equals the picture, pixels keep their bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from engine.lipsync.base import FacePatch


def paste(frame: np.ndarray, patch: FacePatch) -> np.ndarray:
    """Blends a patch into a copy of a picture.

    Args:
        frame: (H, W, 3) uint8 BGR.
        patch: its box may reach over the border of the picture; what lies outside is cut off.

    Returns:
        (H, W, 3) uint8 BGR, C-contiguous.
    """
    image = frame.copy()
    y1, y2, x1, x2 = patch.box
    height, width = frame.shape[:2]
    top, bottom, left, right = max(y1, 0), min(y2, height), max(x1, 0), min(x2, width)
    if top >= bottom or left >= right:
        return image
    face, mask = patch.image, patch.mask
    if face.shape[:2] != (y2 - y1, x2 - x1):
        face = cv2.resize(face, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
    if mask.shape[:2] != (y2 - y1, x2 - x1):
        mask = cv2.resize(mask, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
    inside = np.s_[top - y1 : bottom - y1, left - x1 : right - x1]
    face, mask = face[inside], mask[inside]
    region = image[top:bottom, left:right]
    # Blending the difference rounds once, so an unchanged face stays bit for bit what it was. Brighter and darker
    # parts go separately, because all of it then stays in saturating uint8, three times as fast as signed 16 bit.
    weights = cv2.cvtColor(np.ascontiguousarray(mask), cv2.COLOR_GRAY2BGR)
    brighter = cv2.multiply(cv2.subtract(face, region), weights, scale=1 / 255)
    darker = cv2.multiply(cv2.subtract(region, face), weights, scale=1 / 255)
    cv2.add(region, brighter, dst=region)
    cv2.subtract(region, darker, dst=region)
    return image
