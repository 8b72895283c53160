"""Frames between drawn frames: both neighbours are carried along the mesh's exact motion and mixed.

Place in the flow: path-traced key frames + projected vertices of every frame -> all frames of an idle loop. Drawing
every frame of a slow loop costs hours and shows nothing more; what is quick (lids, gaze) is drawn in every frame as a
small strip and laid over.

Invariants:
    * a drawn frame is returned untouched;
    * the loop is a ring: the frame after the last is the first.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

_CELL_PX = 4
_SPREAD_CELLS = 1.25
_WIDE_SPREAD_CELLS = 10.0
_FEATHER_PX = 6


def motion_field(at: np.ndarray, elsewhere: np.ndarray, size: int) -> np.ndarray:
    """Dense motion from points that moved.

    Args:
        at: (n, 2) pixels of surface points in the frame that is made.
        elsewhere: (n, 2) pixels of the same points in another frame.
        size: side of the square picture.

    Returns:
        (size, size, 2) float32: where the other frame shows what each pixel shows. Points spread their motion to the
        pixels around; the still backdrop is smooth enough to be carried along at the rim.
    """
    inside = ((at >= 0) & (at < size)).all(axis=1)
    cell = at[inside].astype(int) // _CELL_PX
    # Motion of one head is smooth: cells of a few pixels are enough and sixteen times faster.
    cells = -(-size // _CELL_PX)
    sums = np.zeros((cells, cells, 3), np.float32)
    values = np.concatenate([elsewhere[inside] - at[inside], np.ones((inside.sum(), 1))], axis=1)
    np.add.at(sums, (cell[:, 1], cell[:, 0]), values.astype(np.float32))
    near = cv2.GaussianBlur(sums, (0, 0), _SPREAD_CELLS)
    far = cv2.GaussianBlur(sums, (0, 0), _WIDE_SPREAD_CELLS)
    # Where no point is near, the wide spread decides; a trace of it everywhere makes the change gradual.
    blended = near + 1e-3 * far + 1e-9
    coarse = blended[:, :, :2] / blended[:, :, 2:]
    motion = cv2.resize(coarse, (cells * _CELL_PX,) * 2, interpolation=cv2.INTER_LINEAR)[:size, :size]
    return motion + np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=2).astype(np.float32)


def between(
    before: np.ndarray, after: np.ndarray, field_before: np.ndarray, field_after: np.ndarray, share: float
) -> np.ndarray:
    """The frame between two.

    Args:
        before: (H, W, 3) uint8.
        after: (H, W, 3) uint8.
        field_before: (H, W, 2) where ``before`` shows what the new frame shows.
        field_after: the same for ``after``.
        share: 0 at ``before`` … 1 at ``after``.

    Returns:
        (H, W, 3) float32.
    """
    still = np.empty(0, np.float32)
    # Lanczos keeps the sharpness of the drawn frames; bilinear carrying would make it pulse along the loop.
    parts = [
        cv2.remap(image.astype(np.float32), field, still, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
        for image, field in ((before, field_before), (after, field_after))
    ]
    return (1 - share) * parts[0] + share * parts[1]


def lay_over(image: np.ndarray, strip: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """Lay a drawn strip over a picture with a feathered rim.

    Args:
        image: (H, W, 3) float32, changed.
        strip: (h, w, 3) uint8.
        corner: (x, y) of the strip in the picture.
    """
    height, width = strip.shape[:2]
    x, y = corner
    rows = np.minimum(np.arange(height) + 1, height - np.arange(height))[:, None]
    columns = np.minimum(np.arange(width) + 1, width - np.arange(width))[None]
    weight = np.clip(np.minimum(rows, columns) / _FEATHER_PX, 0, 1)[:, :, None]
    there = image[y : y + height, x : x + width]
    there += weight * (strip - there)
    return image


def complete_loop(
    drawn: Mapping[int, np.ndarray],
    points: np.ndarray,
    strips: Mapping[int, np.ndarray],
    corner: tuple[int, int],
) -> np.ndarray:
    """All frames of a loop.

    Args:
        drawn: frame number -> (S, S, 3) uint8 key frame.
        points: (N, n, 2) float32 pixels of surface points in every frame.
        strips: frame number -> (h, w, 3) uint8, what moves too quickly to be carried.
        corner: (x, y) of all strips.

    Returns:
        (N, S, S, 3) uint8.
    """
    keys = sorted(drawn)
    count, size = len(points), drawn[keys[0]].shape[0]
    frames = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        if number in drawn:
            frames[number] = drawn[number]
            continue
        first = max((key for key in keys if key < number), default=keys[-1] - count)
        second = min((key for key in keys if key > number), default=keys[0] + count)
        share = (number - first) / (second - first)
        to_first, to_second = (motion_field(points[number], points[key % count], size) for key in (first, second))
        image = between(drawn[first % count], drawn[second % count], to_first, to_second, share)
        if number in strips:
            lay_over(image, strips[number], corner)
        frames[number] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return frames
