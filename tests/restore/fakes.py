"""Restorers that need no weights: what they do to a face can be told from the picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from engine.errors import BackendFailed
from engine.restore.window import Window


class FakeEnhancer:
    """Sharpens faces, and does with their colours and details what is asked for.

    Args:
        size: side of the aligned face, pixels.
        sharpness: weight of the unsharp mask.
        cast: factors of blue, green and red.
        noise: standard deviation of details that are different in every call, grey levels.
        batch: see ``Enhancer``.

    Attributes:
        calls: (faces, window) of each call.
        fails_after: calls after which every further one fails.
    """

    def __init__(
        self,
        size: int = 512,
        sharpness: float = 0.0,
        cast: tuple[float, float, float] = (1.0, 1.0, 1.0),
        noise: float = 0.0,
        batch: int = 1,
    ) -> None:
        self.size, self.batch = size, batch
        self.calls: list[tuple[np.ndarray, Window]] = []
        self.warmed: list[tuple[list[int], list[Window]]] = []
        self.fails_after: int | None = None
        self._sharpness, self._cast, self._noise = sharpness, cast, noise
        self._random = np.random.default_rng(5)

    def enhance(self, faces: np.ndarray, window: Window) -> np.ndarray:
        if self.fails_after is not None and len(self.calls) >= self.fails_after:
            raise BackendFailed("restore_failed", "The device is gone.")
        assert faces.dtype == np.uint8 and faces.shape[1:] == (self.size, self.size, 3)
        self.calls.append((faces, window))
        return np.stack([self._one(face.astype(np.float32))[window.slices] for face in faces])

    def warmup(self, batch_sizes: Sequence[int], windows: Sequence[Window]) -> None:
        self.warmed.append((list(batch_sizes), list(windows)))

    def _one(self, face: np.ndarray) -> np.ndarray:
        if self._sharpness:
            face = face + self._sharpness * (face - cv2.GaussianBlur(face, (0, 0), 2.5))
        face = face * np.array(self._cast, np.float32)
        if self._noise:
            grain = self._random.normal(0, 1, face.shape[:2]).astype(np.float32)
            grain = cv2.GaussianBlur(grain, (0, 0), 1.2)
            face = face + (self._noise / grain.std() * grain)[..., None]
        return np.clip(np.rint(face), 0, 255).astype(np.uint8)


LANDMARKS = np.array([[205, 215], [290, 212], [250, 262], [212, 303], [288, 300]], np.float32)
"""Of ``drawn_face``."""
BOX = (230, 380, 180, 320)


def drawn_face(opening: float = 0.5, shift: float = 0.0) -> np.ndarray:
    """(512, 512, 3) uint8 BGR: skin with pores and shading, a mouth open by ``opening``, moved right by ``shift``."""
    y, x = np.mgrid[0:512, 0:512].astype(np.float32)
    x = x - shift
    picture = np.full((512, 512, 3), (120, 150, 200), np.float32)
    picture *= (1.1 - 0.0006 * np.hypot(x - 230, y - 250))[..., None]
    picture += (3 * np.sin(x / 2.3) * np.sin(y / 2.9))[..., None]
    for cx, cy in LANDMARKS[:2]:
        picture[np.hypot((x - cx) / 16, (y - cy) / 7) < 1] = (60, 60, 60)
    radius = np.hypot((x - 250) / 36, (y - 304) / (8 + 20 * opening))
    picture[radius < 1] = (110, 100, 180)
    picture[radius < 0.7] = (40, 30, 60)
    return cv2.GaussianBlur(np.clip(picture, 0, 255), (0, 0), 1.0).round().astype(np.uint8)
