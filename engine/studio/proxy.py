"""Parts that ride on the body (hair, brows, teeth, clothes …): reading ``.mhclo`` files and fitting them to a shape.

Place in the flow: ``.mhclo`` + OBJ files -> ``Proxy`` -> ``Figure`` binds it to a person's body.

Invariants:
    * every vertex of a proxy is a weighted sum of three body vertices plus an offset, so it follows any shape;
    * offsets scale with the distance of two body landmarks per axis.

Format: the MakeHuman clothes format (documentation of makehumancommunity), read here by our own code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.studio.mesh import Mesh, load_obj


@dataclass(frozen=True)
class Proxy:
    """A part bound to the base mesh.

    Attributes:
        mesh: the part's own mesh; its vertices are only as good as the default body.
        anchors: (V, 3) int32 body vertices each vertex hangs on.
        weights: (V, 3) float32 their shares.
        offsets: (V, 3) float32 decimetres, before scaling.
        scales: axis (0 x, 1 y, 2 z) -> two body vertices and the distance at which the offsets are true.
        hidden: (n,) int32 body vertices that the part covers.
    """

    mesh: Mesh
    anchors: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    scales: dict[int, tuple[int, int, float]]
    hidden: np.ndarray

    def scaled_offsets(self, body: np.ndarray) -> np.ndarray:
        """Offsets for a body shape.

        Args:
            body: (B, 3) vertices of the person's body.

        Returns:
            (V, 3) float32.
        """
        scale = np.ones(3, np.float32)
        for axis, (first, second, distance) in self.scales.items():
            scale[axis] = abs(body[first, axis] - body[second, axis]) / distance
        return self.offsets * scale


def load_proxy(path: Path) -> Proxy:
    """Read a ``.mhclo`` file and the OBJ file it names.

    Raises:
        ValueError: the file does not bind every vertex of its mesh.
    """
    bindings: list[list[float]] = []
    hidden: list[str] = []
    scales: dict[int, tuple[int, int, float]] = {}
    mesh_name, section = "", ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not _is_number(words[0]):
            if words[0] in ("verts", "delete_verts"):
                # Single settings may stand between a section's title and its numbers.
                section = words[0]
            elif words[0] == "obj_file":
                mesh_name = words[1]
            elif words[0] in ("x_scale", "y_scale", "z_scale"):
                scales["xyz".index(words[0][0])] = (int(words[1]), int(words[2]), float(words[3]))
        elif section == "verts":
            numbers = [float(word) for word in words]
            bindings.append(numbers[:9] if len(numbers) >= 9 else [numbers[0]] * 3 + [1.0] + [0.0] * 5)
        elif section == "delete_verts":
            hidden.extend(words)
    mesh = load_obj(path.parent / mesh_name)
    table = np.array(bindings, np.float64).reshape(-1, 9)
    if len(table) != len(mesh.vertices):
        raise ValueError(f"{path.name} binds {len(table)} of {len(mesh.vertices)} vertices")
    return Proxy(
        mesh,
        table[:, :3].astype(np.int32),
        table[:, 3:6].astype(np.float32),
        table[:, 6:].astype(np.float32),
        scales,
        expand_ranges(hidden),
    )


def expand_ranges(words: list[str]) -> np.ndarray:
    """Indices of a list such as ``3 7 - 9``.

    Returns:
        (n,) int32, here 3 7 8 9.
    """
    indices: list[int] = []
    for position, word in enumerate(words):
        if word == "-":
            indices.extend(range(int(words[position - 1]) + 1, int(words[position + 1])))
        else:
            indices.append(int(word))
    return np.array(indices, np.int32)


def _is_number(word: str) -> bool:
    return word.lstrip("-").replace(".", "", 1).isdigit() or word == "-"
