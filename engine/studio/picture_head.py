"""A synthetic person made ready for the rasteriser: one mesh, one texture atlas, one linear basis of mouth motion.

Place in the flow: ``Figure`` -> ``Head`` -> ``raster.draw`` -> training pairs of the picture net.

Invariants:
    * vertices are linear in the target weights, so thousands of mouths cost one matrix product each;
    * landmarks are the five of an avatar bundle, in the same order, measured on the same body vertices for everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from engine.errors import NotFound
from engine.studio.figure import Figure
from engine.studio.raster import PART_ID, PARTS, Surface, mouth_shade, weld

_TEXTURE_SIDE = {"body": 1024, "teeth": 512, "hair": 512, "clothes": 512, "tongue": 128}
_OTHER_TEXTURE_SIDE = 256

MOUTH_CORNERS = (428, 7188)
"""Body vertices at the corners of the mouth: the person's right (image left), then left."""
NOSE_TIP = 297
"""Body vertex at the tip of the nose."""
_LIP_REACH = np.array([0.30, 0.13, 0.30], np.float32)
_OPENING_REACH = np.array([0.42, 0.34, 0.60], np.float32)
_WALL_DEPTH_DM, _ARCH_PER_DM = 0.10, 3.0
"""How far behind the front teeth the walls of the mouth begin, and how the arch bends back to the sides."""
_BEARD_REACH = np.array([0.75, 0.80, 0.90], np.float32)


class Head:
    """One person for the rasteriser.

    Attributes:
        surface: everything that does not move.
        rest: (V, 3) float32 vertices without expression, decimetres.
        basis: (len(targets), V, 3) float32 displacement per target.
        targets: names of the targets that move it.
        eyes: (2, 3) float32 middles of the eyeballs, image left first.
    """

    def __init__(
        self,
        figure: Figure,
        targets: Sequence[str],
        skin_paint: Mapping[str, np.ndarray] | None = None,
        teeth_setback_dm: float = 0.0,
    ) -> None:
        """Joins the parts of a figure.

        Args:
            figure: the person.
            targets: expression targets that will be driven.
            skin_paint: linear BGR factors by region, ``lips`` or ``beard``: (3,), or (side, side) noise for ``beard``.
            teeth_setback_dm: how far the teeth go back, for faces whose closed lips they would pierce.
        """
        self.targets = tuple(targets)
        pieces = figure.linear_basis(self.targets)
        starts = np.cumsum([0] + [len(vertices) for vertices, _ in pieces])
        by_name = {part.name: slice(a, b) for part, a, b in zip(figure.parts, starts, starts[1:], strict=False)}
        part_ids = [
            np.full(len(vertices), PART_ID[part.name]) for part, (vertices, _) in zip(figure.parts, pieces, strict=True)
        ]
        rest = np.concatenate([vertices for vertices, _ in pieces]).astype(np.float32)
        basis = np.concatenate([moves for _, moves in pieces], 1)
        rest[by_name["teeth"], 2] -= teeth_setback_dm
        rest[by_name["tongue"], 2] -= teeth_setback_dm
        teeth = rest[by_name["teeth"]]
        mouth_centre = np.array([0, teeth[:, 1].mean(), teeth[:, 2].max()], np.float32)
        triangles = [part.faces + start for part, start in zip(figure.parts, starts, strict=False)]

        self.rest = rest
        self.basis = np.ascontiguousarray(basis, np.float32)

        faces = np.concatenate(triangles).astype(np.int32)
        vertex_part = np.concatenate(part_ids).astype(np.int32)
        uv = np.concatenate([part.uv for part in figure.parts])
        body = vertex_part == PART_ID["body"]
        textures = {part.name: _texture(part.texture, part.name) for part in figure.parts}
        textures["body"] = _painted(textures["body"], skin_paint or {}, rest, uv, faces, body, mouth_centre)
        sizes = [textures[name].shape[0] if name in textures else 1 for name in PARTS]
        counts = [textures[name].size if name in textures else 0 for name in PARTS]
        self.surface = Surface(
            triangles=faces,
            part=vertex_part[faces[:, 0]],
            uv=uv,
            welded=weld(rest),
            occlusion=mouth_shade(rest, vertex_part, mouth_centre),
            mouth=in_mouth(rest, mouth_centre),
            texels=np.concatenate([textures[name].ravel() for name in PARTS if name in textures]),
            texture_offset=np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64),
            texture_size=np.array(sizes, np.int64),
        )
        eyeballs = rest[by_name["eyes"]]
        self.eyes = np.stack([eyeballs[eyeballs[:, 0] < 0].mean(0), eyeballs[eyeballs[:, 0] > 0].mean(0)])
        self._landmark_vertices = _body_vertices(figure, (NOSE_TIP, *MOUTH_CORNERS)) + by_name["body"].start

    def vertices(self, weights: Mapping[str, float]) -> np.ndarray:
        """(V, 3) float32 vertices with expression targets added; KeyError for a target that is not driven."""
        active = {self.targets.index(name): weight for name, weight in weights.items() if weight}
        if not active:
            return self.rest.copy()
        factors = np.array(list(active.values()), np.float32)
        return self.rest + np.tensordot(factors, self.basis[list(active)], 1)

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        """(5, 3) float32 eyes, nose tip and mouth corners of posed vertices, decimetres."""
        return np.concatenate([self.eyes, vertices[self._landmark_vertices]]).astype(np.float32)


def in_mouth(vertices: np.ndarray, mouth_centre: np.ndarray) -> np.ndarray:
    """(V,) float32: 1 for vertices (V, 3) of the mouth's walls, behind the arch of the teeth; inner lips are not."""
    offset = vertices - mouth_centre
    near = np.linalg.norm(offset / _OPENING_REACH, axis=1) < 1
    behind = -offset[:, 2] > _WALL_DEPTH_DM + _ARCH_PER_DM * offset[:, 0] ** 2
    return (near & behind).astype(np.float32)


def _body_vertices(figure: Figure, base_vertices: Sequence[int]) -> np.ndarray:
    """Split vertices of the body part that show some vertices of the base mesh."""
    body = figure.part("body")
    shown = body.anchors[body.split, 0]
    return np.array([np.flatnonzero(shown == vertex)[0] for vertex in base_vertices])


@lru_cache(maxsize=64)
def _texture(path: Path, part: str) -> np.ndarray:
    """(side, side, 4) uint8 BGRA."""
    side = _TEXTURE_SIDE.get(part, _OTHER_TEXTURE_SIDE)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise NotFound("asset_missing", f"The texture {path.name} cannot be read.")
    if image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    return np.ascontiguousarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))


def _painted(
    texture: np.ndarray,
    paint: Mapping[str, np.ndarray],
    rest: np.ndarray,
    uv: np.ndarray,
    faces: np.ndarray,
    body: np.ndarray,
    mouth_centre: np.ndarray,
) -> np.ndarray:
    """Lip colour and beard shade on a skin texture, in the region of the triangles around the mouth."""
    if not paint:
        return texture
    side = texture.shape[0]
    offset = rest - mouth_centre
    lips = body & (np.linalg.norm(offset / _LIP_REACH, axis=1) < 1)
    below = offset + np.array([0, 0.25, 0])
    beard = body & (np.linalg.norm(below / _BEARD_REACH, axis=1) < 1) & (offset[:, 1] < 0.22) & ~lips
    result = texture.astype(np.float32)
    for name, region in (("beard", beard), ("lips", lips)):
        if name not in paint:
            continue
        inside = faces[region[faces].all(1)]
        corners = np.stack([uv[inside][..., 0] * side, (1 - uv[inside][..., 1]) * side], -1)
        filled = np.zeros((side, side), np.float32)
        for corner in np.round(corners).astype(np.int32):
            cv2.fillConvexPoly(filled, corner, 1.0)
        mask = cv2.GaussianBlur(filled, (0, 0), 3 if name == "lips" else 10)[..., None]
        factor = np.asarray(paint[name], np.float32)
        factor = factor[..., None] if factor.ndim == 2 else factor
        # Texture values are display values: the square root turns a linear factor into a display factor.
        result[..., :3] *= 1 - mask + mask * np.sqrt(factor)
    return np.clip(result, 0, 255).astype(np.uint8)
