"""Aligns a face to the template the restorer was trained on, and says which part of the template is what.

Place in the flow: five landmarks of an avatar's picture -> ``alignment`` -> aligned face -> restorer -> back.

The template is that of the FFHQ data set's alignment as GFPGAN's helper uses it: five points in a square of 512
pixels. Landmarks come with the avatar, so that no detector runs.

Invariants:
    * an alignment is a similarity: it turns, scales and moves, and never distorts;
    * pixels are counted from their middles, as OpenCV does.
"""

from __future__ import annotations

import cv2
import numpy as np

TEMPLATE_SIDE = 512
TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.19360],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ],
    np.float32,
)
"""(5, 2) pixels: left eye (image left), right eye, nose tip, mouth corners, in a square of ``TEMPLATE_SIDE``."""


def alignment(landmarks: np.ndarray, size: int = TEMPLATE_SIDE) -> np.ndarray:
    """The similarity that brings a face onto the template, best in the sense of least squares.

    Args:
        landmarks: (5, 2) pixels of the picture, in the order of ``TEMPLATE``.
        size: side of the aligned square, pixels.

    Returns:
        (2, 3) float64, picture -> aligned square.

    Raises:
        ValueError: the landmarks coincide or are no numbers.
    """
    # As complex numbers, turning and scaling is one factor and least squares is one division.
    points = np.asarray(landmarks, np.float64)
    goal = TEMPLATE.astype(np.float64) * (size / TEMPLATE_SIDE)
    from_mean, to_mean = points.mean(0), goal.mean(0)
    source = (points - from_mean) @ [1, 1j]
    target = (goal - to_mean) @ [1, 1j]
    spread = float(np.vdot(source, source).real)
    if not np.isfinite(spread) or spread <= 0:
        raise ValueError("five landmarks that coincide or are no numbers cannot be aligned")
    turn = np.vdot(source, target) / spread
    rotation = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([rotation, to_mean - rotation @ from_mean])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """(2, 3) aligned square -> picture."""
    return cv2.invertAffineTransform(matrix)


def scale_of(matrix: np.ndarray) -> float:
    """Pixels of the aligned square per pixel of the picture."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def align(image: np.ndarray, matrix: np.ndarray, size: int = TEMPLATE_SIDE) -> np.ndarray:
    """Cuts the aligned face out of a picture.

    Args:
        image: (H, W, 3) uint8 BGR.
        matrix: as from ``alignment``.
        size: side of the aligned square, pixels.

    Returns:
        (size, size, 3) uint8 BGR; beyond the picture its border goes on.
    """
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )  # fmt: skip
