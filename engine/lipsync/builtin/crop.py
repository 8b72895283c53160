"""Which square of a picture the mouth network sees: one rule for training pictures and for avatars at run time.

Place in the flow: five face landmarks -> mouth square -> crop -> picture network -> patch.

Invariants:
    * landmarks come in the order of an avatar bundle: eyes, nose tip, mouth corners, image left before image right;
    * the square is axis-aligned; along an idle loop its side is constant, so that the picture never breathes.
"""

from __future__ import annotations

import numpy as np

CROP_SIZE = 128
"""Side of the square the network sees, pixels."""
SIDE_PER_DISTANCE = 1.8
"""Side of the square per distance between the middle of the eyes and the middle of the mouth."""
DROP_PER_DISTANCE = 0.25
"""How far below the mouth's middle the square's middle lies: the chin needs the room."""

_BLUE_PER_GREEN = (0.65, 1.05)
_RED_PER_GREEN = (1.0, 1.75)
"""Colours of skin that the network knows, as means of a mouth square."""


def eye_mouth_distance(landmarks: np.ndarray) -> np.ndarray:
    """Distance between the middle of the eyes and the middle of the mouth.

    Args:
        landmarks: (..., 5, 2) pixels.

    Returns:
        (...) pixels.
    """
    return np.linalg.norm(_axis(landmarks), axis=-1)


def mouth_square(landmarks: np.ndarray, distance: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and side of the mouth square, unrounded.

    Args:
        landmarks: (..., 5, 2) pixels.
        distance: eye-mouth distance that sets the side, pixels (over a loop: its median).

    Returns:
        (..., 2) centre x, y and (...) side, pixels.
    """
    mouth = landmarks[..., 3:5, :].mean(-2)
    centre = mouth + DROP_PER_DISTANCE * _axis(landmarks)
    return centre, np.broadcast_to(SIDE_PER_DISTANCE * np.asarray(distance), centre.shape[:-1])


def mouth_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Mouth squares of an idle loop, rounded to whole pixels; they may reach beyond the frame.

    Args:
        landmarks: (N, 5, 2) pixels.

    Returns:
        (N, 4) int y1, y2, x1, x2; every box has the same side.
    """
    centre, side = mouth_square(landmarks, np.median(eye_mouth_distance(landmarks)))
    whole = round(float(side[0]))
    corner = np.rint(centre - whole / 2).astype(int)
    x, y = corner[:, 0], corner[:, 1]
    return np.stack([y, y + whole, x, x + whole], 1)


def colour_gains(crops: np.ndarray) -> np.ndarray:
    """Gains that bring a colour cast back to where the network has seen skin.

    Strong casts, such as a camera's without white balance, are outside its training data, and it would then hardly move
    the mouth.

    Args:
        crops: (N, s, s, 3) uint8 BGR mouth squares of one avatar.

    Returns:
        (3,) float32 gains of B, G, R; all 1 where the colours are usual. One set an avatar, so that nothing flickers.
    """
    blue, green, red = np.maximum(crops.reshape(-1, 3).mean(0), 1.0)
    blue_gain = np.clip(blue / green, *_BLUE_PER_GREEN) * green / blue
    red_gain = np.clip(red / green, *_RED_PER_GREEN) * green / red
    # Rounded, so that usual colours give exactly 1.
    return np.round([blue_gain, 1.0, red_gain], 3).astype(np.float32)


def _axis(landmarks: np.ndarray) -> np.ndarray:
    return landmarks[..., 3:5, :].mean(-2) - landmarks[..., 0:2, :].mean(-2)
