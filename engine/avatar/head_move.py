"""Moves a head within its picture: aligns two pictures of one head for a cross-fade, and leans it in to listen.

Place in the flow: ``Pose`` -> the pictures it names, mouths drawn -> ``cross_fade``, ``lean`` -> frame.

A movement is a similarity transform of the head that fades out into the picture around it, so shoulders and background
stay where they are and no border of the picture shows.

Invariants:
    * without movement (weight 0 or 1, amount 0) a picture comes back bit for bit;
    * the last movement before none is as small as the first one after it: nothing jumps when it ends.
"""

from __future__ import annotations

import math
from typing import TypeVar

import cv2
import numpy as np

# The head as an ellipse around a point between the eyes, in distances from the eyes to the mouth. It moves as a whole
# up to the inner edge; from there the movement fades out up to the outer one.
_RISE = 0.25
_WIDTH = 1.6
_HEIGHT = 2.0
_INNER = 0.9
# Half the sides of the rectangle that holds the face without the hair, around the same point, likewise.
_SHARP_WIDTH = 1.0
_SHARP_HEIGHT = 1.2
_OUTER = 1.6

LEAN_SCALE = 1.015
"""A head that listens comes this much closer ..."""
LEAN_TILT_RAD = math.radians(0.9)
"""... and tilts by this much, about the neck."""
_NECK_DROP = 1.3

# Movements are smooth: they are worked out for every fourth pixel, and between them interpolated.
_STEP = 4

N = TypeVar("N", float, np.ndarray)


def ease(x: N) -> N:
    """Smoothstep: starts and ends without a jerk, and is exactly 0 and 1 at its ends."""
    return x * x * (3 - 2 * x)


def similarity(points: np.ndarray, targets: np.ndarray) -> tuple[complex, complex]:
    """The rotation, scale and shift that bring ``points`` closest to ``targets``.

    Args:
        points: (n, 2) x, y.
        targets: (n, 2) x, y.

    Returns:
        a, b of z -> a z + b, in complex numbers x + iy; least squares (Umeyama 1991 without reflection, in the plane).
    """
    z, w = _complex(points), _complex(targets)
    z0, w0 = z.mean(), w.mean()
    a = np.vdot(z - z0, w - w0) / max(float(np.vdot(z - z0, z - z0).real), 1e-9)
    return complex(a), complex(w0 - a * z0)


def cross_fade(
    one: np.ndarray, one_landmarks: np.ndarray, other: np.ndarray, other_landmarks: np.ndarray, weight: float
) -> np.ndarray:
    """A picture between two of the same head, which stands between both places and is there only once.

    Args:
        one: (H, W, 3) uint8 BGR.
        one_landmarks: (5, 2) pixels.
        other: (H, W, 3) uint8 BGR.
        other_landmarks: (5, 2) pixels.
        weight: of ``other``, in [0, 1].

    Returns:
        (H, W, 3) uint8 BGR.
    """
    if weight <= 0 or weight >= 1:
        return one if weight <= 0 else other
    between = (1 - weight) * one_landmarks + weight * other_landmarks
    moved = [
        _move(image, between, *similarity(between, landmarks))
        for image, landmarks in ((one, one_landmarks), (other, other_landmarks))
    ]
    return cv2.addWeighted(moved[0], 1 - weight, moved[1], weight, 0)


def lean(image: np.ndarray, landmarks: np.ndarray, amount: float) -> np.ndarray:
    """The head a little closer and tilted, as of somebody who listens.

    Args:
        image: (H, W, 3) uint8 BGR.
        landmarks: (5, 2) pixels of the head's usual place; the same for every picture, so that nothing trembles.
        amount: 0 to 1.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    if amount <= 0:
        return image
    points = _complex(landmarks)
    mouth, eyes = points[3:5].mean(), points[:2].mean()
    neck = mouth + _NECK_DROP * (mouth - eyes)
    # From where a point is shown to where it is taken from.
    a = np.exp(-1j * LEAN_TILT_RAD * amount) / (1 + (LEAN_SCALE - 1) * amount)
    return _move(image, landmarks, complex(a), complex(neck - a * neck))


def _move(image: np.ndarray, landmarks: np.ndarray, a: complex, b: complex) -> np.ndarray:
    """The picture whose head at ``landmarks`` is taken from a z + b; what is around the head stays."""
    height, width = image.shape[:2]
    points = _complex(landmarks)
    eyes, mouth = points[:2].mean(), points[3:5].mean()
    distance = max(abs(mouth - eyes), 1.0)
    centre = (eyes + mouth) / 2 + _RISE * (eyes - mouth)
    reach_x, reach_y = _OUTER * _WIDTH * distance, _OUTER * _HEIGHT * distance
    left, right = max(0, int(centre.real - reach_x)), min(width, math.ceil(centre.real + reach_x))
    top, bottom = max(0, int(centre.imag - reach_y)), min(height, math.ceil(centre.imag + reach_y))
    if left >= right or top >= bottom:
        return image
    # Samples lie where cv2.resize takes them to lie: in the middle of the pixels they stand for.
    middle = (_STEP - 1) / 2
    x = np.arange(left, right, _STEP)[None] + middle
    y = np.arange(top, bottom, _STEP)[:, None] + middle
    radius = ((x - centre.real) / (_WIDTH * distance)) ** 2 + ((y - centre.imag) / (_HEIGHT * distance)) ** 2
    share = ease(np.clip((_OUTER**2 - radius) / (_OUTER**2 - _INNER**2), 0, 1))
    z = x + 1j * y
    shift = share * (a * z + b - z)
    size = (_STEP * x.size, _STEP * y.size)
    place = np.s_[: bottom - top, : right - left]
    map_x = cv2.resize(shift.real.astype(np.float32), size)[place] + np.arange(left, right, dtype=np.float32)
    map_y = cv2.resize(shift.imag.astype(np.float32), size)[place] + np.arange(top, bottom, dtype=np.float32)[:, None]
    moved = image.copy()
    moved[top:bottom, left:right] = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    # The face itself stays as sharp as it was; a cubic filter takes eight times as long as a linear one.
    half_x, half_y = _SHARP_WIDTH * distance, _SHARP_HEIGHT * distance
    rows = slice(max(top, int(centre.imag - half_y)), min(bottom, int(centre.imag + half_y)))
    columns = slice(max(left, int(centre.real - half_x)), min(right, int(centre.real + half_x)))
    if rows.start < rows.stop and columns.start < columns.stop:
        inside = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        moved[rows, columns] = cv2.remap(
            image, map_x[inside], map_y[inside], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
    return moved


def _complex(points: np.ndarray) -> np.ndarray:
    return points[:, 0].astype(np.float64) + 1j * points[:, 1].astype(np.float64)
