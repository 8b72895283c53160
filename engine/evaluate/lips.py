"""The mouth of a tracked face as a few numbers, and how still the rest of the face is.

Place in the flow: pictures -> ``track_faces`` -> points (468 per picture) -> openings, ``lip_shape`` -> experts.

Invariants:
    * lengths are in units of the distance between the outer corners of the eyes, angles do not matter, so faces of any
      size and roll compare;
    * pictures without a face have NaN everywhere, so that nobody mistakes them for shut lips.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.avatar.landmarks import EYE_CORNERS_LEFT, EYE_CORNERS_RIGHT, POINTS, FaceMesh, FaceTrack

SHUT_GAP = 0.02
"""Lips this little further apart than at rest count as shut: some 2 mm on a grown face."""

LIP_NUMBERS = 14
"""What ``lip_shape`` measures: see there."""

_EYES = (EYE_CORNERS_LEFT[0], EYE_CORNERS_RIGHT[1])
_INNER = (((13, 14), (82, 87), (312, 317)), ((81, 178), (311, 402)), ((80, 88), (310, 318)))
_OUTER = (((0, 17), (37, 84), (267, 314)), ((39, 181), (269, 405)))
_CORNERS, _INNER_CORNERS = (61, 291), (78, 308)
_NOSE_BOTTOM, _BROW_MIDDLE, _CHIN = 2, 168, 152
_RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 10, 151, 9, 8)
"""Points that no expression moves much: eye corners, nose, middle of the forehead."""


def track_faces(pictures: Iterable[np.ndarray], mesh: FaceMesh) -> np.ndarray:
    """Follows the largest face along a video.

    Args:
        pictures: (H, W, 3) uint8 BGR each.
        mesh: the networks.

    Returns:
        (N, 468, 3) float32 pixels; NaN where there is no face.
    """
    track = FaceTrack(mesh)
    found = [track.next(picture) for picture in pictures]
    nothing = np.full((POINTS, 3), np.nan, np.float32)
    points = [nothing if face is None else face.points for face in found]
    return np.stack(points) if points else np.zeros((0, POINTS, 3), np.float32)


def lip_shape(points: np.ndarray) -> np.ndarray:
    """The mouth as numbers that neither size nor roll of the face changes.

    Args:
        points: (N, 468, 3) pixels.

    Returns:
        (N, LIP_NUMBERS) float32: inner gap in the middle, beside it and near the corners; outer height in the middle
        and beside it; outer and inner width; thickness of both lips; nose to upper lip; lower lip to chin; brow to
        chin; how far both lips stick out of the corners; how far the corners lie above the middle of the lips.
    """
    flat = points[..., :2].astype(np.float64)
    unit = np.linalg.norm(flat[:, _EYES[1]] - flat[:, _EYES[0]], axis=-1)
    across = (flat[:, _EYES[1]] - flat[:, _EYES[0]]) / unit[:, None]
    down = np.stack([-across[:, 1], across[:, 0]], -1)

    def gap(*pairs: tuple[int, int]) -> np.ndarray:
        return np.mean([np.linalg.norm(flat[:, a] - flat[:, b], axis=-1) for a, b in pairs], 0)

    middle, corners = flat[:, [13, 14]].mean(1), flat[:, list(_CORNERS)].mean(1)
    numbers = [
        *[gap(*pairs) for pairs in _INNER],
        *[gap(*pairs) for pairs in _OUTER],
        gap(_CORNERS),
        gap(_INNER_CORNERS),
        gap((0, 13)),
        gap((14, 17)),
        gap((_NOSE_BOTTOM, 0)),
        gap((17, _CHIN)),
        gap((_BROW_MIDDLE, _CHIN)),
        points[:, list(_CORNERS), 2].mean(1) - points[:, [0, 17], 2].mean(1),
        ((middle - corners) * down).sum(-1),
    ]
    return (np.stack(numbers, -1) / unit[:, None]).astype(np.float32)


def tremor(points: np.ndarray) -> float:
    """How much rigid points of the face move against each other from picture to picture, once its motion is removed.

    Args:
        points: (N, 468, 3) pixels.

    Returns:
        Root mean square step in thousandths of the eye distance; NaN with fewer than two neighbouring faces.
    """
    rigid = points[:, list(_RIGID), :2].astype(np.float64)
    unit = np.linalg.norm(rigid[:, 3] - rigid[:, 0], axis=-1)
    steps = []
    for before, after, scale in zip(rigid[:-1], rigid[1:], unit[1:], strict=True):
        if np.isfinite(before).all() and np.isfinite(after).all():
            steps.append(np.mean(np.sum((_laid_over(before, after, before) - after) ** 2, -1)) / scale**2)
    return 1000 * float(np.sqrt(np.mean(steps))) if steps else float("nan")


def mouth_error(points: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of the lip points of two videos of one face, after their heads are laid over each other.

    Args:
        points: (N, 468, 3) pixels.
        truth: (M, 468, 3) pixels; the shorter video counts.

    Returns:
        In units of the eye distance; NaN when there is no common picture with a face.
    """
    errors = []
    lips = sorted({index for pairs in (*_INNER, *_OUTER) for pair in pairs for index in pair} | {*_CORNERS})
    for ours, theirs in zip(points[..., :2].astype(np.float64), truth[..., :2].astype(np.float64), strict=False):
        if np.isfinite(ours).all() and np.isfinite(theirs).all():
            laid = _laid_over(ours[list(_RIGID)], theirs[list(_RIGID)], ours[lips])
            unit = np.linalg.norm(theirs[_EYES[1]] - theirs[_EYES[0]])
            errors.append(np.linalg.norm(laid - theirs[lips], axis=-1).mean() / unit)
    return float(np.mean(errors)) if errors else float("nan")


def _laid_over(source: np.ndarray, target: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Moves points by the shift, turn and scale that lays ``source`` over ``target`` best; all (K, 2)."""
    # In the plane a turn and a scale are one complex factor.
    plane = np.array([1, 1j])
    a, b = (source - source.mean(0)) @ plane, (target - target.mean(0)) @ plane
    factor = (b * a.conj()).sum() / (np.abs(a) ** 2).sum()
    result = ((moved - source.mean(0)) @ plane) * factor
    return np.stack([result.real, result.imag], -1) + target.mean(0)
