"""Brings parted lips together: an avatar rests with its mouth closed, also when its photo smiles with its teeth.

Place in the flow: portrait picture + face mesh -> ``close_lips`` -> picture at rest.

Both lips move as they are, towards the line where they meet; the skin between lip and nose, and between lip and chin,
gives way.

Invariant: nothing changes beyond the nose, the chin and a little beside the mouth's corners.
"""

from __future__ import annotations

import cv2
import numpy as np

CLOSED_OPENING = 0.065
"""``lip_opening`` up to which lips count as closed; the mesh never measures 0."""
WIDEST_OPENING = 0.24
"""``lip_opening`` up to which closing lips looks right; beyond it, jaw and cheeks have moved too."""

_UPPER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
_LOWER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
_NOSE_BASE = 2
_CHIN = 152
_MARGIN_PER_GAP = 0.12
_MARGIN_PER_WIDTH = 0.014
"""The lips' inner edges are taken this much further out, so that no rim of the teeth moves along."""
_MEETING = 0.45
"""Where the lips meet, from the upper one's edge to the lower one's."""
_CHIN_SHARE = 0.62
"""How far down the chin the skin gives way."""
_SEAM_STRENGTH = 0.42
_SEAM_PER_WIDTH = 0.016


def close_lips(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The same face with closed lips.

    Args:
        picture: (H, W, 3) uint8 BGR.
        points: (468, 2 or 3) its face mesh in pixels.

    Returns:
        (H, W, 3) uint8 BGR, a copy.
    """
    flat = points[:, :2].astype(np.float64)
    corner, across = flat[_UPPER[0]], flat[_UPPER[-1]] - flat[_UPPER[0]]
    width = float(np.linalg.norm(across))
    axis = across / width
    down = np.array([-axis[1], axis[0]])
    height_px, width_px = picture.shape[:2]
    columns, rows = np.meshgrid(np.arange(width_px, dtype=np.float32), np.arange(height_px, dtype=np.float32))
    grid = np.stack([columns, rows], -1) - corner
    u, v = grid @ axis / width, grid @ down
    upper, lower = (_edge(flat[list(line)] - corner, axis, down, width, u) for line in (_UPPER, _LOWER))
    # Towards the corners, and a little beyond them, the gap closes by itself.
    taper = np.clip((0.62 - np.abs(u - 0.5)) / 0.14, 0, 1)
    taper = taper * taper * (3 - 2 * taper)
    gap = np.maximum(lower - upper, 0) * taper
    margin = (_MARGIN_PER_GAP * gap.max() + _MARGIN_PER_WIDTH * width) * taper
    upper, lower = upper - margin, lower + margin
    meeting = upper + _MEETING * (lower - upper)
    nose = (flat[_NOSE_BASE] - corner) @ down
    chin = lower + _CHIN_SHARE * ((flat[_CHIN] - corner) @ down - lower)
    from_above = _given_way(v, nose, upper, (meeting - upper) * taper)
    from_below = -_given_way(-v, -chin, -lower, (lower - meeting) * taper)
    came = np.where(v < meeting, from_above, from_below)
    shift = (came - v).astype(np.float32)
    closed = cv2.remap(
        picture,
        columns + shift * np.float32(down[0]),
        rows + shift * np.float32(down[1]),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    seam = np.exp(-np.square((v - meeting) / max(1.0, _SEAM_PER_WIDTH * width))) * taper
    seam *= _SEAM_STRENGTH * np.clip(gap / (0.04 * width), 0, 1)
    lips = picture[(np.abs(v - (lower + 0.05 * width)) < 0.03 * width) & (np.abs(u - 0.5) < 0.3)]
    shade = 0.35 * lips.mean(0) if len(lips) else np.zeros(3)
    closed += seam[..., None] * np.minimum(shade - closed, 0)
    return np.clip(np.rint(closed), 0, 255).astype(np.uint8)


def _given_way(v: np.ndarray, start: np.ndarray | float, edge: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Where each v comes from when ``edge`` has moved on by ``way`` and everything before ``start`` stayed."""
    room = np.maximum(edge - start, 1.0)
    stretch = way / room
    share = np.clip((v - start) / room / (1 + stretch), 0, 1)
    # Not level at the edge: the lip takes part in the stretch and gets fuller, as it does when a smile closes.
    return v - stretch * room * share * share * (2 - share)


def _edge(line: np.ndarray, axis: np.ndarray, down: np.ndarray, width: float, u: np.ndarray) -> np.ndarray:
    """v of a lip's edge at every u, a smooth curve through its points, level beyond the corners."""
    weights = np.ones(len(line))
    weights[[0, -1]] = 12
    return np.polyval(np.polyfit(line @ axis / width, line @ down, 4, w=weights), np.clip(u, 0, 1))
