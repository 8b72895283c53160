"""Styling the library's bob: the fringe is swept off the eye, and single hairs follow the painted flow.

Place in the flow: hair part of a ``Figure`` -> styled vertices and strands -> ``Scene``.

Invariants:
    * styling only turns vertices about the head's vertical axis, so hair keeps its distance from the head;
    * above the parting and on the other side nothing moves.
"""

from __future__ import annotations

import numpy as np

from engine.studio.figure import Part
from engine.studio.strands import Combing, comb, flow_along_texture

BOB = "bob02"
"""The hair part that this module styles."""

_HEIGHTS_DM = (-1.2, -0.5, -0.1, 0.15, 0.30, 0.45, 0.60, 0.80)
_FRINGE_EDGE_DEG = (-31.0, -27.0, -11.0, -1.0, 4.0, 10.0, 18.0, 28.0)
_SWEPT_EDGE_DEG = (-66.0, -62.0, -56.0, -45.0, -30.0, -8.0, 13.0, 28.0)
_BEHIND_DEG = -115.0
_AXIS_DEPTH_DM = 0.35


def sweep_fringe(points: np.ndarray, eye_height_dm: float) -> np.ndarray:
    """Comb the bob's fringe from the face to the side.

    Between the back of the head and the fringe's edge, angles about the head's axis are compressed evenly; how far
    depends on the height above the eyes.

    Args:
        points: (n, 3) hair vertices, unposed.
        eye_height_dm: height of the eyes.

    Returns:
        (n, 3) float32.
    """
    height = points[:, 1] - eye_height_dm
    depth = points[:, 2] - _AXIS_DEPTH_DM
    angle, radius = np.degrees(np.arctan2(points[:, 0], depth)), np.hypot(points[:, 0], depth)
    edge = np.interp(height, _HEIGHTS_DM, _FRINGE_EDGE_DEG)
    swept = np.interp(height, _HEIGHTS_DM, _SWEPT_EDGE_DEG)
    share = (angle - _BEHIND_DEG) / (edge - _BEHIND_DEG)
    beyond = swept + (angle - edge) * np.clip(1 - (edge - swept) / 60, 0.3, 1)
    combed = np.where(share < 1, _BEHIND_DEG + (swept - _BEHIND_DEG) * share, beyond)
    fringe = np.clip((edge + 28 - angle) / 14, 0, 1) * (angle > _BEHIND_DEG)
    turned = np.radians(angle + (combed - angle) * fringe)
    styled = np.stack([radius * np.sin(turned), points[:, 1], _AXIS_DEPTH_DM + radius * np.cos(turned)], axis=1)
    return styled.astype(np.float32)


def bob_strands(part: Part, points: np.ndarray, combing: Combing) -> np.ndarray:
    """Single hairs over the bob.

    Args:
        part: the hair part.
        points: (n, 3) its styled vertices.
        combing: how the hairs lie.

    Returns:
        (hairs, points, 3) float32.
    """
    centre = part.polygon_uv.mean(axis=1)
    u, v = centre[:, 0], centre[:, 1]
    # One piece of the painted texture lies tilted by 30 degrees in the sheet; everywhere else hair runs down.
    tilted = (u > 0.29) & (u < 0.70) & (v > np.maximum(0.78 - 1.06 * (u - 0.28), 0.62 + 0.65 * (u - 0.46) - 0.015))
    direction = np.where(tilted[:, None], np.array([[0.5, -0.866]]), np.array([[0.0, -1.0]]))
    flow = flow_along_texture(points, part.polygons, part.polygon_uv, direction)
    return comb(points, part.polygons, flow, combing)
