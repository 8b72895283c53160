"""Brings the mouth of somebody who talks to rest, picture by picture, while head, eyes and hair go on as filmed.

Place in the flow: pictures of a clip with their face meshes + the one with the most closed lips -> ``RestMouth`` ->
the same pictures with the mouth at rest.

The jaw is moved to where it would be at rest in the head's present pose; then the resting mouth, bent into that pose
and matched in colour, is laid over it. Both layers show the same shape, so there is no seam to hide.

Invariant: nothing from the eyes up changes.
"""

from __future__ import annotations

import cv2
import numpy as np

_STEADY = (
    10, 67, 109, 338, 297, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 127, 356, 234, 454, 93, 323, 33, 133, 362, 263, 116,
    345, 117, 346,
)  # fmt: skip
"""Mesh points that speech does not move: forehead, nose, temples, corners of the eyes, cheekbones."""
_MOUTH_CORNERS = (61, 291)
_LIPS_MIDDLE = (13, 14)
_NOSE_BASE = 2
_CHIN = 152
_EYES = (33, 263)

_GRID = 96
"""Bends are solved on a coarse grid around the face: they are smooth."""
_GRID_RUNS = 160
_REACH_PER_FACE = 0.72
_BORDER_PER_FACE = 0.62
_SIDE_PER_HALF_MOUTH = 1.55
_FEATHER = 0.45
_MATCH_PER_FACE = 0.09


class RestMouth:
    """Lays one resting mouth over other pictures of the same face.

    Args:
        picture: (H, W, 3) uint8 BGR, lips closed.
        points: (468, 3) float32 its face mesh in pixels.
    """

    def __init__(self, picture: np.ndarray, points: np.ndarray) -> None:
        self._picture, self._points = picture.astype(np.float32), points
        self._weights = _jaw_weights(points)[:, None]

    def pose(self, points: np.ndarray) -> np.ndarray:
        """The mesh as it would be with the mouth at rest.

        Args:
            points: (468, 3) mesh of another picture.

        Returns:
            (468, 3) float32.
        """
        posed = _carried(self._points, self._points[list(_STEADY)], points[list(_STEADY)])
        return (points + self._weights * (posed - points)).astype(np.float32)

    def draw(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        """A picture with its mouth at rest.

        Args:
            picture: (H, W, 3) uint8 BGR.
            points: (468, 3) its face mesh.

        Returns:
            (H, W, 3) uint8 BGR, a copy.
        """
        rest = self.pose(points)
        face = float(np.ptp(rest[:, 1]))
        middle = rest[:, :2].mean(0)
        reach = _REACH_PER_FACE * face
        low = np.maximum(np.floor(middle - reach), 0).astype(int)
        high = np.minimum(np.ceil(middle + reach), picture.shape[1::-1]).astype(int)
        place = np.s_[low[1] : high[1], low[0] : high[0]]
        columns, rows = np.meshgrid(
            np.arange(low[0], high[0], dtype=np.float32), np.arange(low[1], high[1], dtype=np.float32)
        )
        distance = np.hypot(columns - middle[0], rows - middle[1]) / face
        still = distance > _BORDER_PER_FACE
        jaw = _bend(rest[:, :2], points[:, :2] - rest[:, :2], low, high, still)
        under = _bent(picture.astype(np.float32), columns, rows, jaw)
        mouth = _bend(rest[:, :2], self._points[:, :2] - rest[:, :2], low, high, None)
        over = _bent(self._picture, columns, rows, mouth)
        mask = _mouth_mask(rest, columns, rows)
        over = over + _offset(under - over, mask, _MATCH_PER_FACE * face)
        result = under + mask[..., None] * (over - under)
        drawn = picture.copy()
        drawn[place] = np.clip(np.rint(result), 0, 255).astype(np.uint8)
        # What the bend left alone keeps its bits, save for the mouth itself.
        same = (np.abs(jaw).max(0) < 0.02) & (mask == 0)
        drawn[place][same] = picture[place][same]
        return drawn


def _carried(points: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Points moved by the turn, scale and shift that best bring ``before`` onto ``after`` (Umeyama, 1991)."""
    centre, goal = before.mean(0), after.mean(0)
    one, other = before - centre, after - goal
    u, size, vt = np.linalg.svd(other.T @ one)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    turn = u @ flip @ vt
    scale = (size * np.diag(flip)).sum() / np.square(one).sum()
    return scale * (points - centre) @ turn.T + goal


def _jaw_weights(points: np.ndarray) -> np.ndarray:
    """(468,) how much of a point belongs to what speech moves: 0 down to the nose's tip, 1 from its base on."""
    eyes = points[list(_EYES), :2].mean(0)
    down = points[_CHIN, :2] - eyes
    below = (points[:, :2] - eyes) @ down / (down @ down)
    nose = float((points[_NOSE_BASE, :2] - eyes) @ down / (down @ down))
    share = np.clip((below - (nose - 0.14)) / 0.17, 0, 1)
    return share * share * (3 - 2 * share)


def _bend(
    places: np.ndarray, shifts: np.ndarray, low: np.ndarray, high: np.ndarray, still: np.ndarray | None
) -> np.ndarray:
    """(2, h, w) float32 smooth field with given shifts at given places, 0 where ``still``."""
    width, height = high - low
    scale = np.array([_GRID / width, _GRID / height])
    cells = np.clip(((places - low) * scale).astype(int), 0, _GRID - 1)
    number = np.zeros((_GRID, _GRID))
    np.add.at(number, (cells[:, 1], cells[:, 0]), 1)
    total = np.zeros((_GRID, _GRID, 2))
    np.add.at(total, (cells[:, 1], cells[:, 0]), shifts)
    known = (number > 0)[..., None]
    given = np.where(known, total / np.maximum(number, 1)[..., None], shifts.mean(0) if still is None else 0.0)
    if still is not None:
        held = cv2.resize(still.astype(np.uint8), (_GRID, _GRID), interpolation=cv2.INTER_NEAREST) > 0
        known = known | (held & (number == 0))[..., None]
    given = given.astype(np.float32)
    field = given.copy()
    for _ in range(_GRID_RUNS):
        field = np.where(known, given, cv2.blur(field, (3, 3), borderType=cv2.BORDER_REPLICATE))
    even = cv2.GaussianBlur(field, (0, 0), 1.0)
    wide = cv2.resize(even, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
    return np.moveaxis(wide, 2, 0)


def _bent(picture: np.ndarray, columns: np.ndarray, rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return cv2.remap(
        picture, columns + shift[0], rows + shift[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )  # fmt: skip


def _mouth_mask(points: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(h, w) float32: 1 on and around the lips, 0 from the nose's base up, on the chin's edge and on the cheeks."""
    left, right = points[list(_MOUTH_CORNERS), :2]
    across = right - left
    half = float(np.linalg.norm(across)) / 2
    axis = across / (2 * half)
    down = np.array([-axis[1], axis[0]])
    middle = points[list(_LIPS_MIDDLE), :2].mean(0)
    above = max(float((middle - points[_NOSE_BASE, :2]) @ down), 1.0)
    below = max(float((points[_CHIN, :2] - middle) @ down), 1.0)
    x, y = columns - middle[0], rows - middle[1]
    along, under = x * axis[0] + y * axis[1], x * down[0] + y * down[1]
    radius = np.hypot(along / (_SIDE_PER_HALF_MOUTH * half), under / np.where(under < 0, 1.02 * above, 0.92 * below))
    share = np.clip((1 - radius) / _FEATHER, 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


def _offset(difference: np.ndarray, mask: np.ndarray, blur_px: float) -> np.ndarray:
    """Difference of colours along the mask's rim, spread smoothly over its inside."""
    rim = (mask * (1 - mask) * 4).astype(np.float32) + 1e-4
    spread = cv2.GaussianBlur(rim, (0, 0), blur_px)[..., None]
    return cv2.GaussianBlur(difference * rim[..., None], (0, 0), blur_px) / spread
