"""From a file to an avatar's folder: photos, films, refusals, and nothing half-written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.avatar import prepare
from engine.avatar.bundle import Avatar, load_avatar
from engine.avatar.landmarks import Face, FaceMesh, five_landmarks, lip_opening
from engine.avatar.portrait_crop import cut_portrait, portrait_square
from engine.avatar.prepare import create_avatar, install_avatar
from engine.avatar.source import MAX_SIDE_PX, VideoSource, read_photo
from engine.errors import AvatarInvalid, Cancelled, PortraitInvalid, VisavisError
from tests.avatar.faces import SMALL, beside, open_mouth, options, save, save_clip
from tests.fakes import tiny_avatar


def refusal(run: Callable[[], object], kind: type[VisavisError] = PortraitInvalid) -> str:
    with pytest.raises(kind) as caught:
        run()
    return caught.value.code


@pytest.fixture(scope="module")
def living(mesh: FaceMesh, photo: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[Avatar, list[float]]:
    shares: list[float] = []
    path = save(tmp_path_factory.mktemp("photo") / "someone.png", photo)
    avatar = create_avatar(path, options(title="Some One"), lambda stage, share: shares.append(share))
    return avatar, shares


def test_a_photo_becomes_an_avatar_that_loads(living: tuple[Avatar, list[float]], tmp_path: Path) -> None:
    avatar, shares = living
    folder = install_avatar(tmp_path / "avatars", avatar)
    loaded = load_avatar(folder)
    assert loaded.title == "Some One" and loaded.synthetic and loaded.size == (SMALL, SMALL)
    assert len(loaded.frames) == 100
    assert [path.name for path in (tmp_path / "avatars").iterdir()] == ["test"]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1


def test_landmarks_of_the_loop_lie_on_the_face(mesh: FaceMesh, living: tuple[Avatar, list[float]]) -> None:
    avatar, _ = living
    for number in (0, 40, 80):
        seen = mesh.find(avatar.frames[number])[0]
        apart = np.abs(five_landmarks(seen.points) - avatar.landmarks[number])
        # Lids that are down move the measured eyes.
        assert apart[2:].max() < 2.0
        y1, y2, x1, x2 = avatar.boxes[number]
        assert abs((y2 - y1) - (seen.box[1] - seen.box[0])) < 6 and x1 < seen.points[1, 0] < x2
    sides = np.stack([avatar.boxes[:, 1] - avatar.boxes[:, 0], avatar.boxes[:, 3] - avatar.boxes[:, 2]])
    assert np.ptp(sides, 1).max() < 1e-3


def test_a_photo_taken_on_its_side_is_turned_upright(photo: np.ndarray, tmp_path: Path) -> None:
    path = save(tmp_path / "turned.jpg", cv2.rotate(photo, cv2.ROTATE_90_COUNTERCLOCKWISE))
    data = path.read_bytes()
    # An EXIF block of one entry: orientation 6, "turn clockwise".
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    block = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:])
    assert np.abs(read_photo(path).astype(int) - photo).mean() < 4


def test_large_photos_are_reduced(photo: np.ndarray, tmp_path: Path) -> None:
    path = save(tmp_path / "large.jpg", cv2.resize(photo, (2600, 2600)))
    assert read_photo(path).shape == (MAX_SIDE_PX, MAX_SIDE_PX, 3)


def test_the_portrait_lies_inside_the_picture_with_the_face_well_placed() -> None:
    roomy = portrait_square(2000, 1500, np.array([500.0, 900.0, 800.0, 1100.0]))
    assert 400 / roomy.side == pytest.approx(0.42, abs=0.01)
    tight = portrait_square(300, 360, np.array([100.0, 300.0, 60.0, 240.0]))
    for square, size in ((roomy, (2000, 1500)), (tight, (300, 360))):
        assert square.x >= 0 and square.y >= 0
        assert square.x + square.side <= size[0] and square.y + square.side <= size[1]
    assert tight.y + tight.side > 300


def test_points_stay_on_what_they_mark_when_the_portrait_is_cut(photo: np.ndarray, face: Face) -> None:
    marked = photo.copy()
    x, y = (int(value) for value in face.points[1, :2])
    marked[y, x] = 255
    square = portrait_square(512, 512, face.box)
    cut = cut_portrait(marked, square, 1024).astype(int) - cut_portrait(photo, square, 1024)
    peak = np.unravel_index(cut.sum(2).argmax(), cut.shape[:2])
    assert np.abs(square.to_crop(np.array([x, y]), 1024) - peak[::-1]).max() < 2


def test_a_film_becomes_a_loop_with_a_resting_mouth(
    mesh: FaceMesh, idle_frames: np.ndarray, face: Face, tmp_path: Path
) -> None:
    talk = 0.5 - 0.5 * np.cos(np.arange(40) * 0.7)
    film = [open_mouth(picture, face.points, share) for picture, share in zip(idle_frames, talk, strict=False)]
    avatar = create_avatar(save_clip(tmp_path / "film.mp4", film), options())
    assert len(avatar.frames) >= 40
    measured = [float(lip_opening(mesh.find(picture)[0].points)) for picture in avatar.frames[::6]]
    assert max(measured) < 0.07 < 0.09 < float(lip_opening(mesh.find(film[4])[0].points))
    change = np.abs(np.diff(np.concatenate([avatar.frames, avatar.frames[:1]]).astype(np.int16), axis=0)).mean(
        (1, 2, 3)
    )
    assert change[-1] <= change.max() and change.max() < 2.5
    assert np.linalg.norm(np.diff(avatar.landmarks, 2, axis=0), axis=2).max() < 0.8


def phone_film(path: Path, pictures: list[np.ndarray], times_ms: list[int]) -> Path:
    """An mp4 as a phone writes it: its pictures come at uneven times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "12"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, time_ms in zip(pictures, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_uneven_times_become_25_pictures_a_second(tmp_path: Path) -> None:
    times_ms = [0, 33, 66, 95, 160, 240, 250, 280, 400]
    pictures = [np.full((64, 64, 3), 20 + 20 * number, np.uint8) for number in range(len(times_ms))]
    film = VideoSource(phone_film(tmp_path / "phone.mp4", pictures, times_ms))
    shown = [round((float(picture.mean()) - 20) / 20) for picture in film.frames()]
    # At 0, 40, 80, ... ms the picture that is due then, at most half a period early.
    assert shown == [0, 1, 3, 3, 4, 4, 6, 7, 7, 7, 8]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_films_are_turned_as_their_flag_says(degrees: int, tmp_path: Path) -> None:
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:20, :30] = 250
    stored = np.ascontiguousarray(np.rot90(upright, degrees // 90))
    plain = phone_film(tmp_path / "plain.mp4", [stored] * 3, [0, 40, 80])
    data = plain.read_bytes()
    one, minus, zero = (value.to_bytes(4, "big", signed=True) for value in (1 << 16, -(1 << 16), 0))
    top = (1 << 30).to_bytes(4, "big")
    # The track header's matrix: how players turn the stored picture to show it.
    turns = {90: (zero, one, minus, zero), 180: (minus, zero, zero, minus), 270: (zero, minus, one, zero)}
    a, b, c, d = turns[degrees]
    old = one + zero + zero + zero + one + zero + zero + zero + top
    new = a + b + zero + c + d + zero + zero + zero + top
    header = data.index(b"tkhd")
    matrix = data.index(old, header)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data[:matrix] + new + data[matrix + len(old) :])
    picture = next(VideoSource(turned).frames())
    assert picture.shape == upright.shape
    assert np.abs(picture.astype(int) - upright).mean() < 6


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda photo: np.full_like(photo, 120), "no_face"),
        (lambda photo: beside(photo, photo[:, ::-1]), "several_faces"),
        (lambda photo: cv2.resize(photo, (150, 150), interpolation=cv2.INTER_AREA), "face_too_small"),
        (lambda photo: (photo * 0.2).astype(np.uint8), "too_dark"),
    ],
)
def test_unusable_photos_are_refused(
    mesh: FaceMesh, photo: np.ndarray, tmp_path: Path, spoil: Callable[[np.ndarray], np.ndarray], code: str
) -> None:
    path = save(tmp_path / "bad.png", spoil(photo))
    assert refusal(lambda: create_avatar(path, options())) == code


def test_of_several_faces_the_largest_can_be_asked_for(mesh: FaceMesh, photo: np.ndarray, tmp_path: Path) -> None:
    # Large and small side by side, with grey around the small one.
    small = cv2.copyMakeBorder(cv2.resize(photo, (320, 320)), 96, 96, 0, 0, cv2.BORDER_CONSTANT, value=(90, 90, 90))
    path = save(tmp_path / "two.png", beside(photo, small))
    avatar = create_avatar(path, options(face="largest"))
    assert mesh.find(avatar.frames[0])[0].box[1] - mesh.find(avatar.frames[0])[0].box[0] > 0.3 * SMALL


@pytest.mark.parametrize("name", ["none.jpg", "none.mp4"])
def test_missing_and_unreadable_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert refusal(lambda: create_avatar(path, options())) == "source_missing"
    path.write_bytes(b"this is no picture" * 100)
    assert refusal(lambda: create_avatar(path, options())) == "source_unreadable"


def test_films_that_are_too_long_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_clip(tmp_path / "long.mp4", [np.zeros((64, 64, 3), np.uint8)] * 60)
    monkeypatch.setattr("engine.avatar.source.MAX_VIDEO_S", 1.0)
    assert refusal(lambda: create_avatar(path, options())) == "source_too_long"


def test_without_consent_nothing_is_read(tmp_path: Path) -> None:
    wish = options(synthetic=False, consent=" ")
    assert refusal(lambda: create_avatar(tmp_path / "absent.jpg", wish)) == "consent_missing"


@pytest.mark.parametrize(
    ("changes", "kind", "code"),
    [
        ({"name": "../up"}, AvatarInvalid, "avatar_name_invalid"),
        ({"size": 511}, PortraitInvalid, "size_invalid"),
        ({"seconds": 1.0}, PortraitInvalid, "seconds_invalid"),
    ],
)
def test_unusable_options_are_refused(changes: dict, kind: type[VisavisError], code: str, tmp_path: Path) -> None:
    assert refusal(lambda: create_avatar(tmp_path / "absent.jpg", options(**changes)), kind) == code


def test_it_can_be_cancelled(mesh: FaceMesh, photo: np.ndarray, tmp_path: Path) -> None:
    path = save(tmp_path / "photo.png", photo)
    assert refusal(lambda: create_avatar(path, options(), cancelled=lambda: True), Cancelled) == "cancelled"


def test_an_existing_avatar_is_kept_unless_forced(tmp_path: Path) -> None:
    avatar = tiny_avatar()
    install_avatar(tmp_path, avatar)
    other = dataclasses.replace(avatar, title="Other")
    assert refusal(lambda: install_avatar(tmp_path, other)) == "avatar_exists"
    assert load_avatar(tmp_path / avatar.name).title == avatar.title
    install_avatar(tmp_path, other, force=True)
    assert load_avatar(tmp_path / avatar.name).title == "Other"
    assert [path.name for path in tmp_path.iterdir()] == [avatar.name]


def test_a_failure_while_writing_keeps_the_old_avatar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    avatar = tiny_avatar()
    install_avatar(tmp_path, avatar)

    def full(folder: Path, avatar: Avatar) -> None:
        (folder / "idle.mp4").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "write_avatar", full)
    assert refusal(lambda: install_avatar(tmp_path, avatar, force=True)) == "output_invalid"
    assert load_avatar(tmp_path / avatar.name).title == avatar.title
    assert [path.name for path in tmp_path.iterdir()] == [avatar.name]


@pytest.mark.parametrize("still", ["jeanette_epps.jpg"])
def test_real_photos_become_avatars_with_closed_lips(mesh: FaceMesh, shared_data: Path, still: str) -> None:
    avatar = create_avatar(shared_data / "faces" / "stills" / still, options())
    assert lip_opening(mesh.find(avatar.frames[0])[0].points) < 0.07
