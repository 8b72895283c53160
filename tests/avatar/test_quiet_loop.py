"""Loops of a video: they close, they take the calm part, and a talking mouth comes to rest."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.avatar.landmarks import INNER_LIP_PAIRS, Face, FaceMesh, lip_opening
from engine.avatar.morph import between
from engine.avatar.quiet_loop import QUIET_FRAMES, LoopPlan, Survey, plan_loop, survey
from engine.avatar.rest_mouth import RestMouth
from engine.avatar.smoothing import smooth
from engine.avatar.source import VideoSource
from engine.errors import Cancelled, PortraitInvalid
from tests.avatar.faces import open_mouth, save_clip


def clip(face: Face, places: np.ndarray, opening: np.ndarray | float = 0.0) -> Survey:
    """A face that wanders sideways by ``places`` pixels and opens its lips by ``opening`` eye distances."""
    points = np.repeat(face.points[None], len(places), 0)
    eyes = float(np.linalg.norm(face.points[263, :2] - face.points[33, :2]))
    for upper, lower in INNER_LIP_PAIRS:
        points[:, lower, :2] = points[:, upper, :2]
        points[:, lower, 1] += eyes * np.broadcast_to(opening, len(places))
    points[:, :, 0] += places[:, None]
    return Survey(points.astype(np.float32), np.ones(len(places), bool), (512, 512))


def steps(plan: LoopPlan, face: Survey) -> np.ndarray:
    """How far the face moves from picture to picture, around the loop."""
    x = plan.mixed(face.points)[:, 1, 0]
    return np.diff(np.concatenate([x, x[:1]]))


def test_a_long_calm_clip_closes_by_a_cut_of_about_the_wished_length(face: Face) -> None:
    film = clip(face, 6 * np.sin(np.arange(500) * 2 * np.pi / 190))
    plan = plan_loop(film, 200)
    assert plan.quiet and 0.8 * 200 <= len(plan.first) <= 1.3 * 200
    assert np.abs(steps(plan, film)).max() < 0.5
    assert (np.diff(plan.first) == 1).all()


def test_a_short_clip_goes_back_and_forth_and_slows_down_before_turning(face: Face) -> None:
    film = clip(face, 0.5 * np.arange(60))
    plan = plan_loop(film, 200)
    change = steps(plan, film)
    assert plan.quiet and len(plan.first) > 90
    assert np.abs(np.diff(np.concatenate([change, change[:1]]))).max() < 0.15
    assert change.max() == pytest.approx(0.5, abs=0.05)


def test_the_quiet_part_is_taken_when_it_is_long_enough(face: Face) -> None:
    opening = np.concatenate([np.full(70, 0.2), np.zeros(QUIET_FRAMES + 20), np.full(30, 0.2)])
    plan = plan_loop(clip(face, 0.1 * np.arange(len(opening)), opening), 200)
    assert plan.quiet
    assert plan.first.min() >= 70 and plan.first.max() < 140


def test_a_talker_without_rest_gives_the_frame_with_the_most_closed_lips(face: Face) -> None:
    opening = 0.12 + 0.08 * np.sin(np.arange(75) * 0.9)
    opening[40:43] = 0.01
    plan = plan_loop(clip(face, 0.1 * np.arange(75), opening), 200)
    assert not plan.quiet and 40 <= plan.rest <= 42


def test_frames_without_a_usable_face_are_never_shown(face: Face) -> None:
    film = clip(face, 0.2 * np.arange(120))
    film.usable[50:54] = False
    plan = plan_loop(film, 200)
    assert not np.isin(np.concatenate([plan.first, plan.second]), np.arange(50, 54)).any()
    film.usable[::5] = False
    with pytest.raises(PortraitInvalid) as caught:
        plan_loop(film, 200)
    assert caught.value.code == "clip_unusable"


def test_smoothing_is_symmetric_and_cyclic() -> None:
    impulse = np.zeros(20, np.float32)
    impulse[0] = 1
    around = smooth(impulse, 2.0, cyclic=True)
    assert around[1] == pytest.approx(around[-1]) and around.sum() == pytest.approx(1, abs=1e-5)
    assert np.allclose(smooth(np.full(9, 4.0), 3.0, cyclic=False), 4)


def test_between_moves_instead_of_fading(photo: np.ndarray) -> None:
    moved = np.roll(photo, 4, 1)
    half = between(photo, moved, 0.5)
    wanted = np.roll(photo, 2, 1)[100:400, 100:400].astype(int)
    faded = cv2.addWeighted(photo, 0.5, moved, 0.5, 0)[100:400, 100:400]
    assert np.abs(half[100:400, 100:400] - wanted).mean() < 0.5 * np.abs(faded - wanted).mean()
    assert np.array_equal(between(photo, moved, 0), photo) and np.array_equal(between(photo, moved, 1), moved)


def test_a_talking_mouth_comes_to_rest_and_eyes_stay(mesh: FaceMesh, photo: np.ndarray, face: Face) -> None:
    talking = open_mouth(photo, face.points, 1.0)
    points = mesh.find(talking)[0].points
    rested = RestMouth(photo, face.points).draw(talking, points)
    assert lip_opening(mesh.find(rested)[0].points) < 0.06 < lip_opening(points)
    eyes = int(face.points[[145, 374], 1].max())
    assert np.array_equal(rested[:eyes], talking[:eyes])
    low, high = face.points[:, :2].min(0).astype(int), face.points[:, :2].max(0).astype(int)
    region = np.s_[low[1] : high[1], low[0] : high[0]]
    assert np.abs(rested[region].astype(int) - photo[region]).mean() < 2.0


def test_survey_follows_a_film_and_can_be_cancelled(mesh: FaceMesh, idle_frames: np.ndarray, tmp_path: Path) -> None:
    film = VideoSource(save_clip(tmp_path / "film.mp4", list(idle_frames[:20])))
    shares: list[float] = []
    seen = survey(film, mesh, "only", shares.append, lambda: False)
    assert len(seen.points) == 20 and seen.usable.all() and seen.size == (512, 512)
    assert shares == sorted(shares) and shares[-1] == 1.0
    with pytest.raises(Cancelled):
        survey(film, mesh, "only", shares.append, lambda: True)


def test_survey_of_a_film_without_a_face_says_so(mesh: FaceMesh, tmp_path: Path) -> None:
    film = VideoSource(save_clip(tmp_path / "grey.mp4", [np.full((128, 128, 3), 90, np.uint8)] * 5))
    with pytest.raises(PortraitInvalid) as caught:
        survey(film, mesh, "only", lambda share: None, lambda: False)
    assert caught.value.code == "no_face"
