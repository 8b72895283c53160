"""Short hair grown from the scalp: every hair has its own root, so a cropped head reads as hair, not as a cap.

Place in the flow: body part of a ``Figure`` + painted scalp of a skin texture -> strand points -> ``Scene``.

Invariants:
    * hairs grow only where the texture shows hair, so the hairline is uneven as a living one;
    * the same cut, body and seed give the same hairs.

Units are decimetres; y is up, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import NotFound
from engine.studio.figure import Part
from engine.studio.mesh import triangulate, vertex_normals

HAIRLINE_SKIN = "young_darkskinned_male_diffuse"
"""The skin texture whose painted hair says where hair grows; all skins share one layout."""

_HAIR_GREY, _SKIN_GREY = 27.0, 48.0
_SOFTENED_PX = 9
_HEAD_RADIUS_DM = 0.95
_FACE_DEPTH_DM = 0.75
_BLOCK = 2000


@dataclass(frozen=True)
class Cut:
    """How the hair is cut and combed.

    Attributes:
        count: number of hairs.
        sides_dm: length at ears and neck.
        top_dm: length on top.
        top_from_dm: heights above the eyes between which the length goes from the sides' to the top's.
        rise: 0 flat on the head … 1 straight up, at sides and on top.
        combed: direction of the hair on top; at the sides it runs down and back.
        curl_dm: radius of the curls; 0 is straight.
        turns_per_dm: turns of a curl along the hair.
        stray: standard deviation of the direction, as a share.
        points: control points of a hair.
        locks: number of locks that hairs gather in; 0 lets every hair lie by itself.
        gather: how far tips are drawn to the middle of their lock, 0 … 1.
        lock_stray: standard deviation of the direction and, in tenths, of the rise of a whole lock.
        recede_dm: how far the hairline of the forehead has gone back.
        seed: of the chance.
    """

    count: int
    sides_dm: float
    top_dm: float
    top_from_dm: tuple[float, float] = (0.35, 0.75)
    rise: tuple[float, float] = (0.25, 0.45)
    combed: tuple[float, float, float] = (0.3, 0.0, -1.0)
    curl_dm: float = 0.0
    turns_per_dm: float = 8.0
    stray: float = 0.12
    points: int = 7
    locks: int = 0
    gather: float = 0.6
    lock_stray: float = 0.25
    recede_dm: float = 0.0
    seed: int = 1


def hairiness(texture: Path) -> np.ndarray:
    """Where a skin texture shows hair: (H, W) float32, 0 skin … 1 hair.

    Raises:
        NotFound: there is no readable picture.
    """
    grey = cv2.imread(str(texture), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise NotFound("picture_missing", f"{texture} is no readable picture; unpack the asset archives again.")
    soft = cv2.GaussianBlur(grey, (0, 0), _SOFTENED_PX).astype(np.float32)
    return np.clip((_SKIN_GREY - soft) / (_SKIN_GREY - _HAIR_GREY), 0, 1)


def grow(body: Part, points: np.ndarray, eye_height_dm: float, growth: np.ndarray, cut: Cut) -> np.ndarray:
    """Hairs on the head.

    Args:
        body: the body part, for topology and texture coordinates.
        points: (n, 3) its vertices, unposed.
        eye_height_dm: height of the eyes.
        growth: (H, W) where hair grows in the texture; see ``hairiness``.
        cut: how it is cut.

    Returns:
        (hairs, points, 3) float32, root first; a few hairs fewer than asked for is usual.
    """
    rng = np.random.default_rng(cut.seed)
    roots, normals, uv = _roots(body, points, eye_height_dm, 8 * cut.count, rng)
    height, width = growth.shape
    columns = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
    rows = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
    front = points[:, 2].max()
    receded = np.clip((front - cut.recede_dm - 0.25 - roots[:, 2]) / 0.12, 0, 1) if cut.recede_dm else 1.0
    # Dark specks that the texture has in the face are no hair of the head.
    in_face = (roots[:, 1] < eye_height_dm) & (roots[:, 2] > front - _FACE_DEPTH_DM)
    kept = np.flatnonzero(~in_face & (rng.random(len(roots)) < growth[rows, columns] * receded))[: cut.count]
    return _shape(roots[kept], normals[kept], eye_height_dm, cut, rng)


def _roots(
    body: Part, points: np.ndarray, eye_height_dm: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, normals and texture coordinates spread evenly over the head."""
    polygons = body.polygons
    corners = np.where(polygons >= 0, polygons, polygons[:, :1])
    head = points[corners, 1].min(axis=1) > eye_height_dm - 1.0
    indices = np.arange(polygons.size, dtype=np.int32).reshape(polygons.shape)
    triangles, corner_uv = triangulate(polygons[head], np.where(polygons[head] >= 0, indices[head], -1))
    normals = vertex_normals(points, triangles)
    uv = body.polygon_uv.reshape(-1, 2)
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(triangles), count, p=area / area.sum())
    u, v = rng.random((2, count))
    flip = u + v > 1
    u[flip], v[flip] = 1 - u[flip], 1 - v[flip]
    shares = np.stack([1 - u - v, u, v], axis=1)[:, :, None]
    where = triangles[chosen]
    normal = (normals[where] * shares).sum(axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return (points[where] * shares).sum(axis=1), normal, (uv[corner_uv[chosen]] * shares).sum(axis=1)


def _shape(
    roots: np.ndarray, normals: np.ndarray, eye_height_dm: float, cut: Cut, rng: np.random.Generator
) -> np.ndarray:
    count = len(roots)
    low, high = cut.top_from_dm
    share = np.clip((roots[:, 1] - eye_height_dm - low) / (high - low), 0, 1)
    on_top = (share * share * (3 - 2 * share))[:, None]
    lock = _nearest(roots, min(cut.locks, count)) if cut.locks else None
    sides = np.array([0.0, -1.0, -0.55])
    wish = (1 - on_top) * sides + on_top * np.array(cut.combed) + rng.normal(0, cut.stray, (count, 3))
    if lock is not None:
        wish += on_top * rng.normal(0, cut.lock_stray, (count, 3))[lock]
    flow = wish - normals * (wish * normals).sum(axis=1, keepdims=True)
    flow /= np.maximum(np.linalg.norm(flow, axis=1, keepdims=True), 1e-6)
    length = ((1 - on_top) * cut.sides_dm + on_top * cut.top_dm) * rng.uniform(0.75, 1.1, (count, 1))
    rise = (1 - on_top) * cut.rise[0] + on_top * cut.rise[1]
    rise = np.clip(rise * rng.uniform(0.7, 1.3, (count, 1)), 0, 1)
    if lock is not None:
        rise = np.clip(rise * (1 + 2 * on_top * rng.normal(0, cut.lock_stray, (count, 1))[lock]), 0, 1)
    across = np.cross(normals, flow)
    phase = rng.uniform(0, 2 * np.pi, (count, 1))
    hairs = np.empty((count, cut.points, 3), np.float32)
    for point in range(cut.points):
        along = point / (cut.points - 1) * length
        # A hair leaves the skin steeply and lies down as it gets longer; the head falls away below it.
        lift = rise * length * (1 - np.exp(-2 * along / np.maximum(length, 1e-6))) / (1 - np.exp(-2))
        run = along * np.sqrt(1 - rise**2)
        place = roots + normals * (lift - run**2 / (2 * _HEAD_RADIUS_DM)) + flow * run
        angle = phase + 2 * np.pi * cut.turns_per_dm * along
        coil = across * (np.cos(angle) - np.cos(phase)) + normals * (np.sin(angle) - np.sin(phase))
        hairs[:, point] = place + cut.curl_dm * coil * min(1.0, 2 * point / (cut.points - 1))
    if lock is not None:
        # Roots stay where they grow; towards the tip a hair leans to the hair in the middle of its lock.
        lean = cut.gather * np.linspace(0, 1, cut.points, dtype=np.float32) ** 1.3
        hairs += lean[:, None] * on_top[:, :, None].astype(np.float32) * (hairs[lock] - hairs)
    return hairs


def _nearest(roots: np.ndarray, locks: int) -> np.ndarray:
    """(n,) which of the first ``locks`` roots is nearest to each; roots lie in random order, so these are spread."""
    middles = roots[:locks]
    return np.concatenate(
        [
            ((roots[start : start + _BLOCK, None] - middles) ** 2).sum(axis=2).argmin(axis=1)
            for start in range(0, len(roots), _BLOCK)
        ]
    )
