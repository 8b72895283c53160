"""The skeleton: bones, skin weights, and the matrices that a set of bone rotations gives.

Place in the flow: rig files -> ``Rig`` -> ``Figure.deform`` moves vertices by linear blend skinning.

Invariants:
    * a bone turns about its head, in world axes, and takes its descendants along;
    * the skin weights of a vertex sum to one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from engine.studio.assets import Assets

POSED_BONES = (
    "root", "spine03", "spine02", "spine01", "neck01", "neck02", "neck03", "head", "eye.L", "eye.R",
    "clavicle.L", "shoulder01.L", "upperarm01.L", "clavicle.R", "shoulder01.R", "upperarm01.R",
)  # fmt: skip
"""The bones that head-and-shoulders pictures move; all others follow their nearest ancestor among these."""


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Rotation matrix: about x (nod down is positive), then y (turn to the person's left), then z (tilt); radians.

    Returns:
        (3, 3) float32.
    """
    (cx, cy, cz), (sx, sy, sz) = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).astype(np.float32)


class Rig:
    """The skeleton of the base mesh, reduced to ``POSED_BONES``.

    Attributes:
        bones: names, parents before children.
        skin_weights: (V, len(bones)) float32, rows sum to one.
    """

    def __init__(
        self,
        parents: Mapping[str, str | None],
        heads: Mapping[str, Sequence[int]],
        weights: Mapping[str, Sequence[tuple[int, float]]],
        vertex_count: int,
        bones: Sequence[str] = POSED_BONES,
    ) -> None:
        """Build a rig.

        Args:
            parents: bone -> parent, for every bone of the skeleton.
            heads: bone -> body vertices whose mean is the bone's head.
            weights: bone -> pairs of vertex and weight.
            vertex_count: vertices of the body.
            bones: the bones to keep, parents before children; the first takes what has no kept ancestor.
        """
        self.bones = tuple(bones)
        self._heads = {bone: np.array(heads[bone]) for bone in bones}
        self._parent = {bone: _kept_ancestor(parents[bone], parents, bones) for bone in bones}
        table = np.zeros((vertex_count, len(bones)), np.float32)
        for bone, pairs in weights.items():
            kept = _kept_ancestor(bone, parents, bones) or bones[0]
            indices = np.array([index for index, _ in pairs], np.int64)
            np.add.at(table[:, self.bones.index(kept)], indices, np.array([x for _, x in pairs], np.float32))
        unbound = table.sum(axis=1) == 0
        table[unbound, 0] = 1
        self.skin_weights = table / table.sum(axis=1, keepdims=True)

    @classmethod
    def load(cls, assets: Assets, vertex_count: int) -> Rig:
        """Read the default rig of an assets directory."""
        skeleton = json.loads(assets.rig_file("default.mhskel").read_text(encoding="utf-8"))
        weights = json.loads(assets.rig_file(skeleton["weights_file"]).read_text(encoding="utf-8"))["weights"]
        bones = skeleton["bones"]
        return cls(
            {name: bone["parent"] for name, bone in bones.items()},
            {name: skeleton["joints"][bone["head"]] for name, bone in bones.items()},
            weights,
            vertex_count,
        )

    def head_of(self, bone: str, body: np.ndarray) -> np.ndarray:
        """(3,) position of a bone's head in a body shape (V, 3)."""
        return body[self._heads[bone]].mean(axis=0)

    def matrices(self, body: np.ndarray, rotations: Mapping[str, np.ndarray]) -> np.ndarray:
        """World matrices of the bones.

        Args:
            body: (V, 3) the unposed body.
            rotations: bone -> (3, 3) rotation; bones not named stay.

        Returns:
            (len(bones), 4, 4) float32 that map unposed to posed positions.

        Raises:
            KeyError: a rotation of a bone that is not kept.
        """
        unknown = set(rotations) - set(self.bones)
        if unknown:
            raise KeyError(f"no such bones: {sorted(unknown)}")
        posed: dict[str, np.ndarray] = {}
        for bone in self.bones:
            parent = self._parent[bone]
            matrix = posed[parent] if parent else np.eye(4)
            if bone in rotations:
                head, turn, local = self.head_of(bone, body), rotations[bone], np.eye(4)
                local[:3, :3] = turn
                local[:3, 3] = head - turn @ head
                matrix = matrix @ local
            posed[bone] = matrix
        return np.stack([posed[bone] for bone in self.bones]).astype(np.float32)


def skin(points: np.ndarray, weights: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Linear blend skinning.

    Args:
        points: (n, 3) unposed.
        weights: (n, B) rows sum to one.
        matrices: (B, 4, 4).

    Returns:
        (n, 3) float32 posed.
    """
    blended = np.tensordot(weights, matrices[:, :3], axes=1)
    return np.einsum("nij,nj->ni", blended[:, :, :3], points) + blended[:, :, 3]


def _kept_ancestor(bone: str | None, parents: Mapping[str, str | None], kept: Sequence[str]) -> str | None:
    while bone is not None and bone not in kept:
        bone = parents[bone]
    return bone
