"""The crop rule that training and runtime share."""

from __future__ import annotations

import numpy as np
import pytest

from engine.lipsync.builtin.crop import (
    DROP_PER_DISTANCE,
    SIDE_PER_DISTANCE,
    colour_gains,
    eye_mouth_distance,
    mouth_boxes,
    mouth_square,
)

FACE = np.array([[100, 100], [160, 100], [130, 140], [110, 180], [150, 180]], np.float32)


def test_the_square_hangs_below_the_mouth_and_grows_with_the_face() -> None:
    distance = eye_mouth_distance(FACE)
    assert distance == pytest.approx(80)
    centre, side = mouth_square(FACE, distance)
    assert centre == pytest.approx([130, 180 + 80 * DROP_PER_DISTANCE])
    assert side == pytest.approx(80 * SIDE_PER_DISTANCE)
    assert mouth_square(FACE * 2, eye_mouth_distance(FACE * 2))[1] == pytest.approx(2 * side)


def test_the_square_follows_a_tilted_head_along_its_own_axis() -> None:
    turn = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32)
    tilted = (FACE - FACE[2]) @ turn.T + FACE[2]
    centre, _ = mouth_square(FACE, 80.0)
    tilted_centre, _ = mouth_square(tilted, 80.0)
    assert tilted_centre == pytest.approx((centre - FACE[2]) @ turn.T + FACE[2], abs=1e-3)


def test_every_box_of_a_loop_is_a_square_of_one_size() -> None:
    rng = np.random.default_rng(1)
    loop = FACE + rng.normal(0, 3, (40, 5, 2)).astype(np.float32)
    boxes = mouth_boxes(loop)
    assert boxes.dtype.kind == "i"
    sides = np.stack([boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]])
    assert len(np.unique(sides)) == 1
    assert sides[0, 0] == round(SIDE_PER_DISTANCE * float(np.median(eye_mouth_distance(loop))))
    middle = np.stack([boxes[:, 2:].mean(1), boxes[:, :2].mean(1)], 1)
    assert np.abs(middle - mouth_square(loop, 80.0)[0]).max() <= 1


def test_usual_skin_keeps_its_colours_and_a_strong_cast_is_taken_back() -> None:
    usual = np.full((2, 8, 8, 3), (105, 128, 170), np.uint8)
    yellow = np.full((2, 8, 8, 3), (54, 128, 195), np.uint8)

    np.testing.assert_array_equal(colour_gains(usual), 1)
    gains = colour_gains(yellow)

    assert 54 * gains[0] / 128 == pytest.approx(0.65, abs=2e-3)
    assert gains[1] == 1 and gains[2] == 1
