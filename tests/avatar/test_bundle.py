import dataclasses
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from engine.avatar.bundle import Avatar, Clip, avatar_folder, list_avatars, load_avatar, read_card, write_avatar
from engine.errors import AvatarInvalid, NotFound
from tests.fakes import TINY_FRAMES, idle_number, tiny_avatar, tiny_clip


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
        if field.name not in ("frames", "landmarks", "boxes", "clips", "folder"):
            assert getattr(loaded, field.name) == getattr(written, field.name)
    assert np.array_equal(loaded.landmarks, written.landmarks)
    assert np.array_equal(loaded.boxes, written.boxes)
    assert loaded.folder == folder and written.folder is None
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
    monkeypatch.setattr("engine.avatar.card.MAX_CARD_BYTES", 10)
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
    assert refused(clips={"Nod": tiny_clip()}) == "avatar_clip_name"
    assert refused(clips={f"clip{n}": tiny_clip() for n in range(17)}) == "avatar_clips_size"
    assert isinstance(tiny_avatar(), Avatar) and not (tmp_path / "tiny").exists()


@pytest.fixture
def acting(tmp_path: Path) -> Path:
    """A folder of an avatar that can nod once and listen."""
    clips = {"nod": tiny_clip(30, 200), "listening": tiny_clip(26, 150, loop=True)}
    write_avatar(tmp_path / "tiny", dataclasses.replace(tiny_avatar(), clips=clips))
    return tmp_path / "tiny"


def test_clips_are_written_and_loaded_again(acting: Path) -> None:
    assert read_card(acting).clips == {"listening": True, "nod": False}
    loaded = load_avatar(acting)
    assert list(loaded.clips) == ["listening", "nod"]
    nod = loaded.clips["nod"]
    assert nod.frames.shape == (30, 96, 96, 3) and not nod.loop and loaded.clips["listening"].loop
    assert np.array_equal(nod.landmarks, tiny_clip(30).landmarks) and np.array_equal(nod.boxes, tiny_clip(30).boxes)
    assert abs(float(nod.frames[0, :16, :16].mean()) - 200) < 3
    for array in (nod.frames, nod.landmarks, nod.boxes):
        with pytest.raises(ValueError):
            array[0] = 0


def test_pictures_are_numbered_through_the_loop_and_then_the_clips_by_name(acting: Path) -> None:
    loaded = load_avatar(acting)
    assert loaded.starts == {"listening": TINY_FRAMES, "nod": TINY_FRAMES + 26}
    assert loaded.picture_count == TINY_FRAMES + 56 == len(loaded.all_landmarks()) == len(loaded.all_boxes())
    assert np.shares_memory(loaded.picture(3), loaded.frames[3])
    assert np.array_equal(loaded.picture(TINY_FRAMES), loaded.clips["listening"].frames[0])
    assert np.array_equal(loaded.picture(TINY_FRAMES + 26 + 29), loaded.clips["nod"].frames[29])
    for index in (-1, TINY_FRAMES + 56):
        with pytest.raises(IndexError):
            loaded.picture(index)


def test_clips_that_are_gone_do_not_stay_in_the_folder(acting: Path) -> None:
    write_avatar(acting, tiny_avatar())
    assert not list(acting.glob("clip_*")) and load_avatar(acting).clips == {}


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("[clips.nod]", "[clips.bow]", "avatar_faces_unreadable"),
        ("[clips.nod]", '[clips."../nod"]', "avatar_clip_name"),
        ("[clips.nod]", "[clips.Nod]", "avatar_clip_name"),
        ("loop = true", "loop = false", "avatar_clip_loop"),
        ("loop = true", 'loop = "yes"', "avatar_card_incomplete"),
        ("[clips.nod]\nloop = false", "[clips]\nnod = 3", "avatar_card_incomplete"),
    ],
)
def test_unusable_table_of_clips_is_refused(acting: Path, old: str, new: str, code: str) -> None:
    edit_card(acting, old, new)
    assert refusal(acting) == code


def test_missing_or_shortened_clip_is_refused(acting: Path) -> None:
    shutil.copy(acting / "idle.mp4", acting / "clip_nod.mp4")
    assert refusal(acting) == "avatar_length"
    (acting / "clip_nod.mp4").unlink()
    with pytest.raises(AvatarInvalid, match=r"clip_nod\.mp4 is missing"):
        load_avatar(acting)


@pytest.mark.parametrize("frames", [24, 1501])
def test_clip_that_is_too_short_or_too_long_is_refused(tmp_path: Path, frames: int) -> None:
    clip = tiny_clip(25)
    long = Clip(*(np.repeat(array[:1], frames, axis=0) for array in (clip.frames, clip.landmarks, clip.boxes)))
    with pytest.raises(AvatarInvalid, match="'nod'") as caught:
        write_avatar(tmp_path / "tiny", dataclasses.replace(tiny_avatar(), clips={"nod": long}))
    assert caught.value.code == "avatar_clip_length"


def test_loop_and_clips_share_one_limit_of_memory(acting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.avatar.footage.MAX_DECODED_BYTES", 60 * 96 * 96 * 3)
    assert refusal(acting) == "avatar_clips_size"


def test_consent_may_be_a_table_of_who_when_and_scope(folder: Path) -> None:
    card = folder / "avatar.toml"
    real = card.read_text().replace("synthetic = true", "synthetic = false")
    table = '\n[consent]\nwho = "Ada Example"\nwhen = 2026-01-01\nscope = "this demo"\n'
    card.write_text(real + table)
    assert load_avatar(folder).consent == "Ada Example, 2026-01-01: this demo"
    card.write_text(real + table.replace('scope = "this demo"', 'scope = " "'))
    assert refusal(folder) == "avatar_card_incomplete"
    card.write_text(real + table.replace('scope = "this demo"', ""))
    assert refusal(folder) == "avatar_card_incomplete"
