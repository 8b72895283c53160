"""Cuts a person out: how much of every pixel is person, down to strands of hair, and the colour of that part alone.

Place in the flow: ``Avatar`` -> ``mattes`` -> ``engine.avatar.matte_file``; once per avatar, never while it speaks.

The network sees a small picture and says where the person is; the picture itself says where the edge runs. A guided
filter (He, Sun and Tang 2010, with a colour guide) takes the first as its input and the second as its guide: within
a few pixels the matte becomes a linear function of the colour, which is what a strand of hair before a wall is.

Invariants:
    * 1 well inside and 0 well outside of what the network sees, whatever the filter makes of the colours there;
    * only what is connected with the face is person;
    * what the network says is evened out over a few pictures before it meets the edges, and what comes of it is the
      middle of three neighbours, so that nothing shimmers; loops go round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from engine.avatar.bundle import Avatar

Seeing = Callable[[np.ndarray], np.ndarray]
"""A ``PersonNetwork``, or whatever else finds a person in a (H, W, 3) BGR picture: (side, side) in [0, 1]."""

# In pixels of a picture whose shorter side is this.
_SIDE = 512
_WIDE, _NARROW = 12, 5
_CORE = 10
_REACH = 12
# Noise of a colour channel in [0, 1], squared: contrast below it is no edge.
_NOISE = 1e-4
# What the wide pass is unsure about is steepened by this, around a half.
_STEEPER = 1.6
# The filter leaves a haze of a few percent on both sides of the edge.
_LOW, _HIGH = 0.06, 0.94
# Over how many pictures what the network says is evened out: 1, 4, 6, 4, 1.
_WEIGHTS = np.array([1, 4, 6, 4, 1], np.float32) / 16
_NOSE = 2
_COLOUR_SIGMA = 6.5


def mattes(avatar: Avatar, see: Seeing) -> Iterator[np.ndarray]:
    """The matte of every picture of an avatar, in their order; about 50 ms each on one core.

    Args:
        avatar: whose.
        see: finds the person.

    Yields:
        (H, W) uint8, 255 where all of a pixel is person.
    """
    clips = (avatar.clips[name] for name in sorted(avatar.clips))
    yield from _stretch(avatar.frames, avatar.landmarks, True, see)
    for clip in clips:
        yield from _stretch(clip.frames, clip.landmarks, clip.loop, see)


def _stretch(frames: np.ndarray, landmarks: np.ndarray, loop: bool, see: Seeing) -> Iterator[np.ndarray]:
    """The mattes of one loop or clip."""
    count = len(frames)
    # A byte each is as exact as the network is, and a clip of a minute stays within a hundred megabytes.
    seen = [np.rint(see(frame) * 255).astype(np.uint8) for frame in frames]
    last: list[np.ndarray] = []
    for place in range(-1, count + 1):
        index = _neighbour(place, count, loop)
        around = [seen[_neighbour(index + step, count, loop)] for step in range(-2, 3)]
        calm = sum(weight * one.astype(np.float32) for weight, one in zip(_WEIGHTS, around, strict=True)) / 255
        last = [*last[-2:], refine(frames[index], calm, landmarks[index, _NOSE])]
        if len(last) == 3:
            before, here, after = last
            yield np.maximum(np.minimum(before, here), np.minimum(np.maximum(before, here), after))


def _neighbour(place: int, count: int, loop: bool) -> int:
    """Which picture is at a place that may lie beyond the ends: loops go round, others stay at their ends."""
    return place % count if loop else min(max(place, 0), count - 1)


def refine(picture: np.ndarray, seen: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The matte of one picture.

    Args:
        picture: (H, W, 3) uint8 BGR.
        seen: (side, side) float32 in [0, 1], where the person is about.
        face: (2,) pixel (x, y) of the picture that certainly is person.

    Returns:
        (H, W) uint8.
    """
    height, width = picture.shape[:2]
    scale = min(height, width) / _SIDE
    about = cv2.resize(seen, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    about = about * _with_face(about > 0.5, face, max(1, round(_REACH * scale)))
    inside = (about > 0.5).astype(np.uint8)
    core = cv2.erode(inside, _disc(_CORE * scale), borderType=cv2.BORDER_REPLICATE)
    reach = cv2.dilate(inside, _disc(_REACH * scale), borderType=cv2.BORDER_REPLICATE)
    guide = picture.astype(np.float32) / 255
    # Where the network is a few pixels off, the wide pass brings the edge home; the narrow one draws it.
    edge = _guided(guide, about.astype(np.float32), max(1, round(_WIDE * scale)))
    edge = np.clip((edge - 0.5) * _STEEPER + 0.5, 0, 1).astype(np.float32)
    edge = _guided(guide, edge, max(1, round(_NARROW * scale)))
    matte = np.clip((edge - _LOW) / (_HIGH - _LOW), 0, 1)
    matte = np.where(core > 0, 1, np.where(reach > 0, matte, 0))
    return np.rint(matte * 255).astype(np.uint8)


def pure_colour(picture: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """The colour of the person alone, where the background shines through hair and along edges.

    The blur fusion of Forte (2021): both colours are taken from around, weighted by the matte, then corrected so that
    together they give the pixel that was filmed.

    Args:
        picture: (H, W, 3) uint8 BGR.
        matte: (H, W) uint8.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    image = picture.astype(np.float32)
    share = (matte.astype(np.float32) / 255)[..., None]
    sigma = _COLOUR_SIGMA * min(matte.shape) / _SIDE
    person, ground = _around(image, share, sigma), _around(image, 1 - share, sigma)
    pure = person + share * (image - share * person - (1 - share) * ground)
    return np.rint(np.clip(pure, 0, 255)).astype(np.uint8)


def _around(image: np.ndarray, weights: np.ndarray, sigma: float) -> np.ndarray:
    total = cv2.GaussianBlur(weights, (0, 0), sigma)[..., None]
    return cv2.GaussianBlur(image * weights, (0, 0), sigma) / np.maximum(total, 1e-4)


def _with_face(inside: np.ndarray, face: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) float32: 0 on islands that do not hang together with the face, 1 elsewhere."""
    _, labels = cv2.connectedComponents(inside.astype(np.uint8))
    height, width = inside.shape
    label = labels[min(max(int(face[1]), 0), height - 1), min(max(int(face[0]), 0), width - 1)]
    if label == 0:
        return np.ones(inside.shape, np.float32)
    islands = (inside & (labels != label)).astype(np.uint8)
    if not islands.any():
        return np.ones(inside.shape, np.float32)
    return 1 - cv2.dilate(islands, _disc(radius)).astype(np.float32) * (labels != label)


def _disc(radius: float) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, round(radius)) + 1,) * 2)


def _guided(guide: np.ndarray, values: np.ndarray, radius: int) -> np.ndarray:
    """The guided filter with three channels.

    Args:
        guide: (H, W, 3) float32 in [0, 1].
        values: (H, W) float32.
        radius: of the window, pixels.

    Returns:
        (H, W) float32: in every window the linear function of the guide's colour that is closest to ``values``.
    """

    def mean(array: np.ndarray) -> np.ndarray:
        return cv2.blur(array, (2 * radius + 1, 2 * radius + 1))

    red, green, blue = (guide[..., channel] for channel in range(3))
    red_mean, green_mean, blue_mean, value_mean = mean(red), mean(green), mean(blue), mean(values)
    # The covariance of the three channels in every window is symmetric: six numbers, inverted by its cofactors.
    rr = mean(red * red) - red_mean * red_mean + _NOISE
    gg = mean(green * green) - green_mean * green_mean + _NOISE
    bb = mean(blue * blue) - blue_mean * blue_mean + _NOISE
    rg = mean(red * green) - red_mean * green_mean
    rb = mean(red * blue) - red_mean * blue_mean
    gb = mean(green * blue) - green_mean * blue_mean
    rv = mean(red * values) - red_mean * value_mean
    gv = mean(green * values) - green_mean * value_mean
    bv = mean(blue * values) - blue_mean * value_mean
    c_rr, c_rg, c_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * c_rr + rg * c_rg + rb * c_rb
    a_red = (c_rr * rv + c_rg * gv + c_rb * bv) / determinant
    a_green = (c_rg * rv + c_gg * gv + c_gb * bv) / determinant
    a_blue = (c_rb * rv + c_gb * gv + c_bb * bv) / determinant
    rest = value_mean - a_red * red_mean - a_green * green_mean - a_blue * blue_mean
    return mean(a_red) * red + mean(a_green) * green + mean(a_blue) * blue + mean(rest)
