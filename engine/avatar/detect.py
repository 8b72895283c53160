"""Finds faces in a picture: where they are, how sure that is, and roughly how they are turned.

Place in the flow: picture -> ``FaceDetector`` -> ``FaceMesh`` (468 points).

The two BlazeFace networks (Bazarevsky et al., 2019) look at the whole picture, one trained for near and one for
far faces; their finds are merged.

Invariant: results are sorted by size, the largest first, and no two of them are the same face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.avatar.face_models import FaceNetwork, cut_square

_NEAR = "face_detection/face_detection_short_range"
_FAR = "face_detection/face_detection_full_range_sparse"
_NEAR_SCORE = 0.5
_FAR_SCORE = 0.6
_SAME_FACE_OVERLAP = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One face as the detector sees it.

    Attributes:
        box: (4,) float32 y1, y2, x1, x2 in pixels.
        keys: (6, 2) float32 pixels: eye, eye (image left first), nose tip, mouth, ear, ear.
        score: in [0, 1].
    """

    box: np.ndarray
    keys: np.ndarray
    score: float


class FaceDetector:
    """Both detectors; use it from one thread at a time.

    Args:
        threads: threads of one run.

    Raises:
        BackendFailed: the networks are missing or unreadable.
    """

    def __init__(self, threads: int = 1) -> None:
        self._near, self._far = FaceNetwork(_NEAR, threads), FaceNetwork(_FAR, threads)
        # Anchor grids of the networks: cells of 8 pixels with two anchors and of 16 with six; cells of 4 with one.
        self._near_anchors = _anchors(self._near.side, ((8, 2), (16, 6)))
        self._far_anchors = _anchors(self._far.side, ((4, 1),))

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Faces of a picture, the largest first.

        Args:
            image: (H, W, 3) uint8 BGR.
        """
        found = self._run(self._near, self._near_anchors, image, _NEAR_SCORE)
        found += self._run(self._far, self._far_anchors, image, _FAR_SCORE)
        return sorted(_merged(found), key=lambda face: face.box[3] - face.box[2], reverse=True)

    def _run(self, network: FaceNetwork, anchors: np.ndarray, image: np.ndarray, least: float) -> list[Detection]:
        height, width = image.shape[:2]
        centre = np.array([width - 1, height - 1]) / 2
        crop, back = cut_square(image, centre, max(height, width), 0.0, network.side)
        outputs = network(crop.astype(np.float32) / 127.5 - 1)
        values = next(output for output in outputs if output.ndim == 2)
        logits = next(output for output in outputs if output.ndim == 1)
        scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
        chosen = scores >= least
        values, scores = values[chosen], scores[chosen]
        points = values.reshape(-1, 8, 2)
        places = np.concatenate([points[:, :1], points[:, 2:]], 1) + anchors[chosen][:, None]
        sizes = points[:, 1]
        places = places @ back[:, :2].T + back[:, 2]
        sizes = sizes * back[0, 0]
        found = []
        for place, size, score in zip(places, sizes, scores, strict=True):
            (x, y), (w, h) = place[0], size
            box = np.array([y - h / 2, y + h / 2, x - w / 2, x + w / 2], np.float32)
            found.append(Detection(box, place[1:].astype(np.float32), float(score)))
        return found


def _anchors(side: int, grids: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(N, 2) anchor centres in pixels of the network's input, in the order of its outputs."""
    rows = []
    for stride, repeats in grids:
        line = (np.arange(side // stride) + 0.5) * stride
        grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2)
        rows.append(np.broadcast_to(grid, (len(grid), repeats, 2)).reshape(-1, 2))
    return np.concatenate(rows)


def _merged(found: list[Detection]) -> list[Detection]:
    """Overlapping finds averaged by their scores, as BlazeFace's authors do against trembling boxes."""
    rest = sorted(found, key=lambda face: face.score, reverse=True)
    faces = []
    while rest:
        same = [face for face in rest if _overlap(rest[0].box, face.box) > _SAME_FACE_OVERLAP]
        weights = np.array([face.score for face in same], np.float32)
        weights /= weights.sum()
        box = np.tensordot(weights, np.stack([face.box for face in same]), 1)
        keys = np.tensordot(weights, np.stack([face.keys for face in same]), 1)
        faces.append(Detection(box, keys, rest[0].score))
        kept = {id(face) for face in same}
        rest = [face for face in rest if id(face) not in kept]
    return faces


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Shared area of two boxes over the smaller one's: a near and a far find of one face differ much in size."""
    height = min(one[1], other[1]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[2], other[2])
    if height <= 0 or width <= 0:
        return 0.0
    smaller = min((one[1] - one[0]) * (one[3] - one[2]), (other[1] - other[0]) * (other[3] - other[2]))
    return float(height * width / max(smaller, 1e-6))
