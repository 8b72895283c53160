import json
from dataclasses import replace

import numpy as np
import pytest

from engine import registry
from engine.__main__ import main
from engine.avatar.bundle import load_avatar
from engine.config_load import load_config
from engine.errors import InvalidInput
from engine.evaluate.avatar_report import AvatarJudge, change_outside, rest_psnr
from engine.evaluate.cli import summary_of
from engine.evaluate.measures import sync
from engine.evaluate.trials import make_trials
from engine.evaluate.video import VideoFile
from engine.evaluate.video_report import closures_beside, measure_video
from engine.offline import render_offline
from engine.recorder import Recorder

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def maya():
    avatar = load_avatar(load_config({}).avatars_dir / "maya")
    shorter = {name: getattr(avatar, name)[:60] for name in ("frames", "landmarks", "boxes")}
    return replace(avatar, **shorter, clips={})


@pytest.fixture(scope="module")
def model():
    return registry.create_lipsync("builtin", threads=1, precision="f32")


@pytest.fixture(scope="module")
def trials():
    return make_trials(voices=1, silences=1, data=None)


@pytest.fixture(scope="module")
def report(maya, model, trials):
    return AvatarJudge(model, trials)(maya)


def test_lips_seen_in_rendered_pictures_follow_the_voice(report):
    assert report.figures["sync_corr_synthetic"] > 0.5
    assert abs(report.figures["lag_synthetic"]) <= 1
    assert report.figures["sync_corr_real"] is None


def test_nothing_outside_the_mouth_patch_changes(report):
    assert report.figures["jitter"] == 0


def test_change_outside_the_patch_is_seen(maya):
    noisy = maya.frames[0].copy()
    noisy[5, 5] ^= 8
    assert change_outside(noisy, maya.frames[0], [(100, 200, 100, 200)]) == 8
    assert change_outside(noisy, maya.frames[0], [(0, 10, 0, 10)]) == 0


def test_the_face_at_rest_comes_back(maya, model):
    assert rest_psnr(maya, model) >= 38


@pytest.mark.parametrize("late", [-3, 3])
def test_a_shift_of_three_frames_in_a_rendered_clip_is_found(report, late):
    saying = report.sayings[0]
    assert sync([(np.roll(saying.opening, late), saying.trial.opening)]).lag_frames == pytest.approx(late, abs=1)


def test_a_rendered_video_is_measured_and_equals_itself_as_truth(tmp_path, maya, model, trials):
    path = tmp_path / "talk.mp4"
    with Recorder(path, maya.size) as recorder:
        for frame in render_offline(maya, model, trials[0].samples[: 48_000 * 2]):
            recorder.write(frame)
    path.with_suffix(".phones.json").write_text(json.dumps([["p", 0.5, 0.6], ["aa", 0.6, 0.8]]))
    found = measure_video(path, truth=path).figures
    assert found["face_found"] == 1
    assert found["psnr_db"] == 100 and found["ssim"] == pytest.approx(1)
    assert found["mouth_error"] == pytest.approx(0, abs=1e-9) and found["fid"] == pytest.approx(0, abs=1e-6)
    assert found["opening_corr"] == pytest.approx(1)
    assert found["landmark_jitter"] < 6
    assert closures_beside(path)[0] == [(0.5, 0.6)]


def test_a_real_video_is_read_in_time_with_its_sound(shared_data):
    video = VideoFile(shared_data / "faces/grid/brbk7n.mpg")
    frames = sum(1 for _ in video.frames())
    assert frames == 75
    assert len(video.sound()) / 48_000 == pytest.approx(3, abs=0.05)


def test_what_is_no_video_is_refused(tmp_path, capsys):
    path = tmp_path / "x.mp4"
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidInput):
        list(VideoFile(path).frames())
    assert main(["evaluate", str(path)]) == 2
    assert "x.mp4" in capsys.readouterr().err


def test_the_summary_takes_means_but_the_worst_jitter_and_rest():
    rows = [
        {"jitter": 0.0, "rest_psnr_db": 50.0, "sync_corr_real": 0.5, "lag_real": None, "lag_synthetic": 1.0},
        {"jitter": 2.0, "rest_psnr_db": 40.0, "sync_corr_real": 0.7, "lag_real": None, "lag_synthetic": 0.0},
    ]
    summary = summary_of(rows)
    assert summary["jitter"] == 2 and summary["rest_psnr_db"] == 40
    assert summary["sync_corr_real"] == pytest.approx(0.6)
    assert summary["lag_frames"] == 0.5
    assert summary["niqe"] is None
