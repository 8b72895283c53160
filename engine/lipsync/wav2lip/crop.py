"""Where Wav2Lip looks and what it gives back: the face crop of a picture, and the strip of it that is pasted.

Place in the flow: five face landmarks -> face box -> crop -> Wav2Lip -> strip of the crop -> patch of the picture.

Invariants:
    * boxes of one avatar have one size in whole pixels, so the face never breathes;
    * a strip lands where its pixels were cut out: half a pixel would be seen as a step at the seam.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.lipsync.wav2lip.variants import Variant

ABOVE_EYES, BELOW_MOUTH, HALF_WIDTH = 1.05, 0.72, 1.08
"""The box around a face, in distances between the middle of the eyes and the middle of the mouth.

The checkpoints were trained on boxes of the S3FD detector, lengthened a little at the chin: eyes at 38 %, mouth at
74 % of the height. Computed from landmarks, the same box is steadier than a detector's.
"""
_SEAM, _SIDES, _CHIN = 0.08, 0.12, 0.06
"""Widths of the feather at the upper seam, at both sides and at the chin, shares of the box's height and width."""
_COLOUR_STEP_MOST = 12.0
_SEAM_ROWS_PER_96 = 4
"""Rows above the lower half that are computed, too, so that the seam can be feathered; for a picture of 96 rows."""


def first_row_of(variant: Variant) -> int:
    """First row of a network's picture that is computed: the lower half and the seam above it."""
    return variant.paste_from - _SEAM_ROWS_PER_96 * variant.size // 96


def face_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Face boxes of all pictures of an avatar.

    Args:
        landmarks: (N, 5, 2) pixels: eyes, nose tip, mouth corners.

    Returns:
        (N, 4) int y1, y2, x1, x2; all of one size, possibly reaching beyond the picture.
    """
    eyes, mouth = landmarks[:, :2].mean(1), landmarks[:, 3:].mean(1)
    distance = float(np.median(np.linalg.norm(mouth - eyes, axis=1)))
    height = round((ABOVE_EYES + 1 + BELOW_MOUTH) * distance)
    width = round(2 * HALF_WIDTH * distance)
    middle = (eyes + mouth) / 2
    y1 = np.rint(middle[:, 1] - (ABOVE_EYES + 0.5) * distance).astype(int)
    x1 = np.rint(middle[:, 0] - width / 2).astype(int)
    return np.stack([y1, y1 + height, x1, x1 + width], 1)


def cut_face(picture: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The face crop as the network sees it.

    Args:
        picture: (H, W, 3) uint8 BGR.
        box: y1, y2, x1, x2; outside the picture its border is repeated.
        size: side of the crop, pixels.

    Returns:
        (size, size, 3) uint8 BGR.
    """
    y1, y2, x1, x2 = (int(edge) for edge in box)
    rows = np.clip(np.arange(y1, y2), 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(x1, x2), 0, picture.shape[1] - 1)
    return cv2.resize(picture[rows[:, None], columns], (size, size), interpolation=cv2.INTER_LINEAR)


def network_face(crop: np.ndarray, colour: str) -> np.ndarray:
    """The network's face input: the crop with its lower half black, and the crop itself.

    Args:
        crop: (S, S, 3) uint8 BGR.
        colour: channel order the checkpoint was trained with, ``bgr`` or ``rgb``.

    Returns:
        (1, 6, S, S) float32 in [0, 1].
    """
    reference = crop if colour == "bgr" else crop[..., ::-1]
    masked = reference.copy()
    masked[len(crop) // 2 :] = 0
    return np.concatenate([masked, reference], 2).transpose(2, 0, 1)[None].astype(np.float32) / 255


class Strip:
    """The rows of the network's picture from ``first_row`` on, and the rows of a box in the picture that show them."""

    def __init__(self, size: int, first_row: int, height: int, width: int) -> None:
        """Places the strip.

        Args:
            size: side of the network's picture.
            first_row: the strip's first row in it.
            height, width: of the boxes, picture pixels.
        """
        self.top = -(-first_row * height // size)
        """First row of a box that is shown."""
        self._target = (width, height - self.top)
        across, down = size / width, size / height
        # Pixel centres: picture pixel (x, y) of the patch shows strip position ((x + ½) across - ½, ...).
        self._matrix = np.array(
            [[across, 0, across / 2 - 0.5], [0, down, (self.top + 0.5) * down - 0.5 - first_row]], np.float64
        )
        self.mask = _feather(self._target[1], width, height)

    def enlarge(self, strip: np.ndarray) -> np.ndarray:
        """(rows, S, 3) uint8 strip -> (h, w, 3) uint8 in the picture's resolution."""
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(strip, self._matrix, self._target, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _feather(rows: int, width: int, height: int) -> np.ndarray:
    """(rows, width) uint8: 255 inside, falling smoothly to 0 at all four borders."""
    down = np.arange(rows) + 0.5
    across = np.arange(width) + 0.5
    vertical = np.minimum(down / (_SEAM * height), (rows - down) / (_CHIN * height))
    sideways = np.minimum(across, width - across) / (_SIDES * width)
    ramps = [np.clip(ramp, 0, 1) for ramp in (vertical, sideways)]
    smooth = [ramp * ramp * (3 - 2 * ramp) for ramp in ramps]
    return np.round(255 * np.outer(*smooth)).astype(np.uint8)


def match_colour(patch: np.ndarray, picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Takes the step of colour out of the seam: shifts a patch so that its rim has the mean of the picture below.

    Args:
        patch, picture: (h, w, 3) uint8 BGR, the same place.
        mask: (h, w) uint8, feathered; its slope is the rim.

    Returns:
        (h, w, 3) uint8. The shift is at most a few grey levels, so a bad prediction stays what it is.
    """
    rim = ((mask > 16) & (mask < 240)).astype(np.uint8)
    step = np.subtract(cv2.mean(picture, rim), cv2.mean(patch, rim))
    step[3] = 0
    step = np.clip(step, -_COLOUR_STEP_MOST, _COLOUR_STEP_MOST)
    return cv2.subtract(cv2.add(patch, np.maximum(step, 0)), np.maximum(-step, 0))
