"""Faces are found, numbered and followed as the rest of the project expects them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.avatar import face_models
from engine.avatar.eyes import EyeFinder
from engine.avatar.landmarks import Face, FaceMesh, FaceTrack, five_landmarks, lip_opening
from engine.avatar.silhouette import Silhouette
from engine.errors import BackendFailed
from tests.avatar.faces import beside, open_mouth


def test_one_face_has_468_points_inside_its_box(face: Face) -> None:
    y1, y2, x1, x2 = face.box
    assert face.points.shape == (468, 3) and face.points.dtype == np.float32
    assert face.score > 0.9
    assert (face.points[:, 0] >= x1).all() and (face.points[:, 0] <= x2).all()
    assert (face.points[:, 1] >= y1).all() and (face.points[:, 1] <= y2).all()


def test_five_landmarks_come_in_the_order_of_a_bundle(face: Face) -> None:
    left, right, nose, corner, other = five_landmarks(face.points)
    assert left[0] < nose[0] < right[0] and corner[0] < other[0]
    assert max(left[1], right[1]) < nose[1] < min(corner[1], other[1])


def test_points_move_with_the_picture(mesh: FaceMesh, photo: np.ndarray, face: Face) -> None:
    shifted = np.roll(photo, (12, -20), (0, 1))
    moved = mesh.find(shifted)[0].points[:, :2] - face.points[:, :2]
    assert np.abs(moved - [-20, 12]).max() < 1.5


def test_points_grow_with_the_picture(mesh: FaceMesh, photo: np.ndarray, face: Face) -> None:
    large = cv2.resize(photo, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    assert np.abs(mesh.find(large)[0].points / 3 - face.points).max() < 3.0


def test_two_faces_are_both_found_and_nothing_in_noise(mesh: FaceMesh, photo: np.ndarray) -> None:
    assert len(mesh.find(beside(photo, photo[:, ::-1]))) == 2
    noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    assert mesh.find(noise) == []


def test_an_open_mouth_measures_more_than_a_closed_one(mesh: FaceMesh, photo: np.ndarray, face: Face) -> None:
    opened = mesh.find(open_mouth(photo, face.points, 1.0))[0]
    assert lip_opening(face.points) < 0.06 < 0.09 < lip_opening(opened.points)


def test_a_track_follows_and_recovers(mesh: FaceMesh, photo: np.ndarray, face: Face) -> None:
    track = FaceTrack(mesh)
    assert track.next(np.zeros_like(photo)) is None
    found, followed = track.next(photo), track.next(photo)
    assert found is not None and followed is not None
    assert np.abs(followed.points - found.points).max() < 1.5
    assert np.abs(followed.points - face.points).max() < 2.5


def test_eyes_run_from_image_left_to_right_with_the_iris_between_the_lids(photo: np.ndarray, face: Face) -> None:
    for eye in EyeFinder()(photo, face.points):
        assert (np.diff(eye.upper[:, 0]) > 0).all() and (np.diff(eye.lower[:, 0]) > 0).all()
        assert eye.upper[4, 1] < eye.iris[0, 1] < eye.lower[4, 1]
        assert eye.brow[:, 1].max() < eye.upper[4, 1]


def test_silhouette_holds_the_face_and_leaves_the_corners(photo: np.ndarray, face: Face) -> None:
    mask = Silhouette()(photo, face.points)
    inside = np.rint(face.points[:, :2]).astype(int)
    assert mask[inside[:, 1], inside[:, 0]].min() > 0.5
    assert mask[:20, :20].max() < 0.1 and mask[:20, -20:].max() < 0.1


def test_missing_models_name_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise face_models.PackageNotFoundError(name)

    monkeypatch.setattr(face_models, "distribution", absent)
    with pytest.raises(BackendFailed, match=r"pip install --no-deps -r engine/avatar/requirements\.txt") as caught:
        FaceMesh.load()
    assert caught.value.code == "face_models_missing"
