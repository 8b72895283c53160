"""Codecs, devices, avatars, models and speed are looked at with what sessions use."""

from __future__ import annotations

import shutil

import av
import pytest

from engine.config import Config
from server.doctor import codecs, devices, face


def test_all_codecs_of_the_requirements_work():
    assert [(found.check, found.verdict) for found in codecs.codecs()] == [("codecs", "ok")]


def test_a_codec_that_is_missing_is_a_warning_and_both_are_a_problem(monkeypatch):
    real = codecs.create_video_encoder

    def without(*missing):
        def create(codec, *rest):
            if codec in missing:
                raise av.FFmpegError(1, "Encoder not found")
            return real(codec, *rest)

        return create

    monkeypatch.setattr(codecs, "create_video_encoder", without("H264"))
    assert [(found.check, found.verdict) for found in codecs.codecs()] == [("codec_h264", "warning")]
    monkeypatch.setattr(codecs, "create_video_encoder", without("H264", "VP8"))
    assert [found.verdict for found in codecs.codecs()] == ["warning", "warning", "problem"]


def test_what_models_are_computed_on_is_told():
    found = list(devices.devices())
    assert [item.check for item in found] == ["openvino", "gpu"] and found[0].verdict == "ok"


def test_a_driver_without_a_torch_that_uses_it_is_a_warning(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(devices, "_NVIDIA", tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices._cuda().verdict == "warning"


@pytest.fixture
def config(tmp_path, avatars_dir):
    shutil.copytree(avatars_dir, tmp_path / "avatars")
    return Config(avatars_dir=tmp_path / "avatars", data_dir=tmp_path / "data", weights_dir=tmp_path / "weights")


def avatars(config):
    return list(face.avatars(config, face.cast(config)))


def test_sound_avatars_are_fine(config):
    assert [found.verdict for found in avatars(config)] == ["ok"]


def test_an_avatar_whose_pictures_are_gone_is_found(config):
    (config.avatars_dir / "tiny" / "idle.mp4").write_bytes(b"nothing")
    (found,) = avatars(config)
    assert found.verdict == "problem" and "tiny" in found.change


def test_a_broken_card_is_a_warning(config):
    (config.avatars_dir / "broken").mkdir()
    (config.avatars_dir / "broken" / "avatar.toml").write_text("title = ")
    assert [found.verdict for found in avatars(config)] == ["warning"]


def test_no_avatar_and_an_unknown_one_are_problems(config, tmp_path):
    assert [found.verdict for found in avatars(config.model_copy(update={"avatars_dir": tmp_path / "none"}))] == [
        "problem"
    ]
    unknown = avatars(config.model_copy(update={"avatar": "nobody"}))
    assert unknown[0].verdict == "problem" and "tiny" in unknown[0].said


def test_models_that_are_not_there_are_problems_that_say_what_there_is(config):
    wanted = config.model_copy(update={"lipsync": "nothing", "restorer": "nobody", "voice_conversion": "nowhere"})
    found = {item.check: (item, model) for item, model in face.models(wanted)}
    assert {name: item.verdict for name, (item, _) in found.items()} == {
        "lipsync": "problem", "restorer": "problem", "voice_conversion": "problem",
    }  # fmt: skip
    assert "builtin" in found["lipsync"][0].said and found["lipsync"][1] is None


def test_a_gpu_for_voices_that_is_not_there_is_a_problem_that_says_what_to_install(config):
    found = {item.check: item for item, _ in face.models(config.model_copy(update={"voice_device": "gpu"}))}
    assert found["voice_device"].verdict == "problem"
    assert "onnxruntime-gpu" in found["voice_device"].said


def test_the_speed_is_told_in_faces(config, lipsync):
    found = face.speed(config, face.cast(config), lipsync)
    assert found.check == "speed" and found.figures["frame_cpu_ms"] > 0
    if found.figures["faces_at_once"] >= config.max_sessions:
        assert found.verdict == "ok"


def test_a_machine_that_is_too_slow_is_a_problem(config, lipsync, monkeypatch):
    monkeypatch.setattr(face.stages, "measure", lambda *_: {"predict": 55.0, "encode": 5.0})
    assert face.speed(config, face.cast(config), lipsync).verdict == "problem"
    monkeypatch.setattr(face.stages, "measure", lambda *_: {"predict": 30.0})
    slow = face.speed(config.model_copy(update={"max_sessions": 90}), face.cast(config), lipsync)
    assert slow.verdict == "note" and "--max-sessions" in slow.change
