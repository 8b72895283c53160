import numpy as np
import pytest

from engine.evaluate.lips import LIP_NUMBERS, lip_shape, mouth_error, tremor


def faces(count=6, seed=0):
    rng = np.random.default_rng(seed)
    return np.tile(rng.random((1, 468, 3)).astype(np.float32) * 200, (count, 1, 1))


def turned(points, angle_rad, scale, shift):
    turn = scale * np.array([[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]])
    return np.concatenate([points[..., :2] @ turn.T + shift, points[..., 2:] * scale], -1).astype(np.float32)


def test_neither_size_nor_roll_nor_place_of_a_face_changes_its_lips():
    points = faces()
    shapes = lip_shape(points)
    assert shapes.shape == (6, LIP_NUMBERS)
    assert np.allclose(shapes, lip_shape(turned(points, 0.4, 1.7, (30, -20))), atol=2e-4)


def test_head_motion_is_no_tremor_but_noise_is():
    points = faces()
    moving = np.stack([turned(face, 0.02 * k, 1 + 0.01 * k, (3 * k, k)) for k, face in enumerate(points)])
    assert tremor(moving) < 0.05
    noise = np.random.default_rng(1).normal(0, 1, points.shape)
    assert tremor(moving + noise) > 1
    assert tremor(moving + 2 * noise) == pytest.approx(2 * tremor(moving + noise), rel=0.1)
    assert np.isnan(tremor(points[:1]))


def test_mouth_error_sees_lips_but_not_where_the_head_is():
    points = faces()
    assert mouth_error(turned(points, 0.1, 1.2, (5, 9)), points) == pytest.approx(0, abs=1e-4)
    opened = points.copy()
    opened[:, [14, 17, 87, 317], 1] += 10
    assert mouth_error(opened, points) > 0.005
