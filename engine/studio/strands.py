"""Single hairs over a hair part, so that a painted shell reads as hair: they follow its painted flow.

Place in the flow: the hair part of a ``Figure`` -> strand points -> ``Scene`` (hair curves of the path tracer).

Invariants:
    * a strand starts on the shell and stays close to it;
    * the same seed gives the same hairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.studio.mesh import triangulate, vertex_normals

_NEIGHBOURS = 6
_BLOCK = 2000
_REACH_DM = 0.10


@dataclass(frozen=True)
class Combing:
    """How the hairs lie.

    Attributes:
        count: number of hairs.
        length_dm: shortest and longest hair.
        points: control points of a hair.
        lift_dm: lowest and highest distance from the shell at mid-length.
        drift: how far hairs stray from the flow, standard deviation as a share of the length.
        seed: of the chance.
    """

    count: int = 12_000
    length_dm: tuple[float, float] = (0.5, 1.3)
    points: int = 8
    lift_dm: tuple[float, float] = (0.004, 0.035)
    drift: float = 0.03
    seed: int = 1


def flow_along_texture(
    vertices: np.ndarray, polygons: np.ndarray, polygon_uv: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """Where the painted hair runs, as unit vectors on the surface.

    Args:
        vertices: (n, 3) the shell.
        polygons: (P, 4) int32, -1 as fourth corner of a triangle.
        polygon_uv: (P, 4, 2) texture coordinates.
        direction: (P, 2) direction of the painted hair in texture coordinates, root to tip.

    Returns:
        (n, 3) float64; zero where no polygon is.
    """
    u, v = polygon_uv[:, 1] - polygon_uv[:, 0], polygon_uv[:, 2] - polygon_uv[:, 0]
    edge_u = vertices[polygons[:, 1]] - vertices[polygons[:, 0]]
    edge_v = vertices[polygons[:, 2]] - vertices[polygons[:, 0]]
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    area = np.where(np.abs(area) < 1e-12, 1e-12, area)
    # Coefficients that write the texture direction in the two edges; the same ones give it in space.
    along_u = (direction[:, 0] * v[:, 1] - direction[:, 1] * v[:, 0]) / area
    along_v = (direction[:, 1] * u[:, 0] - direction[:, 0] * u[:, 1]) / area
    flow = edge_u * along_u[:, None] + edge_v * along_v[:, None]
    flow /= np.maximum(np.linalg.norm(flow, axis=1, keepdims=True), 1e-9)
    total = np.zeros((len(vertices), 3))
    for corner in range(4):
        there = polygons[:, corner] >= 0
        np.add.at(total, polygons[there, corner], flow[there])
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)


def comb(vertices: np.ndarray, polygons: np.ndarray, flow: np.ndarray, combing: Combing) -> np.ndarray:
    """Hairs on a shell.

    Args:
        vertices: (n, 3) the shell.
        polygons: (P, 4) int32, -1 as fourth corner of a triangle.
        flow: (n, 3) unit directions of the hair on the shell.
        combing: how they lie.

    Returns:
        (count, points, 3) float32, root first.
    """
    rng = np.random.default_rng(combing.seed)
    triangles, _ = triangulate(polygons, np.zeros_like(polygons))
    normals = vertex_normals(vertices, triangles)
    # A shell of cards has both orientations: outside is away from the middle of the head.
    middle = vertices.mean(axis=0)
    normals = normals * np.sign(((vertices - middle) * normals).sum(axis=1, keepdims=True))
    place = _scatter(vertices, triangles, combing.count, rng)
    length = rng.uniform(*combing.length_dm, combing.count)
    lift = rng.uniform(*combing.lift_dm, combing.count)
    drift = rng.normal(0, combing.drift, combing.count)
    step = length / (combing.points - 1)
    used = np.unique(triangles)
    surface = np.concatenate([vertices, normals, flow], axis=1)[used]
    hairs = np.empty((combing.count, combing.points, 3), np.float32)
    for point in range(combing.points):
        along = point / (combing.points - 1)
        place, normal, heading = _settle(place, surface)
        # Hairs rise from the root and lie down again towards the tip.
        hairs[:, point] = place + normal * (lift * np.sin(np.pi * min(0.9, 0.15 + along)))[:, None]
        heading = heading + np.cross(normal, heading) * drift[:, None]
        place = place + heading * step[:, None]
    return hairs


def _scatter(vertices: np.ndarray, triangles: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) points spread evenly over a surface."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(triangles), count, p=area / area.sum())
    u, v = rng.random((2, count))
    flip = u + v > 1
    u[flip], v[flip] = 1 - u[flip], 1 - v[flip]
    shares = np.stack([1 - u - v, u, v], axis=1)[:, :, None]
    return (vertices[triangles[chosen]] * shares).sum(axis=1)


def _settle(points: np.ndarray, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drop points onto the smooth surface through nearby vertices (moving least squares, first order).

    Args:
        points: (n, 3).
        surface: (V, 9) positions, unit normals and unit flow of the vertices.

    Returns:
        (n, 3) positions on the surface, (n, 3) normals, (n, 3) flow; the flow is zero beyond the rim of the shell.
    """
    blocks = []
    for start in range(0, len(points), _BLOCK):
        piece = points[start : start + _BLOCK]
        squared = ((piece[:, None] - surface[None, :, :3]) ** 2).sum(axis=2)
        nearest = np.argpartition(squared, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        share = 1 / (np.take_along_axis(squared, nearest, axis=1) + 1e-4)
        mean = (surface[nearest] * (share / share.sum(axis=1, keepdims=True))[:, :, None]).sum(axis=1)
        normal = mean[:, 3:6] / np.maximum(np.linalg.norm(mean[:, 3:6], axis=1, keepdims=True), 1e-6)
        heading = mean[:, 6:] / np.maximum(np.linalg.norm(mean[:, 6:], axis=1, keepdims=True), 1e-6)
        on_surface = piece - normal * ((piece - mean[:, :3]) * normal).sum(axis=1, keepdims=True)
        inside = np.linalg.norm(on_surface - mean[:, :3], axis=1, keepdims=True) < _REACH_DM
        blocks.append((on_surface, normal, heading * inside))
    positions, normals, headings = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return positions, normals, headings
