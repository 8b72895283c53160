"""Which part of an aligned face is replaced at which quality level, in which colours, and how it gets onto the picture.

Place in the flow: aligned face + restored window -> ``change`` -> temporal blending -> ``paste_change`` -> picture.

What is pasted is a change, restored minus given, that fades to nothing towards the region's border: then there is no
seam to hide, and a restorer that changes nothing changes no pixel.

Invariants:
    * regions are fractions of the template's square, so that a network of another size has the same ones;
    * only pixels inside a region, and inside the patch's box where one is given, change.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from engine.restore.ffhq import TEMPLATE_SIDE, inverse, scale_of
from engine.restore.window import Window

_SOLID = 0.55
"""Up to this part of the way from its middle to its border a region is replaced wholly."""
_EXPONENT = 3.0
"""Of the superellipse that bounds a region: 2 is an ellipse, more is squarer."""
_BOX_FEATHER = 0.08
"""Width of the fade inside the border of a patch's box, as a fraction of its side."""

_COLOUR_STEP = 8
"""Colours are compared on pictures this much smaller: shades, not details."""
_COLOUR_FLOOR = 9.0
"""Added to both covariances, grey levels squared: skin without contrast tells nothing about contrast."""
_COLOUR_GAINS = (0.75, 1.33)
"""How much contrast may be taken away or added along any direction of colour."""


@dataclass(frozen=True, slots=True)
class Region:
    """A superellipse on the template's square of ``TEMPLATE_SIDE`` pixels.

    Attributes:
        middle: (x, y) pixels.
        axes: half widths (x, y), pixels; beyond them nothing changes.
        skin_inside: whether its inside shows mostly skin; then shades are compared there, else in its fade.
    """

    middle: tuple[float, float]
    axes: tuple[float, float]
    skin_inside: bool = False

    def window(self, size: int) -> Window:
        """What of a square of ``size`` pixels it touches."""
        k = size / TEMPLATE_SIDE
        (x, y), (a, b) = self.middle, self.axes
        return Window(
            math.floor((y - b) * k), math.ceil((y + b) * k), math.floor((x - a) * k), math.ceil((x + a) * k)
        ).grown(0, size)


MOUTH = Region((257.0, 394.0), (98.0, 72.0))
"""From under the nose to the chin's crease, with room for an open mouth."""
LOWER_FACE = Region((256.0, 394.0), (172.0, 116.0))
"""From the nose tip to under the chin, cheeks included."""
FACE = Region((256.0, 266.0), (222.0, 244.0), skin_inside=True)
"""From the hairline to under the chin."""

_REGIONS = {2: MOUTH, 3: MOUTH, 4: LOWER_FACE, 5: FACE}


def region_of(level: int) -> Region:
    """What a live quality level, 2 to 5, restores."""
    return _REGIONS[level]


@functools.cache
def mask_of(region: Region, size: int) -> np.ndarray:
    """(h, w) float32 in [0, 1] on the region's window: how far each pixel is replaced; zero at the border."""
    window, k = region.window(size), size / TEMPLATE_SIDE
    y, x = np.mgrid[window.top : window.bottom, window.left : window.right].astype(np.float32)
    across = np.abs((x / k - region.middle[0]) / region.axes[0]) ** _EXPONENT
    down = np.abs((y / k - region.middle[1]) / region.axes[1]) ** _EXPONENT
    inward = np.clip((1 - (across + down) ** (1 / _EXPONENT)) / (1 - _SOLID), 0, 1)
    mask = inward * inward * (3 - 2 * inward)
    mask.flags.writeable = False
    return mask


@functools.cache
def _skin(region: Region, size: int) -> np.ndarray:
    """(h', w') float32, sum 1, of the small picture: where both pictures show the same skin."""
    mask = mask_of(region, size)
    # The fade around a mouth is skin; that around a face is hair, and lips are a small part of its inside.
    skin = _small(mask * mask if region.skin_inside else mask * (1 - mask))
    return skin / skin.sum()


def _small(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    size = (max(width // _COLOUR_STEP, 2), max(height // _COLOUR_STEP, 2))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def change(face: np.ndarray, restored: np.ndarray, region: Region) -> np.ndarray:
    """What restoring changes once its shades are those of the given face.

    A restorer shifts colours. Where both pictures show the same skin, the map between their shades, means and
    covariances, is found and undone everywhere; details pass through it unchanged.

    Args:
        face: (S, S, 3) uint8 BGR, aligned.
        restored: (h, w, 3) uint8 BGR, the region's window.
        region: what is replaced.

    Returns:
        (h, w, 3) float32 grey levels, not yet faded towards the border.
    """
    size = face.shape[0]
    given = face[region.window(size).slices].astype(np.float32)
    result = restored.astype(np.float32)
    shades = _small(result)
    matched = _match(shades, _small(given), _skin(region, size))
    correction = cv2.resize(matched - shades, (result.shape[1], result.shape[0]), interpolation=cv2.INTER_LINEAR)
    return result + correction - given


def _match(shades: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Maps shades linearly, least motion first, so that under the weights their moments are the wanted ones."""
    mean, covariance = _moments(shades, weights)
    goal, goal_covariance = _moments(wanted, weights)
    root = _power(covariance, 0.5)
    unroot = _power(covariance, -0.5)
    transport = unroot @ _power(root @ goal_covariance @ root, 0.5) @ unroot
    gains, axes = np.linalg.eigh((transport + transport.T) / 2)
    transport = (axes * np.clip(gains, *_COLOUR_GAINS)) @ axes.T
    return ((shades - mean) @ transport.T + goal).astype(np.float32)


def _moments(shades: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, shares = shades.reshape(-1, 3).astype(np.float64), weights.reshape(-1, 1)
    mean = (values * shares).sum(0)
    centred = values - mean
    return mean, (centred * shares).T @ centred + _COLOUR_FLOOR * np.eye(3)


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, axes = np.linalg.eigh(matrix)
    return (axes * np.maximum(values, 1e-6) ** exponent) @ axes.T


def paste_change(
    image: np.ndarray,
    changed: np.ndarray,
    region: Region,
    matrix: np.ndarray,
    size: int,
    box: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Adds a change to a copy of the picture it was made for.

    Args:
        image: (H, W, 3) uint8 BGR.
        changed: (h, w, 3) float32 grey levels on the region's window.
        region: fades it out.
        matrix: (2, 3) picture -> aligned square.
        size: of the aligned square, pixels.
        box: (y1, y2, x1, x2) pixels; when given, nothing outside changes and what is inside fades towards it.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    image = image.copy()
    window = region.window(size)
    faded = changed * mask_of(region, size)[..., None]
    shrinks = scale_of(matrix)
    if shrinks > 1:
        # Shrinking drops pixels; what they showed must be gone before, or it comes back as noise that moves.
        faded = cv2.GaussianBlur(faded, (0, 0), 0.5 * math.sqrt(shrinks * shrinks - 1) + 1e-3)
    back = inverse(matrix)
    corners = np.array(
        [[x, y, 1] for x in (window.left, window.right) for y in (window.top, window.bottom)], np.float64
    )  # fmt: skip
    reached = corners @ back.T
    height, width = image.shape[:2]
    limits = box if box is not None else (0, height, 0, width)
    top, left = max(math.floor(reached[:, 1].min()), limits[0], 0), max(math.floor(reached[:, 0].min()), limits[2], 0)
    bottom = min(math.ceil(reached[:, 1].max()) + 1, limits[1], height)
    right = min(math.ceil(reached[:, 0].max()) + 1, limits[3], width)
    if top >= bottom or left >= right:
        return image
    # From the window to the part of the picture it reaches: past the window's corner, back, past the part's corner.
    move = back.copy()
    move[:, 2] += back[:, :2] @ [window.left, window.top] - [left, top]
    delta = cv2.warpAffine(faded, move, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    if box is not None:
        delta *= _ramp(top, bottom, box[0], box[1])[:, None, None] * _ramp(left, right, box[2], box[3])[None, :, None]
    part = image[top:bottom, left:right]
    part[:] = np.clip(np.rint(part + delta), 0, 255).astype(np.uint8)
    return image


def _ramp(start: int, end: int, first: int, last: int) -> np.ndarray:
    """(end - start) float32: from 0 at the ends of [first, last) to 1 inside."""
    feather = max(_BOX_FEATHER * (last - first), 1.0)
    middles = np.arange(start, end, dtype=np.float32) + 0.5
    return np.clip(np.minimum(middles - first, last - middles) / feather, 0, 1)
