"""Pictures of a face for tests: the avatar that comes with the project, and what can be done to it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from engine.avatar.prepare import CreateOptions
from engine.avatar.video import encode_loop

AVATARS = Path(__file__).resolve().parents[2] / "avatars"
SMALL = 256
"""Side of the avatars made in tests, pixels."""


def options(**changes: object) -> CreateOptions:
    return CreateOptions(**{"name": "test", "synthetic": True, "size": SMALL, "seconds": 4.0, **changes})


def save(path: Path, picture: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), picture)
    return path


def save_clip(path: Path, pictures: list[np.ndarray]) -> Path:
    encode_loop(path, np.stack(pictures), crf=14)
    return path


def beside(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.hstack([one, other])


def open_mouth(picture: np.ndarray, points: np.ndarray, share: float) -> np.ndarray:
    """The face with its lower lip and jaw pulled down and a dark mouth between the lips."""
    size = picture.shape[0]
    face = float(np.ptp(points[:, 1]))
    drop = share * 0.10 * face
    columns, rows = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    middle = points[[13, 14], :2].mean(0)
    half = 0.45 * float(np.linalg.norm(points[61, :2] - points[291, :2]))
    across = np.clip(1 - np.square((columns - middle[0]) / (1.4 * half)), 0, 1)
    fade = np.clip(1 - (rows - middle[1]) / (0.45 * face), 0, 1)
    shift = (drop * across * fade * (rows > middle[1])).astype(np.float32)
    pulled = cv2.remap(picture, columns, rows - shift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gap = (rows >= middle[1] - 1) & (rows < middle[1] + drop * (1 - np.square((columns - middle[0]) / half)))
    pulled[gap] = (25, 15, 40)
    return pulled
