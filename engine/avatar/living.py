"""A still portrait comes alive: it breathes, blinks and holds its head the way people do, never quite still.

Place in the flow: portrait picture + face mesh + silhouette + eyes -> ``LivingPortrait`` -> idle loop with landmarks.

The picture is bent by a few smooth fields (turn, nod, tilt, sway, breath), each computed once; a frame is one
weighted sum of them. Depth comes from the face mesh and runs out towards the silhouette, so that the nose moves
more than the ears.

Invariants:
    * every movement has whole periods in the loop, so the last frame flows into the first;
    * what is well away from the person, and the border of the picture, does not move;
    * landmarks move with the very field that moves the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from engine.avatar.blink import CLOSING, Blink
from engine.avatar.eyes import Eye
from engine.types import FPS

_TURN_RAD = 0.036
_NOD_RAD = 0.022
_TILT_RAD = 0.013
_SWAY_PER_FACE = 0.007
_BREATH_PER_FACE = 0.011
"""How far the shoulders rise, per face height."""
_HEAD_BREATH = 0.4
"""How much of it the head goes along."""
_BREATHS_PER_MINUTE = 15.0
_BLINK_EVERY_S = 3.6
_GRID = 128
"""Depth is solved on a coarse grid: it is smooth."""
_DEPTH_RUNS = 500
_HALO_PER_FACE = 0.055
_HAIR_PER_FACE = 0.85
_INVERSE_RUNS = 3


@dataclass(frozen=True, slots=True)
class LivingFrame:
    """One picture of the loop.

    Attributes:
        picture: (size, size, 3) uint8 BGR.
        points: (468, 2) float32 face mesh in it, pixels.
    """

    picture: np.ndarray
    points: np.ndarray


class LivingPortrait:
    """Bends one picture into a loop.

    Args:
        picture: (size, size, 3) uint8 BGR portrait.
        points: (468, 3) its face mesh in pixels.
        silhouette: (size, size) float32, 1 on head and hair.
        eyes: outlines of both.
        seed: of the choice of movements; the same seed moves the same way.
    """

    def __init__(
        self, picture: np.ndarray, points: np.ndarray, silhouette: np.ndarray, eyes: tuple[Eye, Eye], seed: int = 0
    ) -> None:
        self._picture, self._points = picture, points
        self._blink = Blink(picture, eyes)
        self._fields = _fields(points, silhouette)
        self._seed = seed

    def frames(self, count: int) -> Iterator[LivingFrame]:
        """The loop, picture by picture.

        Args:
            count: pictures, 25 a second; the last one flows into the first.
        """
        weights = _movements(count, self._seed)
        lids = _lids(count, self._seed)
        size = self._picture.shape[0]
        columns, rows = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
        shut: dict[float, np.ndarray] = {}
        for weight, lid in zip(weights, lids, strict=True):
            shift = np.tensordot(weight, self._fields, 1).astype(np.float32)
            if lid not in shut:
                shut[lid] = self._blink(lid)
            picture = cv2.remap(
                shut[lid], columns + shift[0], rows + shift[1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101
            )
            yield LivingFrame(picture, _moved(self._points[:, :2], shift))


def _moved(points: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Where points of the still are seen after a (2, H, W) bend that says where each pixel comes from."""
    moved = points.astype(np.float32)
    for _ in range(_INVERSE_RUNS):
        at = [
            cv2.remap(part, moved[:, 0], moved[:, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
            for part in shift
        ]
        moved = points.astype(np.float32) - np.stack(at, 1)
    return moved


def _movements(count: int, seed: int) -> np.ndarray:
    """(count, 6) float32 weights of the fields: turn, nod, tilt, sway to the side, sway up, breath."""
    random = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(count) / count
    seconds = count / FPS
    ways = []
    for amount in (_TURN_RAD, _NOD_RAD, _TILT_RAD, 1.0, 0.6):
        # Slow above fast, and no two movements in step: a sum of few sines still looks like a person, not a pendulum.
        way = np.zeros(count)
        for period_s, share in ((8.0, 0.62), (4.0, 0.30), (2.3, 0.13)):
            periods = max(1, round(seconds / period_s))
            way += share * random.uniform(0.8, 1.2) * np.sin(periods * phase + random.uniform(0, 2 * np.pi))
        ways.append(amount * way)
    breaths = max(1, round(seconds * _BREATHS_PER_MINUTE / 60))
    turn = breaths * phase
    # In faster than out, with a rest after it.
    ways.append(0.5 - 0.5 * np.cos(turn + 0.45 * np.sin(turn)))
    return np.stack(ways, 1).astype(np.float32)


def _lids(count: int, seed: int) -> list[float]:
    """How far the lids are down in every picture; no blink crosses the seam."""
    random = np.random.default_rng(seed + 1)
    lids = [0.0] * count
    blinks = max(1, round(count / FPS / _BLINK_EVERY_S))
    room = count / blinks
    for number in range(blinks):
        start = round((number + random.uniform(0.25, 0.7)) * room)
        for place, lid in enumerate(CLOSING, start):
            if place < count:
                lids[place] = lid
    return lids


def _fields(points: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """(6, 2, H, W) float32: where a pixel comes from, per unit of each movement, relative to where it is."""
    size = silhouette.shape[0]
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    face = float(high[1] - low[1])
    middle = (low + high) / 2
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    neck = np.array([middle[0], high[1] + 0.30 * face])
    down = _ease((y - (high[1] - 0.02 * face)) / (0.42 * face))
    halo = _HALO_PER_FACE * face
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(0.8 * halo) + 1,) * 2)
    # Things behind the head are now and then taken for hair; no hair reaches this far.
    near = np.abs(x - middle[0]) < _HAIR_PER_FACE * face
    wide = cv2.dilate(np.where((silhouette > 0.5) & near, 1.0, 0.0).astype(np.float32), kernel)
    head = cv2.GaussianBlur(wide, (0, 0), halo) * (1 - down)
    # Hair that reaches the border of the picture moves less and less towards it.
    edge = np.minimum(np.minimum(x, size - 1 - x), np.minimum(y, size - 1 - y)) / (0.06 * size)
    rim = _ease(edge)
    depth = _depth(points, silhouette)
    zero = np.zeros_like(x)
    shoulders = (np.abs(x - middle[0]) - 0.30 * face).clip(0)
    body = _ease((y - (high[1] + 0.05 * face) - 0.30 * shoulders) / (0.45 * face))
    breath = _BREATH_PER_FACE * face
    sway = _SWAY_PER_FACE * face
    sides = _ease(np.minimum(x, size - 1 - x) / (0.12 * size))
    ends = _ease((size - 1 - y) / (0.14 * size))
    fields = np.stack([
        np.stack([-depth * head, zero]),
        np.stack([zero, -depth * head]),
        np.stack([(y - neck[1]) * head, -(x - neck[0]) * head]),
        np.stack([sway * head, zero]),
        np.stack([zero, sway * head]),
        np.stack([
            -0.35 * breath * (x - middle[0]) / face * body * sides,
            breath * np.maximum(body * ends, _HEAD_BREATH * head),
        ]),
    ])  # fmt: skip
    fields[:5] *= rim
    fields[5, 1] *= _ease(np.minimum(y, size - 1 - y) / (0.06 * size))
    return fields.astype(np.float32)


def _depth(points: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """(H, W) float32 pixels towards the viewer: the mesh's on the face, 0 at the silhouette, smooth between."""
    size = silhouette.shape[0]
    scale = _GRID / size
    near = -(points[:, 2] - np.percentile(points[:, 2], 97))
    cells = np.clip((points[:, :2] * scale).astype(int), 0, _GRID - 1)
    total, number = np.zeros((_GRID, _GRID)), np.zeros((_GRID, _GRID))
    np.add.at(total, (cells[:, 1], cells[:, 0]), near.clip(0))
    np.add.at(number, (cells[:, 1], cells[:, 0]), 1)
    known = number > 0
    given = total / np.maximum(number, 1)
    inside = cv2.resize(silhouette, (_GRID, _GRID), interpolation=cv2.INTER_AREA) > 0.5
    depth = np.where(known, given, 0)
    for _ in range(_DEPTH_RUNS):
        around = cv2.blur(depth, (3, 3), borderType=cv2.BORDER_REPLICATE)
        depth = np.where(known, given, np.where(inside, around, 0))
    depth = cv2.GaussianBlur(depth, (0, 0), 1.5)
    return cv2.resize(depth.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def _ease(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    share = np.clip(value, 0, 1)
    return share * share * (3 - 2 * share)
