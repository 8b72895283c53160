"""Packed pictures: colour above matte, when they begin and end, and how a server comes by a matte."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from aiortc.codecs.h264 import h264_depayload

from engine.avatar.body import Pose
from engine.avatar.bundle import load_avatar
from engine.avatar.matte_file import MATTE_FILE, Matte, read_matte
from engine.config import Config
from engine.errors import BackendFailed, NotFound
from server import mattes as mattes_module
from server.encoder import create_video_encoder
from server.encoder_pool import EncoderPool
from server.mattes import Mattes
from server.packing import Packing, pack
from server.tracks import AvatarVideoTrack
from tests.server.fakes import SIZE, make_frame

AVATARS = Path(__file__).resolve().parents[2] / "avatars"
MAYA = AVATARS / "maya"


@pytest.fixture(scope="module")
def maya():
    return load_avatar(MAYA)


@pytest.fixture(scope="module")
def matte(maya) -> Matte:
    return read_matte(MAYA / MATTE_FILE, maya)


def frame_of(maya, index: int):
    return replace(make_frame(index), image=maya.picture(index), pose=Pose(index))


def test_the_matte_lies_below_the_colour(maya, matte: Matte) -> None:
    packed = pack(frame_of(maya, 7), matte)
    assert packed.shape == (1024, 512, 3)
    assert (packed[:512] == maya.picture(7)).all()
    assert (packed[512:] == matte.picture(7)[..., None]).all()


def test_a_frame_that_tells_no_pose_is_all_person(matte: Matte) -> None:
    packed = pack(make_frame(1), matte)
    assert packed.shape == (2 * SIZE, SIZE, 3)
    assert (packed[SIZE:] == 255).all()


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_colour_and_matte_survive_the_encoder_apart_from_each_other(maya, matte: Matte, codec) -> None:
    packed = pack(frame_of(maya, 0), matte)
    encoder = create_video_encoder(codec, 512, 1024, 1_500_000)
    decoder = av.CodecContext.create({"H264": "h264", "VP8": "vp8"}[codec], "r")
    shown = None
    for pts in range(20):
        for decoded in decoder.decode(encoder.encode(packed, pts, pts == 0)):
            shown = cv2.cvtColor(decoded.to_ndarray(format="yuv420p"), cv2.COLOR_YUV2BGR_I420)
    assert shown is not None
    difference = np.abs(shown.astype(int) - packed)
    assert difference[512:, :, 1].mean() < 2
    assert difference[:512].mean() < 4
    # The seam: the last row of the colour has not taken up the matte's grey.
    assert difference[510:512].mean() < 8


class Watching:
    def __init__(self) -> None:
        self.worn: list[bool] = []
        self.told: list[tuple[str, object]] = []

    def packing(self, load) -> Packing:
        return Packing(
            load,
            lambda dress: self.worn.append(dress is not None),
            lambda kind, data: self.told.append((kind, data.get("background", data.get("code")))),
        )


async def test_pictures_are_as_filmed_until_the_matte_is_there(matte: Matte) -> None:
    there, watching = asyncio.Event(), Watching()

    async def load() -> Matte:
        await there.wait()
        return matte

    packing = watching.packing(load)
    packing.choose("packed")
    await asyncio.sleep(0.01)
    assert watching.worn == [] and packing.dress is None
    there.set()
    await asyncio.sleep(0.01)
    assert watching.worn == [True] and watching.told == [("background", "packed")]
    packing.choose("filmed")
    assert watching.worn == [True, False] and packing.dress is None
    await packing.aclose()


async def test_who_changes_their_mind_while_it_is_made_stays_as_filmed(matte: Matte) -> None:
    there, watching = asyncio.Event(), Watching()

    async def load() -> Matte:
        await there.wait()
        return matte

    packing = watching.packing(load)
    packing.choose("packed")
    await asyncio.sleep(0)
    packing.choose("filmed")
    there.set()
    await asyncio.sleep(0.01)
    assert packing.dress is None and True not in watching.worn
    await packing.aclose()


async def test_a_matte_that_cannot_be_made_is_told_and_may_be_asked_for_again(matte: Matte) -> None:
    tries, watching = [], Watching()

    async def load() -> Matte:
        tries.append(1)
        if len(tries) == 1:
            raise BackendFailed("matte_failed", "No.")
        return matte

    packing = watching.packing(load)
    packing.choose("packed")
    await asyncio.sleep(0.01)
    assert watching.told == [("error", "matte_failed")] and packing.background == "filmed"
    packing.choose("packed")
    await asyncio.sleep(0.01)
    assert packing.dress is not None
    await packing.aclose()


class Now:
    def due_s(self, pts: int) -> float:
        return 0.0


async def test_the_change_comes_with_a_key_frame_of_the_new_shape(maya, matte: Matte) -> None:
    pool = EncoderPool(1)
    track = AvatarVideoTrack(Now(), pool, "H264", 1_000_000)
    decoder, shapes = av.CodecContext.create("h264", "r"), []
    try:
        for pts in range(9):
            track.dress = (lambda frame: pack(frame, matte)) if 3 <= pts < 6 else None
            track.offer(replace(frame_of(maya, pts), pts=pts))
            parcel, _ = await asyncio.wait_for(track.next_parcel(), 5)
            assert parcel.key_frame == (pts in (0, 3, 6))
            data = b"".join(h264_depayload(payload) for payload in parcel.payloads)
            shapes += [(frame.width, frame.height) for frame in decoder.decode(av.Packet(data))]
    finally:
        await track.aclose()
        await pool.aclose()
    assert shapes == [(512, 512)] * 3 + [(512, 1024)] * 3 + [(512, 512)] * 3


class Folders:
    """The part of a stage that ``Mattes`` needs."""

    def __init__(self, folder: Path, made: bool) -> None:
        self.library = SimpleNamespace(folder=lambda name: folder, is_made=lambda name: made)

    jpeg = b""

    async def poster(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(jpeg=self.jpeg)

    async def on_file_thread(self, work):
        return await asyncio.to_thread(work)


async def test_a_shipped_matte_is_read_once_and_shared(maya, tmp_path: Path) -> None:
    mattes = Mattes(Config(data_dir=tmp_path), Folders(MAYA, made=False))
    first, second = await asyncio.gather(mattes.get(maya), mattes.get(maya))
    assert first is second is await mattes.get(maya)
    assert os.listdir(tmp_path) == []
    await mattes.aclose()


@pytest.mark.parametrize("made", [True, False])
async def test_a_missing_matte_is_made_where_it_belongs(maya, tmp_path: Path, monkeypatch, made: bool) -> None:
    folder = tmp_path / "avatars" / "maya"
    folder.mkdir(parents=True)
    for path in MAYA.iterdir():
        if path.name != MATTE_FILE:
            (folder / path.name).symlink_to(path)
    asked: list[Path] = []

    async def make(name: str, avatars_dir: Path, path: Path) -> None:
        asked.append(path)
        os.makedirs(path.parent, exist_ok=True)
        shutil.copy(MAYA / MATTE_FILE, path)

    monkeypatch.setattr(mattes_module, "_make", make)
    mattes = Mattes(Config(data_dir=tmp_path), Folders(folder, made))
    await asyncio.gather(mattes.get(maya), mattes.get(maya))
    assert asked == [folder / MATTE_FILE if made else tmp_path / "mattes" / "maya.mp4"]
    await mattes.aclose()


async def test_the_poster_is_there_without_its_background_too(maya, tmp_path: Path) -> None:
    folders = Folders(MAYA, made=False)
    folders.jpeg = cv2.imencode(".jpg", maya.picture(0))[1].tobytes()
    mattes = Mattes(Config(data_dir=tmp_path), folders)
    cutout = cv2.imdecode(np.frombuffer(await mattes.cutout("maya"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert cutout.shape == (512, 512, 4)
    assert cutout[10, 10, 3] < 8 and cutout[256, 256, 3] > 248
    assert np.abs(cutout[200:300, 220:300, :3].astype(int) - maya.picture(0)[200:300, 220:300]).mean() < 6
    other = Mattes(Config(data_dir=tmp_path), Folders(tmp_path, made=True))
    shutil.copy(MAYA / "idle.mp4", tmp_path)
    with pytest.raises(NotFound) as caught:
        await other.cutout("maya")
    assert caught.value.code == "matte_missing"


async def test_a_process_that_fails_is_an_error_with_the_way_out(maya, tmp_path: Path) -> None:
    folder = tmp_path / "maya"
    folder.mkdir()
    (folder / "idle.mp4").write_bytes(b"no video")
    mattes = Mattes(Config(data_dir=tmp_path), Folders(folder, made=True))
    with pytest.raises(BackendFailed) as caught:
        await mattes.get(maya)
    assert caught.value.code == "matte_failed" and "avatar matte maya" in caught.value.message
    await mattes.aclose()
