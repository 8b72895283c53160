"""Path-traced pictures of a shipped portrait -> training shards with exact motion, computed from the scene they show.

Place in the flow: scene file + pictures of ``portrait_truth`` -> the rasteriser sees the same meshes through the same
camera -> a shard like those of ``pairs``, for ``picture_train --traced``.
Command: ``python -m engine.studio.picture_traced SCENE.npz TRUTH.npz OUT_FOLDER [--size 512]``.

Invariants:
    * picture 0 is the rest pose, and all pictures share pose, light and camera;
    * colours are the path tracer's, only motion, visibility and opening are the rasteriser's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from engine.lipsync.builtin.crop import CROP_SIZE, eye_mouth_distance, mouth_square
from engine.studio.mesh import triangulate
from engine.studio.pairs import PICTURE_SIZE, write_shard
from engine.studio.picture_head import in_mouth
from engine.studio.raster import PART_ID, PARTS, Light, Surface, View, draw, motion, weld
from engine.studio.scene import Camera, Scene, load_scene

_SOLID = ("body", "eyes", "teeth", "tongue", "clothes")


def scene_view(camera: Camera, size: int) -> View:
    """The rasteriser's view of a path tracer's camera."""
    position, target = np.array(camera.position), np.array(camera.target)
    distance = float(np.linalg.norm(target - position))
    forward = (target - position) / distance
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(right, forward), -forward]).astype(np.float32)
    focal = size / 2 / float(np.tan(np.radians(camera.field_of_view_deg) / 2))
    aim = target.astype(np.float32)
    return View(rotation, aim, aim, distance, focal, (size / 2, size / 2), 0.0, size)


def scene_surface(scene: Scene) -> tuple[Surface, np.ndarray]:
    """The solid meshes of a scene as one surface without textures, and their vertices (frames, V, 3)."""
    parts = [part for part in scene.parts if part.name in _SOLID]
    starts = np.cumsum([0] + [part.frames.shape[1] for part in parts])
    faces = [triangulate(part.polygons, np.zeros_like(part.polygons))[0] for part in parts]
    triangles = np.concatenate([face + start for face, start in zip(faces, starts, strict=False)]).astype(np.int32)
    kinds = np.concatenate([np.full(len(face), PART_ID[part.name]) for face, part in zip(faces, parts, strict=True)])
    vertices = np.concatenate([part.frames for part in parts], 1).astype(np.float32)
    teeth = next(part.frames[0] for part in parts if part.name == "teeth")
    centre = np.array([teeth[:, 0].mean(), teeth[:, 1].mean(), teeth[:, 2].max()], np.float32)
    surface = Surface(
        triangles=triangles,
        part=kinds.astype(np.int32),
        uv=np.zeros((vertices.shape[1], 2), np.float32),
        welded=weld(vertices[0]),
        occlusion=np.ones(vertices.shape[1], np.float32),
        mouth=in_mouth(vertices[0], centre),
        texels=np.full(4, 255, np.uint8),
        texture_offset=np.zeros(len(PARTS), np.int64),
        texture_size=np.ones(len(PARTS), np.int64),
    )
    return surface, vertices


def traced_shard(
    scene: Scene, wide: np.ndarray, landmarks: np.ndarray, mouths: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    """A shard of one person.

    Args:
        scene: what was drawn, one frame per mouth; its border is the cut-out ``wide``.
        wide: (M, side, side, 3) uint8 BGR.
        landmarks: (5, 2) of the rest pose, pixels of ``wide``.
        mouths: (M, shapes); the first is zero.
        size: side of the whole picture, pixels.

    Returns:
        Arrays as ``pairs.make_shard``.
    """
    surface, vertices = scene_surface(scene)
    if scene.borders is None:
        raise ValueError("the scene does not say which cut-out was drawn")
    corner = np.floor(scene.borders[0, :2] * size)
    centre, side = mouth_square(landmarks, eye_mouth_distance(landmarks))
    drawn = float(side) * PICTURE_SIZE / CROP_SIZE
    aim = centre + corner
    view = scene_view(scene.camera, size).cropped((float(aim[0]), float(aim[1])), drawn, PICTURE_SIZE)
    dark = np.zeros((3, 3), np.float32)
    light = Light(np.eye(3, dtype=np.float32), dark, np.ones(3, np.float32), np.ones((len(PARTS), 3), np.float32))
    background = np.zeros((PICTURE_SIZE, PICTURE_SIZE, 3), np.float32)
    drawings = [draw(surface, frame, view, light, background) for frame in vertices]
    moves = [motion(surface, drawing, drawings[0], vertices[0], view) for drawing in drawings]
    scale = PICTURE_SIZE / drawn
    shift = PICTURE_SIZE / 2 - scale * centre + 0.5 * (scale - 1)
    place = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    images = [
        cv2.warpAffine(image, place, (PICTURE_SIZE,) * 2, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        for image in wide
    ]
    return {
        "images": np.stack(images)[None],
        "mouths": mouths[None].astype(np.float32),
        "flow": np.stack([move.flow for move in moves])[None].astype(np.float16),
        "seen": np.round(np.stack([move.seen for move in moves])[None] * 255).astype(np.uint8),
        "opened": np.round(np.stack([move.opened for move in moves])[None] * 255).astype(np.uint8),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m engine.studio.picture_traced", description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=512, help="side of the whole picture, pixels")
    options = parser.parse_args(argv)
    with np.load(options.truth, allow_pickle=False) as truth:
        arrays = traced_shard(
            load_scene(options.scene), truth["wide"], truth["landmarks"], truth["mouths"], options.size
        )
    write_shard(options.out, arrays)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
