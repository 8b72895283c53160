"""A person ready to be posed and drawn: body, eyes, teeth, tongue, brows, lashes, hair and clothes as bound parts.

Place in the flow: ``Human`` + ``Identity`` -> ``Figure`` -> vertices per expression and pose -> rasterizer (training
pictures) or scene export (path tracing).

Invariants:
    * part order, topology and texture coordinates never change with the pose;
    * vertices are linear in the expression weights; bones are applied after them.

Units are decimetres; y is up, z towards the viewer, x to the person's left (the viewer's right).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.studio.human import Human
from engine.studio.identity import Identity
from engine.studio.mesh import Mesh, triangulate
from engine.studio.proxy import Proxy, load_proxy
from engine.studio.rig import rotation, skin

ARMS_DOWN: Mapping[str, np.ndarray] = {
    "upperarm01.L": rotation(0, 0, -0.75),
    "upperarm01.R": rotation(0, 0, 0.75),
    "clavicle.L": rotation(0, 0, -0.06),
    "clavicle.R": rotation(0, 0, 0.06),
}
"""The base mesh stands with arms spread; this lets them hang."""

_BODY_FROM_DM = 4.2
_CLOTHES_FROM_DM = 3.6


@dataclass(frozen=True)
class Part:
    """One textured piece of a figure.

    Attributes:
        name: ``body``, ``eyes``, ``teeth``, ``tongue``, ``brows``, ``lashes``, ``hair`` or ``clothes``.
        texture: image file.
        polygons: (P, 4) int32 into the part's vertices, -1 as fourth corner of a triangle.
        polygon_uv: (P, 4, 2) float32 texture coordinates per corner.
        anchors: (n, 3) int32 body vertices each vertex hangs on.
        weights: (n, 3) float32.
        offsets: (n, 3) float32 decimetres.
        bone_weights: (n, bones) float32.
        faces: (F, 3) int32 triangles into the split vertices.
        split: (m,) int32 vertex of each split vertex; split vertices have one texture coordinate each.
        uv: (m, 2) float32 texture coordinates of the split vertices, v up.
    """

    name: str
    texture: Path
    polygons: np.ndarray
    polygon_uv: np.ndarray
    anchors: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    bone_weights: np.ndarray
    faces: np.ndarray = field(init=False)
    split: np.ndarray = field(init=False)
    uv: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Split vertices where texture coordinates meet in a seam."""
        flat_uv, index = np.unique(self.polygon_uv.reshape(-1, 2), axis=0, return_inverse=True)
        triangles, triangle_uv = triangulate(self.polygons, index.reshape(-1, 4).astype(np.int32))
        pairs, corner = np.unique(
            np.stack([triangles.ravel(), triangle_uv.ravel()], axis=1), axis=0, return_inverse=True
        )
        object.__setattr__(self, "faces", corner.reshape(-1, 3).astype(np.int32))
        object.__setattr__(self, "split", pairs[:, 0].astype(np.int32))
        object.__setattr__(self, "uv", flat_uv[pairs[:, 1]].astype(np.float32))

    def attach(self, body: np.ndarray) -> np.ndarray:
        """(n, 3) float32 vertices for an unposed body (V, 3)."""
        return (body[self.anchors] * self.weights[:, :, None]).sum(axis=1) + self.offsets

    def attach_linear(self, displacement: np.ndarray) -> np.ndarray:
        """How the part's vertices move with a displacement (V, 3) of the body: ``attach`` without its offsets."""
        return (displacement[self.anchors] * self.weights[:, :, None]).sum(axis=1)


class Figure:
    """One person with all parts.

    Attributes:
        human: the base human.
        identity: who it is.
        body: (V, 3) float32 shaped, unposed body including helper vertices.
        parts: the parts, body first.
    """

    def __init__(self, human: Human, identity: Identity) -> None:
        """Shape the body and fit every part to it.

        Raises:
            NotFound: the identity names a part or texture that the assets do not have.
            KeyError: it names an unknown target.
        """
        self.human = human
        self.identity = identity
        self.body = human.shape(identity.macro, identity.details)
        assets = human.assets
        clothes = load_proxy(assets.proxy("clothes", identity.clothes)) if identity.clothes else None
        self.parts: list[Part] = [self._body_part(assets.skin(identity.skin), clothes)]
        wanted = (
            ("eyes", "eyes", "high-poly", assets.iris(identity.iris)),
            ("teeth", "teeth", identity.teeth, assets.texture("teeth", identity.teeth)),
            ("tongue", "tongue", "tongue01", assets.texture("tongue", "tongue01")),
            ("brows", "eyebrows", identity.brows, None),
            ("lashes", "eyelashes", identity.lashes, None),
            ("hair", "hair", identity.hair, None),
        )
        for name, kind, asset, texture in wanted:
            if asset:
                proxy = load_proxy(assets.proxy(kind, asset))
                self.parts.append(self._fitted_part(name, proxy, texture or assets.texture(kind, asset)))
        if clothes and identity.clothes:
            self.parts.append(self._fitted_part("clothes", clothes, assets.texture("clothes", identity.clothes)))

    def part(self, name: str) -> Part:
        """The part of that name; KeyError when the figure has none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def expressed(self, expression: Mapping[str, float]) -> np.ndarray:
        """(V, 3) float32 unposed body with expression targets added."""
        body = self.body.copy()
        self.human.targets.add_to(body, expression)
        return body

    def bone_matrices(self, rotations: Mapping[str, np.ndarray]) -> np.ndarray:
        """(bones, 4, 4) float32 for ``rig.skin`` of this person."""
        return self.human.rig.matrices(self.body, rotations)

    def deform(
        self, expression: Mapping[str, float], rotations: Mapping[str, np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Vertices of every part.

        Args:
            expression: target name -> weight.
            rotations: bone -> (3, 3) rotation, see ``Rig.matrices``.

        Returns:
            One (n, 3) float32 array per part, for its ``polygons``.
        """
        body = self.expressed(expression)
        points = [part.attach(body) for part in self.parts]
        if not rotations:
            return points
        matrices = self.bone_matrices(rotations)
        return [skin(p, part.bone_weights, matrices) for p, part in zip(points, self.parts, strict=True)]

    def pose(
        self, expression: Mapping[str, float], rotations: Mapping[str, np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Like ``deform``, with the vertices split for ``faces`` and ``uv``: one (m, 3) array per part."""
        return [
            p[part.split] for p, part in zip(self.deform(expression, rotations), self.parts, strict=True)
        ]

    def linear_basis(self, targets: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The figure as a linear function of some targets, for fast repeated posing.

        Args:
            targets: names of expression targets.

        Returns:
            Per part: unposed split vertices (m, 3) and their displacements per target (len(targets), m, 3), float32.
        """
        displacements = np.zeros((len(targets), *self.body.shape), np.float32)
        for row, name in enumerate(targets):
            self.human.targets.add_to(displacements[row], {name: 1.0})
        return [
            (
                part.attach(self.body)[part.split],
                np.stack([part.attach_linear(d) for d in displacements])[:, part.split].astype(np.float32),
            )
            for part in self.parts
        ]

    def _body_part(self, texture: Path, clothes: Proxy | None) -> Part:
        base = self.human.base
        covered = np.zeros(len(self.body), bool)
        if clothes is not None:
            covered[clothes.hidden] = True
        corners = np.where(base.polygons >= 0, base.polygons, base.polygons[:, :1])
        keep = (
            (base.groups == "body")
            & (self.body[corners, 1].max(axis=1) > _BODY_FROM_DM)
            & ~covered[corners].all(axis=1)
        )
        indices = np.arange(len(self.body), dtype=np.int32)
        anchors = np.stack([indices] * 3, axis=1)
        weights = np.tile(np.array([1, 0, 0], np.float32), (len(indices), 1))
        return self._cut("body", base, texture, keep, anchors, weights, np.zeros((len(indices), 3), np.float32))

    def _fitted_part(self, name: str, proxy: Proxy, texture: Path) -> Part:
        offsets = proxy.scaled_offsets(self.body)
        unmoved = (self.body[proxy.anchors] * proxy.weights[:, :, None]).sum(axis=1) + offsets
        if name == "teeth":
            offsets = offsets + teeth_correction(unmoved, self.human.group_of_vertex[proxy.anchors[:, 0]])
        elif name == "tongue":
            offsets = offsets + np.array([0, -0.10, -0.06], np.float32)
        keep = np.ones(len(proxy.mesh.polygons), bool)
        if name == "clothes":
            polygons = proxy.mesh.polygons
            corners = np.where(polygons >= 0, polygons, polygons[:, :1])
            keep = unmoved[corners, 1].max(axis=1) > _CLOTHES_FROM_DM
        return self._cut(name, proxy.mesh, texture, keep, proxy.anchors, proxy.weights, offsets)

    def _cut(
        self,
        name: str,
        mesh: Mesh,
        texture: Path,
        keep: np.ndarray,
        anchors: np.ndarray,
        weights: np.ndarray,
        offsets: np.ndarray,
    ) -> Part:
        """Keep some polygons of a mesh and the vertices they use."""
        polygons = mesh.polygons[keep]
        used = np.unique(polygons[polygons >= 0])
        renumber = np.full(len(anchors) + 1, -1, np.int32)
        renumber[used] = np.arange(len(used))
        share = np.clip(weights[used], 0, 1)
        bone_weights = (self.human.rig.skin_weights[anchors[used]] * share[:, :, None]).sum(axis=1)
        return Part(
            name=name,
            texture=texture,
            polygons=renumber[polygons],
            polygon_uv=mesh.uv[mesh.corner_uv[keep]],
            anchors=anchors[used],
            weights=weights[used],
            offsets=offsets[used].astype(np.float32),
            bone_weights=bone_weights / np.maximum(bone_weights.sum(axis=1, keepdims=True), 1e-6),
        )


def teeth_correction(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Offsets that put the library's teeth where speech shows them.

    They sit too high and too wide: the upper row goes 3 mm down, the lower 4.5 mm down and 1 mm back, and the arch
    gets narrower (8 % in front, more towards the molars) and 2 mm deeper, so that no molars shine in the corners of
    the mouth.

    Args:
        points: (n, 3) fitted teeth, decimetres.
        groups: (n,) group of the body vertex each hangs on.

    Returns:
        (n, 3) float32.
    """
    upper = (groups == "helper-upper-teeth")[:, None]
    shift = np.where(upper, np.array([0, -0.03, -0.02]), np.array([0, -0.045, -0.03]))
    sideways = points[:, 0]
    shift[:, 0] = -0.08 * sideways - 0.25 * np.sign(sideways) * np.maximum(np.abs(sideways) - 0.13, 0)
    return shift.astype(np.float32)
