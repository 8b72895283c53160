"""Puts the picture network's layers onto the avatar's face at its own resolution.

Place in the flow: idle frame + flow, interior, alpha of the network -> image of a face patch.

Invariants:
    * flow 0 and alpha 0 return the idle frame's pixels bit for bit;
    * colours of skin and lips come from the idle frame itself, only the inside of the mouth is the network's.
"""

from __future__ import annotations

import cv2
import numpy as np

_LEAST_ALPHA = 1 / 255
_FEATHER = 0.14


def feather_mask(side: int) -> np.ndarray:
    """(side, side) uint8: 255 inside, falling smoothly to 0 over the outer 14 %."""
    ramp = np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5) / (_FEATHER * side), 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return np.round(255 * np.outer(smooth, smooth)).astype(np.uint8)


def cut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The pixels of a box (y1, y2, x1, x2), the frame's border repeated where the box reaches beyond it."""
    y1, y2, x1, x2 = (int(edge) for edge in box)
    rows = np.clip(np.arange(y1, y2), 0, frame.shape[0] - 1)
    columns = np.clip(np.arange(x1, x2), 0, frame.shape[1] - 1)
    return frame[rows[:, None], columns]


def speak(frame: np.ndarray, box: np.ndarray, flow: np.ndarray, interior: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The face in a box with the mouth that the network's layers describe.

    Args:
        frame: (H, W, 3) uint8 BGR idle frame.
        box: y1, y2, x1, x2 of the square crop, pixels; may reach beyond the frame.
        flow: (2, s, s) float32 backward warp x, y in grid units (1 = half the crop).
        interior: (3, s, s) float32 BGR in [0, 1].
        alpha: (s, s) float32 in [0, 1].

    Returns:
        (side, side, 3) uint8 BGR.
    """
    y1, y2, x1, x2 = (int(edge) for edge in box)
    side = y2 - y1
    shift = [cv2.resize(axis, (side, side), interpolation=cv2.INTER_LINEAR) * (side / 2) for axis in flow]
    x = shift[0] + np.arange(x1, x2, dtype=np.float32)
    y = shift[1] + np.arange(y1, y2, dtype=np.float32)[:, None]
    image = cv2.remap(frame, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    _blend_interior(image, interior, alpha)
    return image


def _blend_interior(image: np.ndarray, interior: np.ndarray, alpha: np.ndarray) -> None:
    """Lays the interior over the image in place, touching only the rows and columns where alpha is not zero."""
    side, small = image.shape[0], alpha.shape[0]
    shown = alpha >= _LEAST_ALPHA
    if not shown.any():
        return
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    # One pixel of the network's picture around it, so that enlarging sees the same neighbours.
    top, bottom = max(rows[0] - 1, 0), min(rows[-1] + 2, small)
    left, right = max(columns[0] - 1, 0), min(columns[-1] + 2, small)
    scale = side / small
    y1, y2 = int(top * scale), min(int(np.ceil(bottom * scale)), side)
    x1, x2 = int(left * scale), min(int(np.ceil(right * scale)), side)
    layers = np.ascontiguousarray(np.concatenate([interior * 255, alpha[None]])[:, top:bottom, left:right])
    # Pixel centres of the region map to pixel centres of the layers exactly as resizing the whole would.
    x = (np.arange(x1, x2) + 0.5) / scale - 0.5 - left
    y = (np.arange(y1, y2) + 0.5) / scale - 0.5 - top
    map_x, map_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    enlarged = cv2.remap(layers.transpose(1, 2, 0), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    region = image[y1:y2, x1:x2]
    share = enlarged[..., 3:]
    mixed = region + share * (enlarged[..., :3] - region)
    np.copyto(region, np.clip(np.rint(mixed), 0, 255), casting="unsafe")
