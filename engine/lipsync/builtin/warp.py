"""Puts the picture network's layers onto the avatar's face at its own resolution.

Place in the flow: idle frame + flow, alpha, shade of the network + drawn inside of the mouth -> image of a face patch.

Invariants:
    * flow 0 and alpha 0 return the idle frame's pixels bit for bit;
    * colours of skin and lips come from the idle frame itself; teeth and tongue are drawn ones in the network's light.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.lipsync.builtin.mouth_inside import MouthInside, Place

GATE_SLOPE = 12.0
"""The network fades its layers in from rest by tanh(this x the strongest mouth shape)."""
_LEAST_ALPHA = 0.02
_FEATHER = 0.14
_LIP_EDGE_PX = 1.6
"""Width of the step from lip to opening in the finished picture; a network's edge is about three of its pixels wide."""
_NETWORK_EDGE_PX = 2.4
_CONTOUR_BLUR_PX = 0.8
"""Rounds the opening's outline, pixels of the network: single doubtful pixels would become holes in the lip."""
_LIP_SHADOW = 0.15
"""How much of the light the upper lip takes from the teeth right below it."""
_SHADOW_PX, _SHADOW_BLUR_PX = 2.0, 1.5


def feather_mask(side: int) -> np.ndarray:
    """(side, side) uint8: 255 inside, falling smoothly to 0 over the outer 14 %."""
    ramp = np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5) / (_FEATHER * side), 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return np.round(255 * np.outer(smooth, smooth)).astype(np.uint8)


def cut(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The pixels of a box (y1, y2, x1, x2), the frame's border repeated where the box reaches beyond it."""
    y1, y2, x1, x2 = (int(edge) for edge in box)
    if y1 >= 0 and x1 >= 0 and y2 <= frame.shape[0] and x2 <= frame.shape[1]:
        return frame[y1:y2, x1:x2]
    rows = np.clip(np.arange(y1, y2), 0, frame.shape[0] - 1)
    columns = np.clip(np.arange(x1, x2), 0, frame.shape[1] - 1)
    return frame[rows[:, None], columns]


def speak(
    frame: np.ndarray,
    box: np.ndarray,
    layers: tuple[np.ndarray, np.ndarray, np.ndarray],
    inside: MouthInside,
    place: Place,
    mouth: np.ndarray,
) -> np.ndarray:
    """The face in a box with the mouth that the network's layers describe.

    Args:
        frame: (H, W, 3) uint8 BGR idle frame.
        box: y1, y2, x1, x2 of the square crop, pixels; may reach beyond the frame.
        layers: flow (2, s, s) float32 backward warp x, y in grid units (1 = half the crop); alpha (s, s) float32 in
            [0, 1]; shade (3, c, c) float32 BGR factors on the inside.
        inside: teeth and tongue in this face's size.
        place: where they are in the frame.
        mouth: (10,) float32 in [0, 1].

    Returns:
        (side, side, 3) uint8 BGR.
    """
    flow, alpha, shade = layers
    alpha = cv2.GaussianBlur(alpha, (0, 0), _CONTOUR_BLUR_PX)
    y1, y2, x1, x2 = (int(edge) for edge in box)
    side = y2 - y1
    shift = [cv2.resize(axis, (side, side), interpolation=cv2.INTER_LINEAR) * (side / 2) for axis in flow]
    x = shift[0] + np.arange(x1, x2, dtype=np.float32)
    y = shift[1] + np.arange(y1, y2, dtype=np.float32)[:, None]
    image = cv2.remap(frame, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    window = _shown(alpha, side)
    if window is None:
        return image
    rows, columns = (np.arange(*edges) + 0.5 for edges in window)
    teeth = inside.draw(rows + y1, columns + x1, place, mouth)
    # Pixel centres of the window map to pixel centres of the layers exactly as resizing the whole would.
    scale = side / alpha.shape[0]
    map_x, map_y = np.meshgrid((columns / scale - 0.5).astype(np.float32), (rows / scale - 0.5).astype(np.float32))
    light = cv2.remap(_light(alpha, shade), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.remap(alpha, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    sharper = max(_NETWORK_EDGE_PX * scale / _LIP_EDGE_PX, 1.0)
    # The network's opening fades in from rest by this factor; the lips' edge is sharpened without it.
    faded = np.float32(np.tanh(GATE_SLOPE * mouth.max()))
    share = faded * np.clip((share / faded - 0.5) * np.float32(sharper) + 0.5, 0, 1)[..., None]
    region = image[window[0][0] : window[0][1], window[1][0] : window[1][1]]
    mixed = region + share * (teeth * light - region)
    np.copyto(region, np.clip(np.rint(mixed), 0, 255), casting="unsafe")
    return image


def _shown(alpha: np.ndarray, side: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Rows and columns of a picture of that side that alpha reaches, or None."""
    scale = side / alpha.shape[0]
    shown = alpha >= _LEAST_ALPHA
    if not shown.any():
        return None
    edges = []
    for axis in (1, 0):
        indices = np.flatnonzero(shown.any(axis))
        edges.append((max(int((indices[0] - 1) * scale), 0), min(int(np.ceil((indices[-1] + 2) * scale)), side)))
    return edges[0], edges[1]


def _light(alpha: np.ndarray, shade: np.ndarray) -> np.ndarray:
    """(s, s, 3) float32: the network's light, weaker where the upper lip is close above."""
    size = alpha.shape[0]
    down = np.array([[1, 0, 0], [0, 1, _SHADOW_PX]], np.float32)
    reach = cv2.GaussianBlur(cv2.warpAffine(alpha, down, (size, size)), (0, 0), _SHADOW_BLUR_PX)
    factor = (1 - _LIP_SHADOW) + _LIP_SHADOW * reach
    return cv2.resize(shade.transpose(1, 2, 0), (size, size), interpolation=cv2.INTER_LINEAR) * factor[..., None]
