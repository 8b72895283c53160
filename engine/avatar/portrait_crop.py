"""Which square of a photo or video becomes the avatar's picture: head and shoulders, and nothing invented.

Place in the flow: picture + face box -> ``portrait_square`` -> ``cut_portrait`` -> living picture or quiet loop.

Invariants:
    * the square lies inside the picture, so there is never a border to fill; near a border it gets tighter;
    * all frames of a video are cut by one square, so the background stands still.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FACE_SHARE = 0.42
"""Face height (forehead to chin) per side of the square, where there is room."""
_FACE_MIDDLE = 0.49
"""How far down the face's middle lies in a roomy square."""
_HAIR_PER_FACE = 0.42
"""Room for hair above the forehead, per face height."""
_LEAST_ROOM = 0.02
_INSET_PER_SIDE = 0.008


@dataclass(frozen=True, slots=True)
class Square:
    """A square of a picture.

    Attributes:
        x, y: its upper left corner, pixels.
        side: pixels.
    """

    x: int
    y: int
    side: int

    def to_crop(self, points: np.ndarray, size: int) -> np.ndarray:
        """Points of the picture in the square resized to ``size``; depth is scaled along.

        Args:
            points: (..., 2 or 3) pixels.
            size: side of the resized square, pixels.
        """
        scale = size / self.side
        moved = np.asarray(points, np.float32).copy()
        # Pixel centres: (x + 0.5) scales, not x.
        moved[..., 0] = (moved[..., 0] - self.x + 0.5) * scale - 0.5
        moved[..., 1] = (moved[..., 1] - self.y + 0.5) * scale - 0.5
        if moved.shape[-1] == 3:
            moved[..., 2] *= scale
        return moved


def portrait_square(width: int, height: int, box: np.ndarray) -> Square:
    """The square around head and shoulders.

    Args:
        width, height: of the picture, pixels.
        box: (4,) y1, y2, x1, x2 of the face, forehead to chin; of a video: typical, not the union.
    """
    y1, y2, x1, x2 = (float(value) for value in box)
    face = y2 - y1
    # Cameras and scanners like to leave a dark line along the border.
    inset = round(_INSET_PER_SIDE * min(width, height))
    side = min(face / FACE_SHARE, float(min(width, height) - 2 * inset))
    share = face / side
    middle = max(_FACE_MIDDLE, _LEAST_ROOM + share * (_HAIR_PER_FACE + 0.5))
    # A tight square rather shows the chin whole than all of the hair.
    middle = min(middle, 1 - _LEAST_ROOM - 0.58 * share)
    x = (x1 + x2) / 2 - side / 2
    y = (y1 + y2) / 2 - middle * side
    whole = int(side)
    x, y = (min(max(start, inset), end - inset - whole) for start, end in ((x, width), (y, height)))
    return Square(round(x), round(y), whole)


def cut_portrait(image: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square, resized.

    Args:
        image: (H, W, 3) uint8 BGR.
        square: inside the picture.
        size: side of the result, pixels.

    Returns:
        (size, size, 3) uint8 BGR.
    """
    crop = image[square.y : square.y + square.side, square.x : square.x + square.side]
    way = cv2.INTER_AREA if square.side > size else cv2.INTER_LANCZOS4
    return cv2.resize(crop, (size, size), interpolation=way)
