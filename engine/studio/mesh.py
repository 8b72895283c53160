"""Polygon meshes as arrays: reading Wavefront files, cutting, triangulating, vertex normals.

Place in the flow: asset files -> ``Mesh`` -> targets and proxies move its vertices -> rasterizer or path tracer.

Invariants:
    * a polygon has three or four corners; a triangle's fourth corner is -1;
    * texture coordinates belong to corners, not to vertices, so seams need no doubled vertices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """A polygon mesh.

    Attributes:
        vertices: (V, 3) float32, decimetres, y up, z towards the viewer.
        uv: (T, 2) float32 texture coordinates, v up.
        polygons: (P, 4) int32 vertex indices, -1 in the last column of a triangle.
        corner_uv: (P, 4) int32 indices into ``uv``, 0 where a corner is absent.
        groups: (P,) name of the group of each polygon.
    """

    vertices: np.ndarray
    uv: np.ndarray
    polygons: np.ndarray
    corner_uv: np.ndarray
    groups: np.ndarray


def load_obj(path: Path) -> Mesh:
    """Read a Wavefront OBJ file; polygons with more than four corners become fans of triangles."""
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    polygons: list[list[int]] = []
    corner_uv: list[list[int]] = []
    groups: list[str] = []
    group = ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        word, _, rest = line.partition(" ")
        if word == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif word == "vt":
            uv.append([float(x) for x in rest.split()[:2]])
        elif word == "g":
            group = rest.split()[0] if rest.split() else ""
        elif word == "f":
            corners = [corner.split("/") for corner in rest.split()]
            points = [int(corner[0]) - 1 for corner in corners]
            coordinates = [int(corner[1]) - 1 if len(corner) > 1 and corner[1] else 0 for corner in corners]
            for piece in _split_polygon(len(points)):
                polygons.append([points[i] if i >= 0 else -1 for i in piece])
                corner_uv.append([coordinates[i] if i >= 0 else 0 for i in piece])
                groups.append(group)
    return Mesh(
        np.array(vertices, np.float32).reshape(-1, 3),
        np.array(uv or [[0.0, 0.0]], np.float32).reshape(-1, 2),
        np.array(polygons, np.int32).reshape(-1, 4),
        np.array(corner_uv, np.int32).reshape(-1, 4),
        np.array(groups, dtype=str),
    )


def _split_polygon(corners: int) -> list[tuple[int, int, int, int]]:
    if corners == 4:
        return [(0, 1, 2, 3)]
    return [(0, i, i + 1, -1) for i in range(1, corners - 1)]


def triangulate(polygons: np.ndarray, corner_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of polygons, with one value per corner carried along.

    Args:
        polygons: (P, 4) int32, see ``Mesh``.
        corner_values: (P, 4) int32.

    Returns:
        (F, 3) triangles and (F, 3) corner values; the triangles of one quad follow one another.
    """
    first = np.stack([polygons[:, [0, 1, 2]], corner_values[:, [0, 1, 2]]])
    second = np.stack([polygons[:, [0, 2, 3]], corner_values[:, [0, 2, 3]]])
    both = np.stack([first, second], axis=2).reshape(2, -1, 3)
    keep = both[0].min(axis=1) >= 0
    return both[0][keep], both[1][keep]


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals.

    Args:
        vertices: (V, 3).
        triangles: (F, 3) counter-clockwise seen from outside.

    Returns:
        (V, 3) float32; zero for vertices of no triangle.
    """
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    faces = np.cross(b - a, c - a)
    normals = np.stack(
        [
            np.bincount(triangles.ravel(), np.repeat(faces[:, axis], 3), minlength=len(vertices))
            for axis in range(3)
        ],
        axis=1,
    )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.maximum(length, 1e-12)).astype(np.float32)
