import json

import numpy as np
import pytest

from engine.__main__ import main
from engine.evaluate.hearing import BUILTIN, Hearing, cost_of
from engine.evaluate.measures import opening, sync
from engine.evaluate.phone_measures import judge_clips
from engine.evaluate.talkers import load_talkers
from engine.types import FRAME_SAMPLES, MOUTH_SHAPES


@pytest.fixture(scope="module")
def hearing():
    return Hearing()


def test_there_is_a_mouth_for_every_frame(hearing):
    assert hearing.track(np.zeros(0, np.int16)).shape == (0, len(MOUTH_SHAPES))
    assert hearing.track(np.zeros(FRAME_SAMPLES * 3 + 1, np.int16)).shape == (4, len(MOUTH_SHAPES))


def test_the_shipped_network_is_small_enough_for_a_laptop():
    cost = cost_of(BUILTIN / "audio.xml")
    assert cost.parameters < 1_000_000
    assert cost.macs < 20_000_000


def test_the_mouth_stays_shut_in_silence_noise_and_hum(hearing):
    rng = np.random.default_rng(0)
    seconds = np.arange(48_000 * 2) / 48_000
    sounds = [
        np.zeros(96_000),
        rng.standard_normal(96_000) * 0.01,
        rng.standard_normal(96_000) * 0.1,
        0.2 * np.sin(2 * np.pi * 50 * seconds),
    ]
    shut = [opening(hearing.track((sound * 32767).astype(np.int16))) < 0.12 for sound in sounds]
    assert np.mean(shut) >= 0.95


def test_lips_follow_voices_that_training_never_heard(hearing):
    from engine.audio.pcm import to_playout
    from engine.studio.speech_data import make_clip

    rng = np.random.default_rng(5)
    clips = [make_clip(rng, held_out=True) for _ in range(12)]
    result = judge_clips(clips, lambda samples: hearing.track(to_playout(samples, 16_000)))
    assert result["r"] > 0.5
    assert abs(result["lag_frames"]) <= 1
    assert result["closed"] > 0.8
    assert result["false_shut"] < 0.2


def test_lips_follow_real_talkers(hearing, shared_data):
    talkers = [talker for talker in load_talkers(shared_data / "faces") if talker.name.startswith("grid/")]
    assert len(talkers) == 5
    result = sync([(opening(hearing.track(talker.samples)), talker.opening) for talker in talkers])
    assert result.best > 0.45
    assert abs(result.lag_frames) <= 1


def test_the_command_writes_the_figures_and_prints_them(tmp_path, capsys):
    assert main(["evaluate", "--networks", "--clips", "2", "-o", str(tmp_path / "out")]) == 0
    figures = json.loads((tmp_path / "out" / "networks.json").read_text())
    assert {"audio_parameters", "audio_mflops", "synthetic_r", "silence_shut"} <= figures.keys()
    assert "synthetic_closed" in capsys.readouterr().out


def test_a_folder_without_a_model_is_a_clear_error(tmp_path, capsys):
    assert main(["evaluate", "--networks", "--model", str(tmp_path)]) == 2
    assert "audio.xml" in capsys.readouterr().err
