"""Mattes: what the filter makes of edges and hair, what time makes of it, and what a file keeps."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.avatar.body import Pose
from engine.avatar.bundle import Avatar, load_avatar
from engine.avatar.footage import Clip
from engine.avatar.head_move import cross_fade, lean
from engine.avatar.matte import mattes, pure_colour, refine
from engine.avatar.matte_file import MATTE_FILE, Matte, footage_digest, is_matte_of, read_matte, write_matte
from engine.avatar.matte_network import PersonNetwork
from engine.errors import AvatarInvalid, BackendFailed

SIZE = 256
ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.parent for path in (ROOT / "avatars").glob("*/avatar.toml"))
CENTRE = np.array([128.0, 128.0])


def disc(radius: float, x: float = 128, y: float = 128, size: int = SIZE) -> np.ndarray:
    """(size, size) float32: 1 inside, the edge one pixel wide."""
    columns, rows = np.meshgrid(np.arange(size), np.arange(size))
    return np.clip(radius + 0.5 - np.hypot(columns - x, rows - y), 0, 1).astype(np.float32)


def picture_of(share: np.ndarray, person=(30, 50, 90), ground=(170, 150, 120)) -> np.ndarray:
    """(H, W, 3) uint8: a person of one colour before a wall of another."""
    image = share[..., None] * np.array(person) + (1 - share[..., None]) * np.array(ground)
    return np.rint(image).astype(np.uint8)


def small(share: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(cv2.resize(share, (64, 64), interpolation=cv2.INTER_AREA), (0, 0), 0.8)


def avatar_of(shares: list[np.ndarray], clip: list[np.ndarray] | None = None) -> Avatar:
    def stretch(some: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        landmarks = np.array([[110, 110], [146, 110], [128, 128], [114, 146], [142, 146]], np.float32)
        frames = np.stack([picture_of(share) for share in some])
        boxes = np.tile(np.array([80, 170, 90, 166], np.float32), (len(some), 1))
        return frames, np.tile(landmarks, (len(some), 1, 1)), boxes

    clips = {"nod": Clip(*stretch(clip), loop=False)} if clip else {}
    frames, landmarks, boxes = stretch(shares)
    return Avatar("disc", "Disc", (SIZE, SIZE), "CC0-1.0", "made", True, "", frames, landmarks, boxes, clips=clips)


def test_an_edge_is_found_where_the_picture_has_it_though_the_network_saw_it_elsewhere() -> None:
    true = disc(70)
    seen = small(disc(71.5, 129, 128))
    matte = refine(picture_of(true), seen, CENTRE).astype(np.float32) / 255
    seen_alone = cv2.resize(seen, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    assert np.abs(matte - true).mean() < 0.2 * np.abs(seen_alone - true).mean()
    assert np.abs(matte - true)[np.hypot(*(np.indices(true.shape) - 128)) < 60].max() == 0


def test_strands_the_network_cannot_see_are_kept() -> None:
    true = disc(70)
    for angle in np.linspace(0, 2 * np.pi, 40, endpoint=False):
        tip = (128 + 74 * np.cos(angle), 128 + 74 * np.sin(angle))
        cv2.line(true, (128, 128), (round(tip[0]), round(tip[1])), 1.0, 1, cv2.LINE_AA)
    matte = refine(picture_of(true), small(disc(71)), CENTRE).astype(np.float32) / 255
    radius = np.hypot(*(np.indices(true.shape) - 128))
    ring = (radius > 71.5) & (radius < 73)
    assert np.corrcoef(matte[ring], true[ring])[0, 1] > 0.8


def test_something_else_that_looks_like_a_person_is_left_out() -> None:
    true = disc(50, 100, 128)
    both = np.maximum(true, disc(20, 225, 60))
    matte = refine(picture_of(both), small(both), np.array([100.0, 128.0]))
    assert matte[60, 225] == 0
    assert matte[128, 100] == 255


def test_a_mistake_of_the_network_in_one_picture_does_not_flicker() -> None:
    true = disc(70)
    seen = [small(true)] * 12
    seen[6] = small(disc(85))
    answers = iter(seen)
    avatar = avatar_of([true] * 12)
    results = [matte.astype(int) for matte in mattes(avatar, lambda picture: next(answers))]
    assert len(results) == 12
    jumps = [np.abs(b - a).mean() for a, b in itertools.pairwise(results)]
    alone = np.abs(
        refine(avatar.frames[0], seen[6], CENTRE).astype(int) - refine(avatar.frames[0], seen[0], CENTRE)
    ).mean()
    assert max(jumps) < 0.5 * alone


def test_mattes_come_for_every_picture_in_order_and_move_with_it() -> None:
    idle = [disc(60, 128 + 6 * np.sin(2 * np.pi * k / 10)) for k in range(10)]
    nod = [disc(60, 128, 120 + 2 * k) for k in range(8)]
    avatar = avatar_of(idle, nod)
    results = list(mattes(avatar, lambda picture: small((picture[..., 0] < 100).astype(np.float32))))
    assert len(results) == avatar.picture_count
    for matte, true in zip(results, idle + nod, strict=True):
        assert np.abs(matte / 255 - true).mean() < 0.02


def test_the_wall_is_taken_out_of_the_colour_of_an_edge() -> None:
    share = cv2.GaussianBlur(disc(70), (0, 0), 2)
    person, ground = (20, 40, 60), (40, 220, 60)
    filmed = picture_of(share, person, ground)
    pure = pure_colour(filmed, np.rint(share * 255).astype(np.uint8)).astype(int)
    edge = (share > 0.2) & (share < 0.8)
    assert np.abs(pure[edge] - person).mean() < 0.5 * np.abs(filmed[edge].astype(int) - person).mean()
    assert (pure[share == 1] == person).all()


@pytest.fixture
def matte_file(tmp_path: Path) -> tuple[Path, Avatar, list[np.ndarray]]:
    shares = [disc(60, 118 + 2 * k) for k in range(10)]
    avatar, path = avatar_of(shares), tmp_path / "kept" / MATTE_FILE
    pictures = [np.rint(share * 255).astype(np.uint8) for share in shares]
    write_matte(path, pictures, avatar.size, "abc")
    return path, avatar, pictures


def test_a_file_gives_back_what_was_written(matte_file: tuple[Path, Avatar, list[np.ndarray]]) -> None:
    path, avatar, pictures = matte_file
    matte = read_matte(path, avatar)
    for index, picture in enumerate(pictures):
        got = matte.picture(index).astype(int)
        assert np.abs(got - picture).mean() < 1
        assert got[128, 128] >= 252 and got[5, 5] <= 3
    assert matte.size_bytes < 10 * 20_000
    assert [entry.name for entry in path.parent.iterdir()] == [MATTE_FILE]


def test_a_file_is_worth_nothing_for_other_footage(matte_file: tuple[Path, Avatar, list[np.ndarray]]) -> None:
    path, avatar, _ = matte_file
    assert is_matte_of(path, "abc")
    assert not is_matte_of(path, "abd")
    assert not is_matte_of(path.with_name("missing.mp4"), "abc")
    longer = replace(avatar, frames=np.concatenate([avatar.frames] * 2), landmarks=np.tile(avatar.landmarks, (2, 1, 1)))
    with pytest.raises(AvatarInvalid) as caught:
        read_matte(path, longer)
    assert caught.value.code == "matte_unreadable"


def test_a_broken_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def pictures():
        yield np.zeros((SIZE, SIZE), np.uint8)
        raise BackendFailed("face_models_missing", "gone")

    with pytest.raises(BackendFailed):
        write_matte(tmp_path / MATTE_FILE, pictures(), (SIZE, SIZE), "abc")
    assert list(tmp_path.iterdir()) == []


def test_a_matte_moves_as_the_picture_does(matte_file: tuple[Path, Avatar, list[np.ndarray]]) -> None:
    path, avatar, _ = matte_file
    matte = read_matte(path, avatar)
    one, other = matte.picture(0), matte.picture(9)
    between = matte.at(Pose(0, other=9, weight=0.5))
    assert (between == cross_fade(one, avatar.landmarks[0], other, avatar.landmarks[9], 0.5)).all()
    leaning = matte.at(Pose(3, lean=1.0))
    assert (leaning == lean(matte.picture(3), avatar.landmarks.mean(0), 1.0)).all()
    assert (leaning != matte.picture(3)).any()
    assert (matte.at(Pose(3)) == matte.picture(3)).all()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_avatars_bring_the_matte_of_their_footage(folder: Path) -> None:
    path = folder / MATTE_FILE
    assert is_matte_of(path, footage_digest(folder)), f"make it: python -m engine avatar matte {folder.name} -o {path}"
    assert path.stat().st_size < 300_000


def test_the_network_finds_a_shipped_person_and_the_shipped_matte_agrees() -> None:
    folder = SHIPPED[0]
    avatar = load_avatar(folder)
    network, matte = PersonNetwork(), read_matte(folder / MATTE_FILE, avatar)
    assert isinstance(matte, Matte)
    for index in (0, avatar.picture_count - 1):
        seen = cv2.resize(network(avatar.picture(index)), avatar.size)
        kept = matte.picture(index) / 255
        assert np.abs(seen - kept).mean() < 0.02
        for x, y in avatar.landmarks_of(index):
            assert kept[int(y), int(x)] > 0.98
