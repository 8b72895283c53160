"""A still picture moves, blinks and closes its lips without a jump, and only where it should."""

from __future__ import annotations

import numpy as np
import pytest

from engine.avatar.blink import Blink
from engine.avatar.eyes import Eye, EyeFinder
from engine.avatar.landmarks import Face, FaceMesh, lip_opening
from engine.avatar.lips import close_lips
from engine.avatar.living import LivingFrame, LivingPortrait
from engine.avatar.silhouette import Silhouette
from tests.avatar.faces import open_mouth

FRAMES = 100


@pytest.fixture(scope="module")
def eyes(photo: np.ndarray, face: Face) -> tuple[Eye, Eye]:
    return EyeFinder()(photo, face.points)


@pytest.fixture(scope="module")
def loop(photo: np.ndarray, face: Face, eyes: tuple[Eye, Eye]) -> list[LivingFrame]:
    return list(LivingPortrait(photo, face.points, Silhouette()(photo, face.points), eyes, seed=3).frames(FRAMES))


def eye_height(mesh: FaceMesh, picture: np.ndarray) -> float:
    points = mesh.find(picture)[0].points
    return float(np.mean([points[145, 1] - points[159, 1], points[374, 1] - points[386, 1]]))


def test_open_lids_change_no_pixel(photo: np.ndarray, eyes: tuple[Eye, Eye]) -> None:
    assert np.array_equal(Blink(photo, eyes)(0.0), photo)


def test_a_blink_shuts_both_eyes_and_nothing_else(
    mesh: FaceMesh, photo: np.ndarray, face: Face, eyes: tuple[Eye, Eye]
) -> None:
    shut = Blink(photo, eyes)(1.0)
    assert eye_height(mesh, shut) < 0.85 * eye_height(mesh, photo)
    changed = (shut != photo).any(2)
    for eye in eyes:
        x, y = eye.iris[0].astype(int)
        assert changed[y - 1 : y + 2, x - 1 : x + 2].all()
    brow, nose = int(min(eye.brow[:, 1].min() for eye in eyes)), int(face.points[1, 1])
    assert not changed[: brow - 2].any() and not changed[nose:].any()
    between = int((eyes[0].upper[-1, 0] + eyes[1].upper[0, 0]) / 2)
    assert not changed[:, between - 2 : between + 3].any()


def test_loop_closes_and_never_jumps(loop: list[LivingFrame]) -> None:
    points = np.stack([frame.points for frame in loop + loop[:1]])
    steps = np.linalg.norm(np.diff(points, axis=0), axis=2).max(1)
    assert steps.max() < 1.0
    assert steps[-1] <= 1.05 * steps.max()
    assert np.linalg.norm(points - points.mean(0), axis=2).max() > 1.0


def test_background_and_borders_stand_still(photo: np.ndarray, loop: list[LivingFrame]) -> None:
    for frame in loop[::25]:
        assert np.array_equal(frame.picture[:40, :60], photo[:40, :60])
        assert np.array_equal(frame.picture[:2], photo[:2])


def test_landmarks_move_with_the_pixels(mesh: FaceMesh, face: Face, loop: list[LivingFrame]) -> None:
    far = max(loop, key=lambda frame: float(np.abs(frame.points - face.points[:, :2]).mean()))
    seen = mesh.follow(far.picture, face)
    assert seen is not None
    # The mesh finds the still with its own error, which is the same in both pictures.
    told, measured = far.points - face.points[:, :2], seen.points[:, :2] - face.points[:, :2]
    assert np.abs(np.median(told - measured, 0)).max() < 0.6


def test_it_breathes_and_blinks(loop: list[LivingFrame], eyes: tuple[Eye, Eye]) -> None:
    pictures = np.stack([frame.picture for frame in loop]).astype(np.float32)
    assert pictures[:, 440:500, 150:360].std(0).max() > 2
    x, y = eyes[0].iris[0].astype(int)
    pupil = pictures[:, y - 2 : y + 3, x - 2 : x + 3].mean((1, 2, 3))
    assert np.ptp(pupil) > 15


def test_parted_lips_are_closed(mesh: FaceMesh, photo: np.ndarray, face: Face) -> None:
    parted = open_mouth(photo, face.points, 0.6)
    points = mesh.find(parted)[0].points
    closed = close_lips(parted, points)
    assert lip_opening(mesh.find(closed)[0].points) < 0.7 * lip_opening(points)
    nose = int(points[1, 1])
    assert np.array_equal(closed[:nose], parted[:nose])
