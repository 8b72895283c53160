"""Truth for path-traced pictures: the rasteriser must see the scene exactly as the path tracer's camera does."""

from __future__ import annotations

import numpy as np
import pytest

from engine.lipsync.builtin.crop import eye_mouth_distance, mouth_square
from engine.studio.pairs import PICTURE_SIZE
from engine.studio.picture_traced import scene_view, traced_shard
from engine.studio.scene import AreaLight, Camera, Look, Scene, ScenePart

CAMERA = Camera((0.6, 6.9, 13.0), (0.0, 6.5, 1.0), 20.0, 12.0, 4.0)
LOOK = Look((AreaLight((0.0, 9.0, 9.0), 3.0, 50.0),), (0.1, 0.1, 0.1), ((0.2, 0.2, 0.2), (0.3, 0.3, 0.3)), (0.0, 0.0))
SIZE = 256


def wall(name: str, z: float, frames: np.ndarray, half: float) -> ScenePart:
    """A square that faces the camera and moves by frames (N, 3)."""
    corners = np.array([[-half, 6.5 - half, z], [half, 6.5 - half, z], [half, 6.5 + half, z], [-half, 6.5 + half, z]])
    polygons = np.array([[0, 1, 2, 3]], np.int32)
    moved = (corners + frames[:, None]).astype(np.float32)
    return ScenePart(name, None, (1.0, 1.0, 1.0), polygons, np.zeros((1, 4, 2), np.float32), moved)


def test_the_view_projects_like_the_camera() -> None:
    points = np.random.default_rng(0).normal([0, 6.5, 1], 0.6, (30, 3)).astype(np.float32)
    view = scene_view(CAMERA, SIZE)
    assert view.pixels(view.camera(points)) == pytest.approx(CAMERA.project(points, SIZE), abs=0.02)


def test_a_shard_holds_the_motion_between_the_pictures() -> None:
    moves = np.array([[0, 0, 0], [0.2, 0, 0], [0, -0.15, 0]], np.float32)
    still = np.zeros_like(moves)
    scene = Scene(
        CAMERA, LOOK, [wall("body", 1.0, moves, 2.0), wall("teeth", 0.0, still, 0.2)], (),
        np.tile(np.array([40, 40, 216, 216], np.float32) / SIZE, (3, 1)),
    )  # fmt: skip
    corner = np.array([40, 40], np.float32)
    space = np.array([[-0.4, 7.0, 1], [0.4, 7.0, 1], [0, 6.8, 1], [-0.2, 6.5, 1], [0.2, 6.5, 1]])
    landmarks = CAMERA.project(space, SIZE) - corner
    wide = np.random.default_rng(1).integers(0, 256, (3, 176, 176, 3), dtype=np.uint8)
    mouths = np.zeros((3, 10), np.float32)
    shard = traced_shard(scene, wide, landmarks, mouths, SIZE)
    assert shard["images"].shape == (1, 3, PICTURE_SIZE, PICTURE_SIZE, 3)
    assert np.abs(shard["flow"][0, 0]).max() < 0.01
    _, side = mouth_square(landmarks, eye_mouth_distance(landmarks))
    scale = 128 / float(side)
    before, after = CAMERA.project(np.array([[0, 6.5, 1], [0.2, 6.5, 1]]), SIZE)
    middle = shard["flow"][0, 1, PICTURE_SIZE // 2, PICTURE_SIZE // 2].astype(float)
    assert middle == pytest.approx((before - after) * scale, abs=0.3)
    assert middle[0] < -1
    assert shard["seen"][0, :, 40:-40, 40:-40].min() == 255
    assert shard["opened"].max() == 0
