"""Outlines of both eyes, finer than the face mesh has them: where lids end is what a blink is drawn along.

Place in the flow: picture + face mesh -> ``EyeFinder`` -> ``blink``.

The network is MediaPipe's iris model (Ablavatski et al., 2020); it knows one eye and sees the other mirrored.

Invariant: outlines run from the image's left corner to its right one, for either eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.avatar.face_models import FaceNetwork, cut_square
from engine.avatar.landmarks import EYE_CORNERS_LEFT, EYE_CORNERS_RIGHT

_IRIS = "iris_landmark/iris_landmark"
_SQUARE_PER_EYE = 2.3
# Of the network's 71 outline points: corner, lower lid, corner; then the upper lid between them.
_LOWER = tuple(range(0, 9))
_UPPER = (0, 9, 10, 11, 12, 13, 14, 15, 8)
_BROWS = ((46, 53, 52, 65, 55), (285, 295, 282, 283, 276))


@dataclass(frozen=True, slots=True, eq=False)
class Eye:
    """One eye in pixels of the picture, from image left to image right.

    Attributes:
        upper: (9, 2) edge of the upper lid, with both corners.
        lower: (9, 2) edge of the lower lid, with both corners.
        iris: (5, 2) middle of the iris and four points on its rim.
        brow: (5, 2) lower edge of the eyebrow.
    """

    upper: np.ndarray
    lower: np.ndarray
    iris: np.ndarray
    brow: np.ndarray


class EyeFinder:
    """The network; use it from one thread at a time.

    Args:
        threads: threads of one run.

    Raises:
        BackendFailed: the network is missing or unreadable.
    """

    def __init__(self, threads: int = 1) -> None:
        self._network = FaceNetwork(_IRIS, threads)

    def __call__(self, image: np.ndarray, points: np.ndarray) -> tuple[Eye, Eye]:
        """Both eyes, the image's left one first.

        Args:
            image: (H, W, 3) uint8 BGR.
            points: (468, 3) face mesh in pixels.
        """
        left = self._find(image, points, EYE_CORNERS_LEFT, _BROWS[0], mirrored=False)
        right = self._find(image, points, EYE_CORNERS_RIGHT, _BROWS[1], mirrored=True)
        return left, right

    def _find(
        self, image: np.ndarray, points: np.ndarray, corners: tuple[int, int], brow: tuple[int, ...], *, mirrored: bool
    ) -> Eye:
        one, other = points[corners[0], :2].astype(float), points[corners[1], :2].astype(float)
        across = other - one
        angle = float(np.arctan2(across[1], across[0]))
        side = _SQUARE_PER_EYE * float(np.linalg.norm(across))
        crop, back = cut_square(image, (one + other) / 2, side, angle, self._network.side)
        if mirrored:
            crop = crop[:, ::-1]
        outputs = self._network(crop.astype(np.float32) / 255)
        outline = next(output for output in outputs if output.size == 213).reshape(71, 3)[:, :2]
        iris = next(output for output in outputs if output.size == 15).reshape(5, 3)[:, :2]
        if mirrored:
            mirror = np.array([-1.0, 1.0])
            shift = np.array([self._network.side - 1.0, 0.0])
            outline, iris = outline * mirror + shift, iris * mirror + shift
        outline, iris = outline @ back[:, :2].T + back[:, 2], iris @ back[:, :2].T + back[:, 2]
        way = slice(None, None, -1) if mirrored else slice(None)
        return Eye(outline[list(_UPPER)][way], outline[list(_LOWER)][way], iris, points[list(brow), :2].astype(float))
