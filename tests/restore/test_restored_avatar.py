"""An avatar's own pictures: restored once, resumable, interruptible, kept between runs."""

from __future__ import annotations

import errno
import itertools
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.avatar.bundle import Avatar, load_avatar, write_avatar
from engine.avatar.footage import Clip
from engine.errors import BackendFailed, Cancelled, DiskFull
from engine.restore import avatar_cache
from engine.restore.gfpgan import GfpganRestorer
from tests.restore.fakes import LANDMARKS, FakeEnhancer, drawn_face

FRAMES, CLIP_FRAMES, SIZE = 8, 25, 128


def small_face(shift: float) -> np.ndarray:
    return np.ascontiguousarray(drawn_face(0.1, shift)[::2, ::2])


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Avatar:
    """Eight pictures and a clip that begins with the loop's first picture over and over; went through a file."""

    def rows(shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frames = np.stack([small_face(shift) for shift in shifts])
        landmarks = np.stack([(LANDMARKS + np.array([shift, 0])) / 2 for shift in shifts]).astype(np.float32)
        boxes = np.tile(np.array([80, 190, 80, 170], np.float32), (len(shifts), 1))
        return frames, landmarks, boxes

    loop = rows(3 * np.sin(2 * np.pi * np.arange(FRAMES) / FRAMES))
    clip = rows(np.repeat([0.0, 1.0, 2.0, 1.0, 0.0], CLIP_FRAMES // 5))
    folder = tmp_path_factory.mktemp("avatars") / "drawn"
    clips = {"nod": Clip(*clip)}
    write_avatar(folder, Avatar("drawn", "Drawn", (256, 256), "CC0-1.0", "the tests", True, "", *loop, clips=clips))
    return load_avatar(folder)


def still(avatar: Avatar, count: int) -> Avatar:
    """The first picture of the loop, over and over."""
    frames, landmarks, boxes = (
        np.repeat(rows[:1], count, 0) for rows in (avatar.frames, avatar.landmarks, avatar.boxes)
    )  # fmt: skip
    return replace(avatar, frames=frames, landmarks=landmarks, boxes=boxes, clips={})


def detail(frames: np.ndarray) -> float:
    part = frames[:, 90:180, 90:160].astype(np.float32)
    return float(np.abs(np.diff(part, axis=2)).mean())


def test_all_pictures_get_sharper_and_nothing_else_changes(avatar: Avatar) -> None:
    before = avatar.frames.copy()
    restored = GfpganRestorer(FakeEnhancer(SIZE, sharpness=2)).restore_avatar(avatar)
    assert detail(restored.frames) > 1.15 * detail(avatar.frames)
    assert detail(restored.clips["nod"].frames) > 1.15 * detail(avatar.clips["nod"].frames)
    np.testing.assert_array_equal(avatar.frames, before)
    np.testing.assert_array_equal(restored.frames[:, :4], avatar.frames[:, :4])
    same = replace(restored, frames=avatar.frames, clips=avatar.clips)
    for field in ("name", "size", "consent", "landmarks", "boxes"):
        assert getattr(same, field) is getattr(avatar, field)


def test_progress_counts_every_picture_once(avatar: Avatar) -> None:
    told: list[tuple[int, int]] = []
    enhancer = FakeEnhancer(SIZE, batch=4)
    GfpganRestorer(enhancer).restore_avatar(avatar, lambda done, of: told.append((done, of)))
    total = FRAMES + CLIP_FRAMES
    assert told[0] == (0, total) and told[-1] == (total, total)
    assert all(one[0] < other[0] for one, other in itertools.pairwise(told))
    assert max(len(faces) for faces, _ in enhancer.calls) == 4


def test_equal_pictures_are_restored_once(avatar: Avatar) -> None:
    enhancer = FakeEnhancer(SIZE)
    GfpganRestorer(enhancer).restore_avatar(still(avatar, FRAMES))
    assert len(enhancer.calls) == 1


def test_the_second_run_computes_nothing_and_shows_the_same(avatar: Avatar, tmp_path: Path) -> None:
    first = GfpganRestorer(FakeEnhancer(SIZE, sharpness=2), tmp_path).restore_avatar(avatar)
    enhancer, told = FakeEnhancer(SIZE), []
    second = GfpganRestorer(enhancer, tmp_path).restore_avatar(avatar, lambda *counts: told.append(counts))
    assert not enhancer.calls and told == [(FRAMES + CLIP_FRAMES,) * 2]
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.clips["nod"].frames, second.clips["nod"].frames)
    assert [path.name for path in tmp_path.iterdir() if path.name == "faces" or path.name.startswith(".")] == []


def test_a_fitted_picture_network_stays(avatar: Avatar, tmp_path: Path) -> None:
    fitted = replace(avatar, picture_model=Path("picture.xml"))
    for _ in range(2):
        restored = GfpganRestorer(FakeEnhancer(SIZE), tmp_path).restore_avatar(fitted)
        assert restored.picture_model == Path("picture.xml")


def test_an_interrupted_run_goes_on_where_it_stopped(avatar: Avatar, tmp_path: Path) -> None:
    def stop(done: int, of: int) -> None:
        if done >= 4:
            raise Cancelled("stopped", "enough")

    enhancer = FakeEnhancer(SIZE, sharpness=2)
    with pytest.raises(Cancelled):
        GfpganRestorer(enhancer, tmp_path).restore_avatar(avatar, stop)
    begun = len(enhancer.calls)
    resumed = FakeEnhancer(SIZE, sharpness=2)
    told: list[int] = []
    restored = GfpganRestorer(resumed, tmp_path).restore_avatar(avatar, lambda done, of: told.append(done))
    assert told[0] >= 4
    whole = FakeEnhancer(SIZE, sharpness=2)
    at_once = GfpganRestorer(whole, tmp_path / "other").restore_avatar(avatar)
    assert begun + len(resumed.calls) == len(whole.calls)
    np.testing.assert_array_equal(restored.frames, at_once.frames)


def test_a_failing_device_loses_no_finished_face(avatar: Avatar, tmp_path: Path) -> None:
    enhancer = FakeEnhancer(SIZE)
    enhancer.fails_after = 3
    with pytest.raises(BackendFailed):
        GfpganRestorer(enhancer, tmp_path).restore_avatar(avatar)
    assert len(list((tmp_path / "faces").glob("*.png"))) == 3


def test_damaged_entries_are_made_again(avatar: Avatar, tmp_path: Path) -> None:
    first = GfpganRestorer(FakeEnhancer(SIZE, sharpness=2), tmp_path).restore_avatar(avatar)
    next(tmp_path.glob("*/drawn/idle.mp4")).write_bytes(b"broken")
    (tmp_path / "faces").mkdir()
    key = avatar_cache.face_key(avatar.frames[0], avatar.landmarks[0])
    (tmp_path / "faces" / f"{key}.png").write_bytes(b"\x89PNG broken")
    again = GfpganRestorer(FakeEnhancer(SIZE, sharpness=2), tmp_path).restore_avatar(avatar)
    np.testing.assert_array_equal(first.frames, again.frames)


def test_what_a_killed_program_left_goes_and_what_another_one_writes_stays(avatar: Avatar, tmp_path: Path) -> None:
    for name, age_s in (("left", 7200), ("busy", 10)):
        folder = tmp_path / f".new-{name}"
        folder.mkdir()
        os.utime(folder, (time.time() - age_s,) * 2)
    GfpganRestorer(FakeEnhancer(SIZE), tmp_path).restore_avatar(avatar)
    assert [path.name for path in tmp_path.glob(".*")] == [".new-busy"]


def test_a_changed_picture_meets_no_old_result(avatar: Avatar, tmp_path: Path) -> None:
    GfpganRestorer(FakeEnhancer(SIZE), tmp_path).restore_avatar(avatar)
    frames = avatar.frames.copy()
    frames[3, 200, 200] ^= 64
    enhancer = FakeEnhancer(SIZE)
    GfpganRestorer(enhancer, tmp_path).restore_avatar(replace(avatar, frames=frames))
    assert enhancer.calls


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EACCES, BackendFailed)])
def test_a_full_or_locked_disk_is_said_and_leaves_nothing_half_written(
    avatar: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise OSError(number, "refused")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(kind):
        GfpganRestorer(FakeEnhancer(SIZE), tmp_path).restore_avatar(avatar)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_loop_stays_a_loop(avatar: Avatar) -> None:
    """Across the seam of a still loop the restorer's noise is steadied as anywhere else."""
    loop = still(avatar, 32)
    loop.frames[:, 0, 0] = np.arange(32)[:, None]
    restored = GfpganRestorer(FakeEnhancer(SIZE, noise=10)).restore_avatar(loop).frames.astype(np.float32)
    steps = np.abs(np.diff(restored, axis=0, append=restored[:1]))[:, 90:180, 90:160].mean((1, 2, 3))
    assert steps[-1] < 1.5 * np.median(steps[5:-1])
