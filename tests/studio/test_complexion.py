"""Painted skin: stubble grows on the jaw alone and leaves out the lips; uneven tone keeps the mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.errors import NotFound
from engine.studio.complexion import Complexion, Mouth, beard_region, paint, read_skin
from engine.studio.figure import Part

MOUTH = Mouth(np.array([-0.25, 6.0, 1.4]), np.array([0.25, 6.0, 1.4]), np.array([0.0, 6.3, 1.6]))
SIDE = 256


def _face() -> tuple[Part, np.ndarray]:
    """A flat face 2 dm wide around the mouth, whose texture coordinates are its place."""
    cells = 33
    x, y = np.meshgrid(np.linspace(-1, 1, cells), np.linspace(5, 7, cells))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, 1.4)], axis=1)
    corner = (np.arange(cells - 1)[:, None] * cells + np.arange(cells - 1)).ravel()
    polygons = np.stack([corner, corner + 1, corner + cells + 1, corner + cells], axis=1).astype(np.int32)
    uv = np.stack([(points[:, 0] + 1) / 2, (points[:, 1] - 5) / 2], axis=1)[polygons]
    none = np.zeros((0, 3), np.float32)
    body = Part("body", Path("skin.png"), polygons, uv.astype(np.float32), none.astype(np.int32), none, none, none)
    return body, points


def _at(picture: np.ndarray, x: float, y: float) -> float:
    """Mean of the picture around a place of the face."""
    column, row = int((x + 1) / 2 * SIDE), int((1 - (y - 5) / 2) * SIDE)
    return float(picture[row - 4 : row + 4, column - 4 : column + 4].mean())


def test_beard_grows_on_chin_jaw_and_upper_lip_and_nowhere_above() -> None:
    chin, upper_lip, jaw, cheek, brow = np.array(
        [[0, 5.6, 1.4], [0, 6.08, 1.4], [0.55, 5.85, 0.9], [0.45, 6.3, 1.3], [0.2, 6.8, 1.4]]
    )
    density = beard_region(np.stack([chin, upper_lip, jaw, cheek, brow]), MOUTH)
    assert (density[[0, 2]] > 0.9).all()
    assert density[1] > 0.3
    assert not density[3:].any()


def test_stubble_darkens_the_chin_and_leaves_lips_and_forehead() -> None:
    body, points = _face()
    skin = np.full((SIDE, SIDE, 3), (140, 170, 210), np.uint8)
    lips = slice(int(0.49 * SIDE), int(0.53 * SIDE))
    skin[lips, 110:146] = (110, 100, 200)
    painted = paint(skin, body, points, MOUTH, Complexion(stubble=0.4))
    assert _at(painted, 0, 5.6) < _at(skin, 0, 5.6) - 15
    assert _at(painted, 0, 6.8) == _at(skin, 0, 6.8)
    middle = painted[lips, 118:138].astype(int) - skin[lips, 118:138]
    assert np.abs(middle).mean() < 3
    np.testing.assert_array_equal(painted, paint(skin, body, points, MOUTH, Complexion(stubble=0.4)))


def test_white_stubble_is_lighter_than_dark() -> None:
    body, points = _face()
    skin = np.full((SIDE, SIDE, 3), (140, 170, 210), np.uint8)
    dark, white = (
        paint(skin, body, points, MOUTH, Complexion(stubble=0.4, white_stubble=share)) for share in (0.0, 1.0)
    )
    assert _at(white, 0, 5.6) > _at(dark, 0, 5.6) + 15


def test_unevenness_changes_the_tone_around_its_mean() -> None:
    body, points = _face()
    skin = np.full((SIDE, SIDE, 3), 120, np.uint8)
    painted = paint(skin, body, points, MOUTH, Complexion(unevenness=0.05)).astype(float)
    assert painted.mean() == pytest.approx(120, abs=2)
    assert 3 < painted.std() < 12


def test_missing_skin_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"skin\.png"):
        read_skin(tmp_path / "skin.png")
