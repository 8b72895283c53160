"""Pictures that cannot become avatars are refused with a reason; good ones pass."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from engine.avatar.checks import check_light, check_mouth, check_place, choose_face, head_pose
from engine.avatar.landmarks import Face, FaceMesh
from engine.errors import PortraitInvalid
from tests.avatar.faces import beside


def refusal(check: Callable[[], object]) -> str:
    with pytest.raises(PortraitInvalid) as caught:
        check()
    assert caught.value.message.count(" ") > 5
    return caught.value.code


def scaled(face: Face, scale: float) -> Face:
    return Face(face.points * np.float32(scale), face.score, face.box * np.float32(scale))


def turned(face: Face, degrees: float, axes: tuple[int, int]) -> Face:
    angle = np.radians(degrees)
    middle = face.points.mean(0)
    points = face.points - middle
    one, other = points[:, axes[0]].copy(), points[:, axes[1]].copy()
    points[:, axes[0]] = np.cos(angle) * one - np.sin(angle) * other
    points[:, axes[1]] = np.sin(angle) * one + np.cos(angle) * other
    return Face((points + middle).astype(np.float32), face.score, face.box)


def test_a_portrait_passes_every_check(photo: np.ndarray, face: Face) -> None:
    assert choose_face([face]) is face
    check_place(face, 512, 512)
    check_light(photo, face)
    check_mouth(photo, face)


def test_no_face_and_company_are_refused(mesh: FaceMesh, photo: np.ndarray) -> None:
    assert refusal(lambda: choose_face([])) == "no_face"
    faces = mesh.find(beside(photo, cv2.resize(photo, (512, 512))))
    assert refusal(lambda: choose_face(faces)) == "several_faces"
    with pytest.raises(PortraitInvalid, match="2 faces"):
        choose_face(faces)
    assert choose_face(faces, "largest") is faces[0]


def test_a_small_face_in_the_background_is_no_company(face: Face) -> None:
    assert choose_face([face, scaled(face, 0.3)]) is face


def test_small_and_cut_off_faces_are_refused(face: Face) -> None:
    assert refusal(lambda: check_place(scaled(face, 0.25), 512, 512)) == "face_too_small"
    assert refusal(lambda: check_place(face, 512, int(face.box[1]) - 5)) == "face_cut_off"


@pytest.mark.parametrize("axes", [(0, 2), (1, 2), (0, 1)])
def test_a_head_turned_away_in_any_direction_is_refused(face: Face, axes: tuple[int, int]) -> None:
    check_place(turned(face, 8, axes), 512, 512)
    assert refusal(lambda: check_place(turned(face, 45, axes), 512, 512)) == "face_turned_away"


def test_pose_of_a_turned_head_is_measured(face: Face) -> None:
    level = head_pose(face.points)
    assert head_pose(turned(face, 15, (0, 2)).points).yaw == pytest.approx(level.yaw + 15, abs=1.5)
    assert head_pose(turned(face, 15, (0, 1)).points).roll == pytest.approx(level.roll + 15, abs=1.5)


def test_dark_bright_and_flat_faces_are_refused(photo: np.ndarray, face: Face) -> None:
    assert refusal(lambda: check_light((photo * 0.15).astype(np.uint8), face)) == "too_dark"
    assert refusal(lambda: check_light(np.full_like(photo, 250), face)) == "too_bright"
    assert refusal(lambda: check_light((photo * 0.04 + 130).astype(np.uint8), face)) == "low_contrast"


def test_a_covered_mouth_is_refused(photo: np.ndarray, face: Face) -> None:
    masked = photo.copy()
    around = face.points[[50, 280, 365, 152, 136], :2].astype(np.int32)
    cv2.fillConvexPoly(masked, cv2.convexHull(around), (200, 120, 40))
    assert refusal(lambda: check_mouth(masked, face)) == "mouth_covered"


def test_a_wide_open_mouth_is_refused(photo: np.ndarray, face: Face) -> None:
    points = face.points.copy()
    eyes = float(np.linalg.norm(points[263, :2] - points[33, :2]))
    points[[14, 87, 317], 1] += 0.35 * eyes
    assert refusal(lambda: check_mouth(photo, Face(points, 1.0, face.box))) == "mouth_open"
