"""Alignment to the template and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.restore.ffhq import TEMPLATE, align, alignment, inverse, scale_of
from tests.restore.fakes import LANDMARKS, drawn_face


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_a_turned_scaled_and_moved_template_comes_back_exactly() -> None:
    angle, scale = np.deg2rad(17), 0.43
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = TEMPLATE @ turn.T + [120, -35]
    matrix = alignment(points)
    np.testing.assert_allclose(moved(points, matrix), TEMPLATE, atol=1e-3)
    assert scale_of(matrix) == pytest.approx(1 / 0.43, rel=1e-4)


def test_the_alignment_is_the_best_similarity() -> None:
    matrix = alignment(LANDMARKS)
    assert matrix[0, 0] == pytest.approx(matrix[1, 1]) and matrix[0, 1] == pytest.approx(-matrix[1, 0])
    best = np.square(moved(LANDMARKS, matrix) - TEMPLATE).sum()
    for change in np.random.default_rng(2).normal(0, 1, (50, 4)) * [1e-3, 1e-3, 0.5, 0.5]:
        a, b = matrix[0, 0] + change[0], matrix[1, 0] + change[1]
        other = np.array([[a, -b, matrix[0, 2] + change[2]], [b, a, matrix[1, 2] + change[3]]])
        assert np.square(moved(LANDMARKS, other) - TEMPLATE).sum() >= best


def test_there_and_back_is_nothing() -> None:
    matrix = alignment(LANDMARKS)
    np.testing.assert_allclose(moved(moved(LANDMARKS, matrix), inverse(matrix)), LANDMARKS, atol=1e-3)


def test_pixels_land_where_landmarks_say() -> None:
    picture = np.zeros((512, 512, 3), np.uint8)
    for index, point in enumerate(LANDMARKS):
        cv2.circle(picture, (round(float(point[0])), round(float(point[1]))), 3, (50 * (index + 1),) * 3, -1)
    matrix = alignment(LANDMARKS)
    face = align(picture, matrix)
    for index, (x, y) in enumerate(np.rint(moved(LANDMARKS, matrix)).astype(int)):
        assert face[y, x, 0] == 50 * (index + 1)


def test_a_smaller_network_gets_a_smaller_template() -> None:
    np.testing.assert_allclose(alignment(LANDMARKS, 128) * 4, alignment(LANDMARKS, 512), atol=1e-4)


def test_beyond_the_picture_its_border_goes_on() -> None:
    face = align(drawn_face()[190:], alignment(LANDMARKS - [0, 190]))
    assert face.min() > 0


@pytest.mark.parametrize("landmarks", [np.full((5, 2), 7.0), np.full((5, 2), np.nan)])
def test_landmarks_that_are_no_face_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="landmarks"):
        alignment(landmarks)
