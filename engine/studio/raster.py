"""Draws a posed head on the CPU together with exact per-pixel truth: where each surface point was in another pose.

Place in the flow: posed vertices of a studio figure -> image and dense motion -> training pairs of the picture net.

Invariants:
    * camera space is x right, y up, z the depth; pixels are x right, y down, the first one's centre is (0.5, 0.5);
    * colour is BGR; textures and images hold display values, shading happens in linear light;
    * a pixel is the mean of ``samples`` x ``samples`` sub-pixels, and truth is counted on the same sub-pixels;
    * drawing is deterministic: the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.studio import raster_kernels as kernels

PARTS: tuple[str, ...] = ("body", "eyes", "teeth", "tongue", "brows", "lashes", "hair", "clothes")
"""What a triangle can belong to; its index is the part id."""
PART_ID: Mapping[str, int] = {name: index for index, name in enumerate(PARTS)}

_DARKEST_MOUTH = 0.07
_MOUTH_WALLS = np.array([0.32, 0.35], np.float32)


@dataclass(frozen=True)
class Surface:
    """All that stays the same while one head moves.

    Attributes:
        triangles: (F, 3) int32 vertex indices, counter-clockwise seen from outside.
        part: (F,) int32 index into ``PARTS``.
        uv: (V, 2) float32 texture coordinates, v upwards.
        welded: (V,) int32, the same number for vertices at one place (texture seams), so that they share a normal.
        occlusion: (V,) float32 in [0, 1], how much light reaches the vertex (mouth cavity is dark).
        mouth: (V,) float32, 1 where a surface of the body is a wall of the mouth.
        texels: flat uint8 BGRA of all part textures one after another.
        texture_offset: (len(PARTS),) int64, where a part's texture starts in ``texels``.
        texture_size: (len(PARTS),) int64, side of a part's square texture in texels.
    """

    triangles: np.ndarray
    part: np.ndarray
    uv: np.ndarray
    welded: np.ndarray
    occlusion: np.ndarray
    mouth: np.ndarray
    texels: np.ndarray
    texture_offset: np.ndarray
    texture_size: np.ndarray


@dataclass(frozen=True)
class View:
    """A head turn and a pinhole camera.

    Attributes:
        rotation: (3, 3) float32 turns the head about ``pivot``.
        pivot: (3,) float32, head units.
        target: (3,) float32 point straight ahead of the camera, head units (1 unit = 10 cm).
        distance: camera to target, head units.
        focal: pixels per unit of (x / depth).
        offset: (2,) pixel position of the target in the image.
        roll: turn of the picture in radians.
        size: side of the square image, pixels.
    """

    rotation: np.ndarray
    pivot: np.ndarray
    target: np.ndarray
    distance: float
    focal: float
    offset: tuple[float, float]
    roll: float
    size: int

    def camera(self, points: np.ndarray) -> np.ndarray:
        """Head space -> camera space: (n, 3) -> (n, 3) float32, z the depth in front of the camera."""
        turned = (points - self.pivot) @ self.rotation.T + self.pivot - self.target
        cosine, sine = np.cos(self.roll), np.sin(self.roll)
        x, y = turned[:, 0] * cosine - turned[:, 1] * sine, turned[:, 0] * sine + turned[:, 1] * cosine
        return np.stack([x, y, self.distance - turned[:, 2]], 1).astype(np.float32)

    def pixels(self, camera: np.ndarray) -> np.ndarray:
        """Camera space -> (n, 2) float32 pixel positions."""
        x = self.offset[0] + self.focal * camera[:, 0] / camera[:, 2]
        y = self.offset[1] - self.focal * camera[:, 1] / camera[:, 2]
        return np.stack([x, y], 1).astype(np.float32)

    def cropped(self, centre: tuple[float, float], side: float, size: int) -> View:
        """The view that shows the square of this one's image (centre and side in pixels) at ``size`` pixels."""
        scale = size / side
        offset = (
            size / 2 + (self.offset[0] - centre[0]) * scale,
            size / 2 + (self.offset[1] - centre[1]) * scale,
        )
        return View(self.rotation, self.pivot, self.target, self.distance, self.focal * scale, offset, self.roll, size)


@dataclass(frozen=True)
class Light:
    """Three directional lights and a hemisphere.

    Attributes:
        direction: (3, 3) float32 unit vectors towards the lights, camera space.
        colour: (3, 3) float32 linear BGR of each light.
        ambient: (3,) float32 linear BGR from all around.
        tint: (len(PARTS), 3) float32 linear BGR factor on each part's texture.
        gloss: factor on the skin's specular highlight.
    """

    direction: np.ndarray
    colour: np.ndarray
    ambient: np.ndarray
    tint: np.ndarray
    gloss: float = 1.0


@dataclass(frozen=True)
class Drawing:
    """A picture and what is behind each of its sub-pixels.

    Attributes:
        image: (size, size, 3) uint8 BGR.
        hit: (n, n) int32 triangle per sub-pixel (n = size * samples), -1 for the background, -2 - triangle for the
            inside of the body, seen through the open mouth.
        weight: (n, n, 2) float32 barycentric weights of the triangle's first two corners, in head space.
        nearness: (n, n) float32, 1 / depth; 0 for the background.
    """

    image: np.ndarray
    hit: np.ndarray
    weight: np.ndarray
    nearness: np.ndarray


@dataclass(frozen=True)
class Motion:
    """Dense truth of a target picture against a reference picture of the same head, camera and light.

    Attributes:
        flow: (size, size, 2) float32 pixels: the surface seen at p in the target is at p + flow in the reference.
        seen: (size, size) float32 share of the pixel whose surface is visible in the reference, so that flow is exact.
        opened: (size, size) float32 share of the pixel showing the mouth's inside: teeth, tongue, walls, darkness.
        part: (size, size) uint8 index into ``PARTS`` of the pixel's centre, 255 for background and inside.
    """

    flow: np.ndarray
    seen: np.ndarray
    opened: np.ndarray
    part: np.ndarray


def weld(vertices: np.ndarray) -> np.ndarray:
    """Numbers vertices so that those at the same place (to 0.01 mm) share a number.

    Args:
        vertices: (V, 3) head units.

    Returns:
        (V,) int32.
    """
    places = np.round(vertices, 4)
    return np.unique(places, axis=0, return_inverse=True)[1].ravel().astype(np.int32)


def mouth_shade(vertices: np.ndarray, vertex_part: np.ndarray, mouth_centre: np.ndarray) -> np.ndarray:
    """How much light reaches each vertex of the rest pose, as far as the mouth's own walls are concerned.

    A stand-in for ambient occlusion: the further behind the lips, the darker; cheeks shade the side teeth.

    Args:
        vertices: (V, 3) rest pose, head units.
        vertex_part: (V,) index into ``PARTS``.
        mouth_centre: (3,) middle of the front teeth, head units.

    Returns:
        (V,) float32 in [0, 1].
    """
    offset = vertices - mouth_centre
    depth = -offset[:, 2]
    wall = (vertex_part == PART_ID["body"]) & (np.abs(offset[:, :2]) < _MOUTH_WALLS).all(1) & (depth > 0)
    inside = (wall | np.isin(vertex_part, (PART_ID["teeth"], PART_ID["tongue"]))) & (depth > -0.05)
    shade = np.where(inside, np.clip(1.12 - np.maximum(depth, 0) * 2.3, _DARKEST_MOUTH, 1), 1.0)
    side = np.clip(1.35 - np.abs(vertices[:, 0]) / 0.19, 0.10, 1)
    return np.where(vertex_part == PART_ID["teeth"], shade * side, shade).astype(np.float32)


def draw(
    surface: Surface,
    vertices: np.ndarray,
    view: View,
    light: Light,
    background: np.ndarray,
    samples: int = 2,
) -> Drawing:
    """Draws a posed head.

    Args:
        surface: the head.
        vertices: (V, 3) float32 posed vertices, head units, before the view's head turn.
        view: camera.
        light: lights and tints.
        background: (size, size, 3) float32 linear BGR.
        samples: sub-pixels per pixel and axis.
    """
    camera = view.camera(vertices)
    normals = kernels.vertex_normals(camera, surface.welded, surface.triangles)
    screen = np.concatenate([view.pixels(camera) * samples, 1 / camera[:, 2:]], 1).astype(np.float32)
    n = view.size * samples
    hit = np.full((n, n), -1, np.int32)
    weight = np.zeros((n, n, 2), np.float32)
    nearness = np.zeros((n, n), np.float32)
    kernels.find_nearest(
        screen, surface.triangles, surface.part, surface.uv, surface.texels, surface.texture_offset,
        surface.texture_size, hit, weight, nearness,
    )  # fmt: skip
    colour = np.repeat(np.repeat(background.astype(np.float32), samples, 0), samples, 1)
    shading = (
        normals, surface.occlusion, surface.uv, surface.triangles, surface.part, surface.texels,
        surface.texture_offset, surface.texture_size, light.direction, light.colour, light.ambient, light.tint,
        np.float32(light.gloss),
    )  # fmt: skip
    kernels.shade_nearest(hit, weight, shading, colour)
    kernels.blend_transparent(screen, nearness, shading, colour)
    image = np.empty((view.size, view.size, 3), np.uint8)
    kernels.resolve(colour, samples, image)
    return Drawing(image, hit, weight, nearness)


def motion(surface: Surface, target: Drawing, reference: Drawing, reference_vertices: np.ndarray, view: View) -> Motion:
    """Where everything seen in the target was in the reference.

    Args:
        surface: the head of both drawings.
        target: drawing of the pose that moved.
        reference: drawing of the reference pose with the same view.
        reference_vertices: (V, 3) float32 vertices of the reference pose.
        view: the view of both.
    """
    camera = view.camera(reference_vertices)
    samples = target.hit.shape[0] // view.size
    flow = np.zeros((view.size, view.size, 2), np.float32)
    seen = np.zeros((view.size, view.size), np.float32)
    opened = np.zeros((view.size, view.size), np.float32)
    part = np.full((view.size, view.size), 255, np.uint8)
    kernels.dense_motion(
        target.hit, target.weight, reference.hit, reference.nearness, camera, surface.triangles, surface.part,
        surface.mouth, np.float32(view.focal), np.array(view.offset, np.float32), samples, flow, seen, opened, part,
    )  # fmt: skip
    return Motion(flow, seen, opened, part)
