"""468 points on every face of a picture or a video, in pixels, with depth.

Place in the flow: picture -> ``FaceMesh.find`` (or ``FaceTrack`` along a video) -> checks, crops, living pictures,
measured lips.

The mesh is MediaPipe's (Kartynnik et al., 2019; point numbers as in its canonical face), read from the wheel's file.

Invariants:
    * x and y are pixels of the picture given, z is in the same unit, smaller is nearer, 0 about the head's middle;
    * the same picture gives the same points; only a ``FaceTrack`` remembers anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.avatar.detect import Detection, FaceDetector
from engine.avatar.face_models import FaceNetwork, cut_square

POINTS = 468
EYE_CORNERS_LEFT = (33, 133)
"""Outer and inner corner of the eye on the image's left."""
EYE_CORNERS_RIGHT = (362, 263)
NOSE_TIP = 1
MOUTH_CORNERS = (61, 291)
INNER_LIP_PAIRS = ((13, 14), (82, 87), (312, 317))
"""Inner lips, upper and lower: the middle and a little to both sides."""

_MESH = "face_landmark/face_landmark"
_CROP_PER_FACE = 1.5
_LEAST_SCORE = 0.5
_SETTLING_RUNS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face.

    Attributes:
        points: (468, 3) float32 pixels x, y and depth z.
        score: that there is a face, in [0, 1].
        box: (4,) float32 y1, y2, x1, x2 in pixels, around all points.
    """

    points: np.ndarray
    score: float
    box: np.ndarray


class FaceMesh:
    """Face detector and mesh; ``load`` is the usual way. Use it from one thread at a time."""

    def __init__(self, detector: FaceDetector, mesh: FaceNetwork) -> None:
        self._detector, self._mesh = detector, mesh

    @classmethod
    def load(cls, threads: int = 1) -> FaceMesh:
        """Loads the networks from the installed wheel.

        Args:
            threads: threads of one run.

        Raises:
            BackendFailed: ``face_models_missing`` says how to install them; ``face_models_unreadable``.
        """
        return cls(FaceDetector(threads), FaceNetwork(_MESH, threads))

    def find(self, image: np.ndarray) -> list[Face]:
        """All faces of a picture, the largest first.

        Args:
            image: (H, W, 3) uint8 BGR.
        """
        faces = []
        for detection in self._detector(image):
            face = self._points(image, *_square_of_detection(detection))
            for _ in range(_SETTLING_RUNS):
                face = self._points(image, *_square_of_points(face.points))
            if face.score >= _LEAST_SCORE:
                faces.append(face)
        return faces

    def follow(self, image: np.ndarray, before: Face) -> Face | None:
        """The face again in the next picture of a video, or None where it is lost.

        Args:
            image: (H, W, 3) uint8 BGR.
            before: the face in the picture before.
        """
        face = self._points(image, *_square_of_points(before.points))
        return face if face.score >= _LEAST_SCORE else None

    def _points(self, image: np.ndarray, centre: np.ndarray, side: float, angle_rad: float) -> Face:
        crop, back = cut_square(image, centre, side, angle_rad, self._mesh.side)
        outputs = self._mesh(crop.astype(np.float32) / 255)
        raw = next(output for output in outputs if output.size == POINTS * 3).reshape(POINTS, 3)
        logit = float(next(output for output in outputs if output.size == 1))
        points = np.empty((POINTS, 3), np.float32)
        points[:, :2] = raw[:, :2] @ back[:, :2].T + back[:, 2]
        points[:, 2] = raw[:, 2] * (side / self._mesh.side)
        (x1, y1), (x2, y2) = points[:, :2].min(0), points[:, :2].max(0)
        score = 1 / (1 + np.exp(-np.clip(logit, -80, 80)))
        return Face(points, float(score), np.array([y1, y2, x1, x2], np.float32))


class FaceTrack:
    """Follows the largest face along a video: found once, then looked for where it was, found anew when lost.

    Args:
        mesh: its networks.
    """

    def __init__(self, mesh: FaceMesh) -> None:
        self._mesh = mesh
        self._last: Face | None = None

    def next(self, image: np.ndarray) -> Face | None:
        """The face in the next picture, or None where there is none.

        Args:
            image: (H, W, 3) uint8 BGR.
        """
        face = self._mesh.follow(image, self._last) if self._last is not None else None
        if face is None:
            found = self._mesh.find(image)
            face = found[0] if found else None
        self._last = face
        return face


def five_landmarks(points: np.ndarray) -> np.ndarray:
    """The five landmarks of an avatar bundle.

    Args:
        points: (..., 468, 2 or 3) pixels.

    Returns:
        (..., 5, 2) float32: eye centres, nose tip, mouth corners, image left before image right.
    """
    flat = points[..., :2]
    left = flat[..., EYE_CORNERS_LEFT, :].mean(-2)
    right = flat[..., EYE_CORNERS_RIGHT, :].mean(-2)
    mouth = flat[..., MOUTH_CORNERS, :]
    return np.stack([left, right, flat[..., NOSE_TIP, :], mouth[..., 0, :], mouth[..., 1, :]], -2).astype(np.float32)


def lip_opening(points: np.ndarray) -> np.ndarray:
    """Distance of the inner lips per distance of the outer eye corners, whatever the face's size.

    Args:
        points: (..., 468, 2 or 3) pixels.

    Returns:
        (...) float, 0 with closed lips, about 0.3 wide open.
    """
    flat = points[..., :2]
    eyes = np.linalg.norm(flat[..., EYE_CORNERS_RIGHT[1], :] - flat[..., EYE_CORNERS_LEFT[0], :], axis=-1)
    gaps = [np.linalg.norm(flat[..., upper, :] - flat[..., lower, :], axis=-1) for upper, lower in INNER_LIP_PAIRS]
    return np.mean(gaps, 0) / eyes


def _square_of_detection(face: Detection) -> tuple[np.ndarray, float, float]:
    y1, y2, x1, x2 = face.box
    across = face.keys[1] - face.keys[0]
    side = _CROP_PER_FACE * float(max(y2 - y1, x2 - x1))
    return np.array([x1 + x2, y1 + y2]) / 2, side, float(np.arctan2(across[1], across[0]))


def _square_of_points(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    flat = points[:, :2].astype(np.float64)
    across = flat[EYE_CORNERS_RIGHT[1]] - flat[EYE_CORNERS_LEFT[0]]
    angle = float(np.arctan2(across[1], across[0]))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = flat @ turn.T
    low, high = upright.min(0), upright.max(0)
    return turn.T @ ((low + high) / 2), _CROP_PER_FACE * float((high - low).max()), angle
