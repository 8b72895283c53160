import dataclasses
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from engine.avatar.bundle import Avatar, avatar_folder, list_avatars, load_avatar, write_avatar
from engine.errors import AvatarInvalid, NotFound
from tests.fakes import TINY_FRAMES, idle_number, tiny_avatar


@pytest.fixture
def folder(avatars_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(avatars_dir / "tiny", tmp_path / "tiny"))


def edit_card(folder: Path, old: str, new: str) -> None:
    card = folder / "avatar.toml"
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new))


def save_faces(folder: Path, **arrays: np.ndarray) -> None:
    avatar = tiny_avatar()
    np.savez(folder / "faces.npz", **{"landmarks": avatar.landmarks, "boxes": avatar.boxes, **arrays})


def refusal(folder: Path) -> str:
    with pytest.raises(AvatarInvalid) as caught:
        load_avatar(folder)
    return caught.value.code


def test_written_avatar_loads_again_with_every_field(folder: Path) -> None:
    written, loaded = tiny_avatar(), load_avatar(folder)
    for field in dataclasses.fields(Avatar):
        if field.name not in ("frames", "landmarks", "boxes"):
            assert getattr(loaded, field.name) == getattr(written, field.name)
    assert np.array_equal(loaded.landmarks, written.landmarks)
    assert np.array_equal(loaded.boxes, written.boxes)
    assert [idle_number(picture) for picture in loaded.frames] == list(range(TINY_FRAMES))


def test_colours_survive_the_round_trip(tmp_path: Path) -> None:
    avatar = tiny_avatar()
    frames = np.empty_like(avatar.frames)
    colours = [(30, 60, 200), (200, 60, 30), (30, 200, 60), (128, 128, 128), (120, 150, 200), (255, 255, 255)]
    for row, colour in enumerate(colours):
        frames[:, row * 16 : (row + 1) * 16] = colour
    write_avatar(tmp_path / "tiny", dataclasses.replace(avatar, frames=frames))
    loaded = load_avatar(tmp_path / "tiny")
    for row, colour in enumerate(colours):
        patch = loaded.frames[:, row * 16 + 4 : row * 16 + 12, 8:88].reshape(-1, 3).astype(float)
        # One step of 8-bit chroma is 2.1 steps of blue; taking BT.601 for BT.709 would cost ten and more.
        assert np.abs(patch.mean(0) - colour).max() <= 2.2


def test_video_says_that_it_is_bt709_limited_range(folder: Path) -> None:
    with av.open(str(folder / "idle.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


def test_loaded_pictures_are_read_only(folder: Path) -> None:
    with pytest.raises(ValueError):
        load_avatar(folder).frames[0, 0, 0] = 0


def test_text_with_quotes_and_breaks_survives_the_card(tmp_path: Path) -> None:
    title = 'A "quoted"\ttitle\nwith \\ and ü\x7f'
    write_avatar(tmp_path / "tiny", dataclasses.replace(tiny_avatar(), title=title))
    assert load_avatar(tmp_path / "tiny").title == title


@pytest.mark.parametrize("name", ["avatar.toml", "idle.mp4", "faces.npz"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AvatarInvalid, match=name) as caught:
        load_avatar(folder)
    assert caught.value.code == "avatar_file_missing"


def test_empty_and_oversized_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "idle.mp4").write_bytes(b"")
    assert refusal(folder) == "avatar_file_size"
    monkeypatch.setattr("engine.avatar.bundle.MAX_CARD_BYTES", 10)
    assert refusal(folder) == "avatar_file_size"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("synthetic = true", "synthetic = false", "avatar_consent_missing"),
        ("synthetic = true", "", "avatar_card_incomplete"),
        ('title = "Tiny"', "", "avatar_card_incomplete"),
        ('licence = "CC0-1.0"', 'licence = " "', "avatar_card_incomplete"),
        ("fps = 25", "fps = 30", "avatar_fps"),
        ("size = [96, 96]", "size = [96, 98]", "avatar_size"),
        ("size = [96, 96]", "size = [97, 96]", "avatar_size"),
        ("size = [96, 96]", "size = [96000, 96]", "avatar_size"),
        ("size = [96, 96]", 'size = "96x96"', "avatar_card_incomplete"),
        ("size =", "size = =", "avatar_card_malformed"),
    ],
)
def test_unusable_card_is_refused(folder: Path, old: str, new: str, code: str) -> None:
    edit_card(folder, old, new)
    assert refusal(folder) == code


def test_real_person_with_consent_is_accepted(folder: Path) -> None:
    edit_card(folder, "synthetic = true", 'synthetic = false\nconsent = "signed 2026-01-01"')
    assert load_avatar(folder).consent == "signed 2026-01-01"


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"landmarks": np.zeros((TINY_FRAMES - 1, 5, 2), np.float32)}, "avatar_length"),
        ({"boxes": np.zeros((TINY_FRAMES - 1, 4), np.float32)}, "avatar_faces_shape"),
        ({"landmarks": np.full((TINY_FRAMES, 5, 2), np.nan, np.float32)}, "avatar_faces_values"),
        ({"landmarks": np.full((TINY_FRAMES, 5, 2), 500, np.float32)}, "avatar_faces_values"),
        ({"landmarks": tiny_avatar().landmarks[:, ::-1]}, "avatar_faces_values"),
        ({"boxes": np.zeros((TINY_FRAMES, 4), np.float32)}, "avatar_faces_values"),
        ({"landmarks": np.array([{"an": "object"}])}, "avatar_faces_unreadable"),
    ],
)
def test_faces_that_do_not_fit_are_refused(folder: Path, arrays: dict[str, np.ndarray], code: str) -> None:
    save_faces(folder, **arrays)
    assert refusal(folder) == code


def test_faces_file_that_is_no_archive_is_refused(folder: Path) -> None:
    (folder / "faces.npz").write_bytes(b"not a zip")
    assert refusal(folder) == "avatar_faces_unreadable"


def test_truncated_video_is_refused(folder: Path) -> None:
    video = folder / "idle.mp4"
    video.write_bytes(video.read_bytes()[:600])
    assert refusal(folder) == "avatar_video_unreadable"


def test_video_longer_than_its_faces_is_refused(folder: Path) -> None:
    avatar = tiny_avatar()
    save_faces(folder, landmarks=avatar.landmarks[:5], boxes=avatar.boxes[:5])
    assert refusal(folder) == "avatar_length"


def test_list_leaves_out_broken_avatars(avatars_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(avatars_dir / "tiny", tmp_path / "good")
    broken = Path(shutil.copytree(avatars_dir / "tiny", tmp_path / "broken"))
    edit_card(broken, "synthetic = true", "synthetic = false")
    shutil.copytree(avatars_dir / "tiny", tmp_path / "Bad Name")
    (tmp_path / "notes").mkdir()
    assert list(list_avatars(tmp_path)) == ["good"]
    assert list_avatars(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("name", ["../tiny", "tiny/", "", ".", "TINY", "tiny\n", "a" * 65, "unknown", "tiny\0"])
def test_names_that_are_no_avatar_are_not_found(avatars_dir: Path, name: str) -> None:
    assert avatar_folder(avatars_dir, "tiny") == avatars_dir / "tiny"
    with pytest.raises(NotFound):
        avatar_folder(avatars_dir, name)


def test_write_refuses_what_load_would_refuse(tmp_path: Path) -> None:
    def refused(**changes: object) -> str:
        with pytest.raises(AvatarInvalid) as caught:
            write_avatar(tmp_path / "tiny", dataclasses.replace(tiny_avatar(), **changes))
        return caught.value.code

    assert refused(synthetic=False) == "avatar_consent_missing"
    assert refused(name="other") == "avatar_name_invalid"
    assert refused(size=(98, 96)) == "avatar_size"
    assert refused(fps=30) == "avatar_fps"
    assert refused(frames=tiny_avatar().frames.astype(np.float32)) == "avatar_frames"
    assert refused(frames=tiny_avatar().frames[:1]) == "avatar_length"
    assert isinstance(tiny_avatar(), Avatar) and not (tmp_path / "tiny").exists()
