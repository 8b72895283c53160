"""Idle motion, carried frames, scene files, hair and framing of shipped portraits; with assets, the whole figure."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import NotFound
from engine.studio.actions import Action, action_moments, actions, follow
from engine.studio.assets import ARCHIVES, Assets, unpack
from engine.studio.cast import PORTRAITS
from engine.studio.figure import Part
from engine.studio.hairdo import sweep_fringe
from engine.studio.idle_motion import gaze, idle_moments, lid_closure, quick_frames
from engine.studio.inbetween import complete_loop, motion_field
from engine.studio.mouth import viseme_vector
from engine.studio.portrait import eye_strip, face_boxes
from engine.studio.portrait_scene import smile_left
from engine.studio.portrait_truth import truth_mouths
from engine.studio.scalp import Cut, grow
from engine.studio.scene import AreaLight, Camera, Look, Scene, ScenePart, Strands, chosen_frames, load_scene
from engine.studio.strands import Combing, comb, flow_along_texture
from engine.types import MOUTH_SHAPES

LANDMARKS = np.array([[[217, 213], [294, 212], [257, 253], [222, 289], [292, 288]]], np.float32)


@pytest.mark.parametrize("name", sorted(PORTRAITS))
def test_idle_loop_closes_and_never_moves_the_mouth(name: str) -> None:
    moments = idle_moments(PORTRAITS[name].idle, 0.02, 0.02)
    heads = np.stack([moment.rotations["head"] for moment in moments])
    steps = np.abs(heads - np.roll(heads, 1, axis=0)).max(axis=(1, 2))
    assert steps[0] <= steps[1:].max()
    assert all(moment.mouth is None for moment in moments)
    assert not any("mouth" in name or "jaw" in name for moment in moments for name in moment.expression)


def test_lids_shut_fully_and_blinks_wrap_around_the_loop() -> None:
    closure = lid_closure(50, [10, 48])
    assert closure[10:17].max() == 1
    assert closure[0] == 1 and closure[48] > 0
    assert closure[30] == 0


def test_gaze_holds_between_jumps_and_returns_at_the_end() -> None:
    looks = gaze(20, [(0, 0.0, 0.0), (5, 0.1, 0.0), (12, -0.1, 0.02)])
    assert looks[8].tolist() == [0.1, 0]
    assert looks[5, 0] == pytest.approx(0.05)
    assert looks[0, 0] == pytest.approx(-0.05)


def test_only_stretches_in_which_lids_or_gaze_move_are_quick() -> None:
    keys = range(0, 40, 10)
    assert quick_frames(40, [], [(0, 0.0, 0.0)], keys) == []
    assert quick_frames(40, [11], [(0, 0.0, 0.0)], keys) == list(range(11, 20))
    # A jump takes two frames: the first of them lies in the stretch before the key.
    assert quick_frames(40, [], [(1, 0.0, 0.0), (30, 0.1, 0.0)], keys) == [
        *range(1, 10),
        *range(21, 30),
        *range(31, 40),
    ]


def test_curve_eases_through_its_points_and_is_still_outside() -> None:
    values = follow(((4, 0.0), (8, 1.0), (12, 0.0)), 20)
    assert values[:5].tolist() == [0] * 5
    assert values[6] == pytest.approx(0.5)
    assert values[8] == 1
    assert not values[12:].any()


@pytest.mark.parametrize("name", sorted(PORTRAITS))
def test_clips_start_with_the_idle_loops_first_frame_and_return_to_it(name: str) -> None:
    portrait = PORTRAITS[name]
    first = idle_moments(portrait.idle, 0.02, 0.02)[0]
    for action in portrait.actions.values():
        moments = action_moments(action, portrait.idle, 0.02, 0.02)
        assert action.keys[0] == 0 and list(action.keys) == sorted(set(action.keys)) and action.keys[-1] < action.frames
        for bone, rotation in first.rotations.items():
            np.testing.assert_allclose(moments[0].rotations[bone], rotation, atol=1e-6)
            assert np.abs(moments[-1].rotations[bone] - rotation).max() < 0.01
        assert {**first.expression, **moments[0].expression} == pytest.approx(first.expression, abs=1e-3)


def test_greeting_nods_raises_brows_smiles_and_says_nothing() -> None:
    idle = PORTRAITS["leo"].idle
    moments = action_moments(actions(1)["greeting"], idle, 0.02, 0.02)
    heads = np.stack([moment.rotations["head"] for moment in moments])
    assert (heads[:, 2, 1] - heads[0, 2, 1]).max() > 0.03
    brows = [moment.expression["arkit/browInnerUp"] for moment in moments]
    assert max(brows) - brows[0] > 0.3
    assert max(moment.expression.get("expression/units/caucasian/mouth-corner-puller", 0) for moment in moments) > 0.25
    assert all(moment.mouth is None and "arkit/jawOpen" not in moment.expression for moment in moments)


def test_two_sides_think_into_opposite_directions() -> None:
    idle = PORTRAITS["maya"].idle
    left, right = (action_moments(actions(side)["thinking"], idle, 0.0, 0.0)[30] for side in (1.0, -1.0))
    still = action_moments(Action(100, True, (0,), {}), idle, 0.0, 0.0)[30]
    turns = [moment.rotations["eye.L"][0, 2] for moment in (left, still, right)]
    assert turns[0] > turns[1] > turns[2]


def test_motion_field_points_to_where_the_other_frame_shows_it() -> None:
    points = np.random.default_rng(0).uniform(0, 64, (400, 2))
    field = motion_field(points, points + np.array([3, -2]), 64)
    grid = np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=2)
    np.testing.assert_allclose(field - grid, np.broadcast_to([3, -2], field.shape), atol=1e-3)


def test_carried_frames_show_a_moving_picture_at_its_true_place() -> None:
    size, count = 64, 8
    x, y = np.meshgrid(np.arange(size), np.arange(size))

    def picture(shift: float) -> np.ndarray:
        wave = 128 + 60 * np.sin((x - shift) / 5) * np.sin(y / 7)
        return np.repeat(wave[:, :, None], 3, axis=2).astype(np.uint8)

    shifts = 2 * np.sin(2 * np.pi * np.arange(count) / count)
    points = np.random.default_rng(0).uniform(0, size, (1, 500, 2)) + np.stack([shifts, 0 * shifts], 1)[:, None]
    drawn = {number: picture(shifts[number]) for number in (0, 2, 4, 6)}
    strip = np.full((20, 20, 3), 255, np.uint8)
    frames = complete_loop(drawn, points.astype(np.float32), {3: strip}, (44, 44))
    np.testing.assert_array_equal(frames[2], drawn[2])
    error = np.abs(frames[7].astype(int) - picture(shifts[7]))[8:-8, 8:-8]
    assert error.mean() < 2
    assert frames[3, 54, 54, 0] == 255 > frames[3, 40, 40, 0]


def test_scene_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    look = Look((AreaLight((0, 1, 2), 3, 4),), (0.1, 0.1, 0.1), ((0, 0, 0), (1, 1, 1)), (0, 7))
    camera = Camera((0, 0, 12), (0, 0, 0), 20, 11, 0.9)
    part = ScenePart(
        "body", None, (1, 1, 1), np.array([[0, 1, 2, -1]], np.int32), np.zeros((1, 4, 2), np.float32),
        np.zeros((2, 3, 3), np.float32),
    )  # fmt: skip
    still = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    hair = Strands("strands", np.zeros((5, 4, 3), np.float32), 0.01, 0.5, 0.5, still)
    scene = Scene(camera, look, [part], [hair], np.zeros((2, 4), np.float32))
    scene.save(tmp_path / "scene.npz")
    again = load_scene(tmp_path / "scene.npz")
    assert (again.frame_count, again.look, again.strands[0].root_radius_dm) == (2, look, 0.01)
    assert again.camera.project(np.zeros((1, 3)), 512).tolist() == [[256, 256]]
    np.testing.assert_array_equal(again.parts[0].polygons, part.polygons)
    assert again.borders is not None and again.borders.shape == (2, 4)


def test_camera_projects_right_and_up_to_right_and_up() -> None:
    camera = Camera((0, 0, 10), (0, 0, 0), 90, 10, 1)
    np.testing.assert_allclose(camera.project(np.array([[5, 5, 0]]), 100), [[75, 25]])


@pytest.mark.parametrize(("text", "frames"), [("::4", [0, 4, 8]), ("7:", [7, 8, 9]), ("3,5", [3, 5]), (":2", [0, 1])])
def test_frames_can_be_chosen(text: str, frames: list[int]) -> None:
    assert list(chosen_frames(text, 10)) == frames


def _sheet(size: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    vertices = np.stack([x.ravel(), y.ravel(), 1 - 0.1 * (x**2 + y**2).ravel()], axis=1)
    corner = (np.arange(size - 1)[:, None] * size + np.arange(size - 1)).ravel()
    polygons = np.stack([corner, corner + 1, corner + size + 1, corner + size], axis=1).astype(np.int32)
    return vertices, polygons, (vertices[:, :2] / 2 + 0.5)[polygons]


def test_hairs_follow_the_painted_flow_and_stay_on_the_shell() -> None:
    vertices, polygons, uv = _sheet()
    flow = flow_along_texture(vertices, polygons, uv, np.tile([[0.0, -1.0]], (len(polygons), 1)))
    assert (flow[:, 1] < -0.9).all()
    hairs = comb(vertices, polygons, flow, Combing(count=200, length_dm=(0.3, 0.5), drift=0.0))
    assert hairs.shape == (200, 8, 3)
    assert (hairs[:, -1, 1] <= hairs[:, 0, 1] + 1e-3).all()
    shell = 1 - 0.1 * (hairs[..., 0] ** 2 + hairs[..., 1] ** 2)
    assert np.abs(hairs[..., 2] - shell).max() < 0.06
    assert hairs[..., 1].min() > -1.2


def test_hairs_grow_where_the_skin_shows_hair_and_have_the_length_of_the_cut() -> None:
    vertices, polygons, uv = _sheet()
    scalp = Part(
        "body", Path("skin.png"), polygons, uv.astype(np.float32), np.zeros((0, 3), np.int32),
        np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 1), np.float32),
    )  # fmt: skip
    growth = np.zeros((64, 64), np.float32)
    growth[:, 32:] = 1.0
    cut = Cut(count=300, sides_dm=0.1, top_dm=0.2, top_from_dm=(0.3, 0.6), rise=(0.9, 0.9))
    hairs = grow(scalp, vertices.astype(np.float32), 0.0, growth, cut)
    assert hairs.shape == (300, 7, 3)
    assert hairs[:, 0, 0].min() > -0.05
    length = np.linalg.norm(np.diff(hairs, axis=1), axis=2).sum(axis=1)
    low, high = hairs[:, 0, 1] < 0.2, hairs[:, 0, 1] > 0.7
    assert length[low].mean() == pytest.approx(0.1, rel=0.25)
    assert length[high].mean() == pytest.approx(0.2, rel=0.25)
    np.testing.assert_array_equal(hairs, grow(scalp, vertices.astype(np.float32), 0.0, growth, cut))


def test_hairs_of_a_lock_meet_at_their_tips_and_keep_their_roots() -> None:
    vertices, polygons, uv = _sheet()
    scalp = Part(
        "body", Path("skin.png"), polygons, uv.astype(np.float32), np.zeros((0, 3), np.int32),
        np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 1), np.float32),
    )  # fmt: skip
    cut = Cut(count=400, sides_dm=0.2, top_dm=0.2, top_from_dm=(-3.0, -2.0))
    loose, gathered = (
        grow(scalp, vertices.astype(np.float32), 0.0, np.ones((64, 64), np.float32), replace(cut, locks=locks))
        for locks in (0, 12)
    )
    np.testing.assert_array_equal(loose[:, 0], gathered[:, 0])

    def apart(points: np.ndarray) -> float:
        return float(np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 5].mean())

    assert apart(gathered[:, -1]) < 0.75 * apart(gathered[:, 0])


def test_dark_specks_in_the_face_grow_no_hair() -> None:
    vertices, polygons, uv = _sheet()
    body = Part(
        "body", Path("skin.png"), polygons, uv.astype(np.float32), np.zeros((0, 3), np.int32),
        np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, 1), np.float32),
    )  # fmt: skip
    cut = Cut(count=300, sides_dm=0.1, top_dm=0.2)
    hairs = grow(body, vertices.astype(np.float32), 0.0, np.ones((64, 64), np.float32), cut)
    assert len(hairs) and hairs[:, 0, 1].min() >= 0


def test_fringe_moves_to_the_side_and_the_other_side_stays() -> None:
    fringe = np.array([[0.0, 6.8, 1.4], [0.6, 6.7, 1.0], [0.0, 7.9, 0.6]], np.float32)
    styled = sweep_fringe(fringe, 6.6)
    assert styled[0, 0] < -0.3
    np.testing.assert_allclose(styled[1:], fringe[1:], atol=1e-5)


def test_face_box_holds_all_landmarks_and_the_strip_holds_the_eyes() -> None:
    top, bottom, left, right = face_boxes(LANDMARKS)[0]
    assert top < 190 and bottom > 330 and left < 200 and right > 310
    x0, y0, x1, y1 = eye_strip(LANDMARKS, 512)
    assert x0 < 200 and y0 < 200 and x1 > 310 and y1 > 225


def test_smile_stays_at_rest_and_gives_way_to_rounding() -> None:
    rest = np.zeros(len(MOUTH_SHAPES))
    assert smile_left(rest) == 1
    assert 0.15 <= smile_left(viseme_vector("U")) < 0.3


def test_truth_starts_with_rest_and_covers_every_shape() -> None:
    mouths = truth_mouths(12, 12, seed=3)
    assert mouths.shape == (12, 13, len(MOUTH_SHAPES))
    assert not mouths[:, 0].any()
    assert mouths.min() >= 0 and mouths.max() <= 1
    assert (mouths.max(axis=(0, 1)) > 0.9).all()


def test_archives_unpack_into_their_folders_and_missing_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"has no base-and-targets"):
        unpack(tmp_path, tmp_path / "assets")
    for archive in ARCHIVES:
        with tarfile.open(tmp_path / archive, "w:xz" if archive.endswith("xz") else "w") as tar:
            entry = tarfile.TarInfo("folder/file.txt")
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"ok"))
    assets = unpack(tmp_path, tmp_path / "assets")
    assert (assets.root / "meshes" / "folder" / "file.txt").read_text() == "ok"
    with pytest.raises(NotFound, match=r"base\.obj"):
        assets.base_mesh()
    with pytest.raises(NotFound, match="unpack"):
        Assets.open(tmp_path)


@pytest.fixture(scope="session")
def stages():
    """The shipped portraits on the real assets; ``VISAVIS_ASSETS`` names an unpacked assets directory."""
    folder = os.environ.get("VISAVIS_ASSETS")
    if not folder:
        pytest.skip("VISAVIS_ASSETS is not set")
    from engine.studio.human import Human
    from engine.studio.portrait_scene import Stage

    human = Human(Assets.open(folder))
    return {name: Stage(human, portrait) for name, portrait in PORTRAITS.items()}


@pytest.fixture(scope="session")
def stage(stages):
    return stages["maya"]


def test_portraits_are_framed_as_head_and_shoulders(stages) -> None:
    for stage in stages.values():
        landmarks = stage.landmarks(stage.idle_moments()[:3], 512)
        eyes, mouth = landmarks[:, :2].mean(axis=1), landmarks[:, 3:].mean(axis=1)
        assert np.abs(eyes[:, 1] - 0.42 * 512).max() < 12
        assert ((mouth - eyes)[:, 1] > 65).all() and ((mouth - eyes)[:, 1] < 105).all()


def test_hair_that_stands_out_beyond_the_scalp_is_tracked(stages) -> None:
    stage = stages["leo"]
    moments = stage.idle_moments()[:2]
    points = stage.visible_points(moments, 512)
    body = stage.figure.pose({}, moments[0].rotations)[0]
    assert points.shape[0] == 2 and np.isfinite(points).all()
    assert points[0, :, 1].min() < stage.camera.project(body, 512)[:, 1].min() - 5


def test_every_part_keeps_its_topology_and_lips_meet_at_rest(stage) -> None:
    figure = stage.figure
    for part, points in zip(figure.parts, figure.pose({}, None), strict=True):
        assert part.faces.max() < len(points) == len(part.uv)
        assert np.isfinite(points).all()
    rest = dict(zip((part.name for part in figure.parts), figure.deform({}), strict=True))
    assert rest["teeth"][:, 2].max() < rest["body"][:, 2].max()


def test_linear_basis_equals_posing(stage) -> None:
    names = ["arkit/jawOpen", "arkit/eyeBlinkLeft"]
    basis = stage.figure.linear_basis(names)
    posed = stage.figure.pose({names[0]: 0.5, names[1]: 0.25})
    for (rest, moves), points in zip(basis, posed, strict=True):
        np.testing.assert_allclose(rest + 0.5 * moves[0] + 0.25 * moves[1], points, atol=1e-4)


def test_random_people_differ_and_one_seed_gives_one_person(stage) -> None:
    from engine.studio.identity import random_identity

    first, again = (random_identity(stage.figure.human, np.random.default_rng(5)) for _ in range(2))
    other = random_identity(stage.figure.human, np.random.default_rng(6))
    assert first == again
    assert first != other
