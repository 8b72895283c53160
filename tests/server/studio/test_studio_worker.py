"""The real worker: real faces become avatars in a process of its own, and files made to hurt it do not."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from engine.avatar import prepare
from engine.avatar.bundle import load_avatar
from engine.avatar.face_models import model_file
from engine.config import Config
from engine.errors import BackendFailed, PortraitInvalid
from server.studio.order import Order
from server.studio.process import WorkerProcess
from server.studio.sniff import sniff
from server.studio.worker import MADE_FOLDER, PREVIEW_FILE, _make, check_clip
from tests.fakes import tiny_avatar
from tests.server.studio import files

pytestmark = pytest.mark.may_block_loop

ORDER = Order("test", "Test", False, "Ada, 2026-01-02: a test", "Hello.")
MAYA = Path(__file__).resolve().parents[3] / "avatars" / "maya" / "idle.mp4"


@pytest.fixture
def make(tmp_path):
    """Makes an avatar as a job does: ``await make(source)``; returns the job's folder and the stages told."""
    try:
        model_file("face_landmark/face_landmark")
    except BackendFailed as error:
        pytest.skip(error.message)

    async def make(data: bytes, **options) -> tuple[Path, list[tuple[str, float]]]:
        (tmp_path / "source").write_bytes(data)
        upload = sniff(tmp_path / "source", 50_000_000)
        (tmp_path / "source").rename(tmp_path / f"source{upload.ending}")
        told: list[tuple[str, float]] = []
        worker = WorkerProcess(Config(**options), size_px=256, seconds=4.0, niceness=0)
        await worker.make(tmp_path, ORDER, upload, lambda stage, share: told.append((stage, share)))
        return tmp_path, told

    return make


async def test_a_photo_becomes_a_whole_avatar_with_a_preview_that_speaks(shared_data, make):
    photo = shared_data / "faces" / "stills" / "kjell_lindgren.jpg"
    folder, told = await make(photo.read_bytes())
    avatar = load_avatar(folder / "made" / "test")
    assert (avatar.title, avatar.consent) == ("Test", "Ada, 2026-01-02: a test")
    assert avatar.frames.shape == (100, 256, 256, 3)
    with av.open(str(folder / "made" / "test" / "preview.mp4")) as preview:
        assert preview.streams.video and preview.streams.audio
        sound = np.concatenate([frame.to_ndarray()[0] for frame in preview.decode(audio=0)])
    assert np.abs(sound).max() > 0.05, "it is heard"
    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[-1] > 0.9
    assert {"bringing it to life", "speaking"} <= {stage for stage, _ in told}


async def test_a_clip_becomes_an_avatar(make):
    folder, told = await make(MAYA.read_bytes())
    assert len(load_avatar(folder / "made" / "test").frames) >= 12
    assert "following the face" in {stage for stage, _ in told}


def test_a_sentence_that_makes_no_sound_costs_the_preview_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "create_avatar", lambda *_: tiny_avatar(name="test"))
    monkeypatch.setattr(cv2, "setNumThreads", lambda _: None)
    task = {
        "source": "source.png", "photo": True, "name": "test", "title": "Test", "consent": "", "synthetic": True,
        "size": 256, "seconds": 4.0, "sentence": "...", "voice_name": "", "voice_rate": 160,
    }  # fmt: skip
    _make(tmp_path, task, lambda stage, share: None)
    made = tmp_path / MADE_FOLDER / "test"
    assert load_avatar(made).title == "Tiny" and not (made / PREVIEW_FILE).exists()


@pytest.mark.parametrize(("picture", "code"), [("nobody", "no_face"), ("broken", "source_unreadable")])
async def test_what_is_no_face_is_told_in_a_sentence(make, picture, code):
    data = files.png(300, 300)
    if picture == "broken":
        # Rightly framed, and wrong inside.
        data = data.replace(data[45:60], b"\xff" * 15)
    with pytest.raises(PortraitInvalid) as caught:
        await make(data)
    assert caught.value.code == code


def test_a_clip_is_refused_by_its_length_without_decoding_it():
    check_clip(MAYA, 60)
    with pytest.raises(PortraitInvalid) as caught:
        check_clip(MAYA, 2)
    assert caught.value.code == "source_too_long"


def test_a_clip_of_huge_pictures_is_refused(tmp_path):
    path = tmp_path / "huge.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 4096, 2400, "yuv420p"
        frame = av.VideoFrame(4096, 2400, "yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(PortraitInvalid) as caught:
        check_clip(path, 60)
    assert caught.value.code == "source_too_large"


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_clip_of_nonsense_is_refused(tmp_path, ending):
    path = tmp_path / f"clip{ending}"
    path.write_bytes(files.mp4() if ending == ".mp4" else files.webm())
    with pytest.raises(PortraitInvalid) as caught:
        check_clip(path, 60)
    assert caught.value.code == "source_unreadable"
