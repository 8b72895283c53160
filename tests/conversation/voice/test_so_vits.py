"""Networks of so-vits-svc's layouts speak with the pitch, the words and the voice they are given."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from engine.conversation.voice.so_vits import SoVits
from engine.conversation.voice.vocoder import track_pitch
from engine.errors import WeightsInvalid
from tests.conversation.voice.made_up import GAINS, save_encoder, save_voice

RATE = 24_000
LAYOUTS = {
    "4.0": {},
    "4.1 with loudness": {"volume": True},
    "4.1 with a mixture of speakers": {"mixed": True, "volume": True},
    "without units of frames": {"mel2ph": False},
    "without noise": {"noise": False},
}


def sung(seconds: float, hz: float, rate: int = RATE) -> np.ndarray:
    """A voice that sings one note, louder in the middle; (n,) int16."""
    t = np.arange(round(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 9))
    return (tone * (2000 + 6000 * np.sin(np.pi * t / seconds) ** 2)).astype(np.int16)


def spoken(
    voice: SoVits, samples: np.ndarray, pitch: float = 0.0, *, rate: int = RATE, live: bool = True
) -> np.ndarray:
    async def run() -> np.ndarray:
        stream = voice.moved(pitch).open(rate, live=live)
        parts = [await stream.push(samples[start : start + rate // 4]) for start in range(0, len(samples), rate // 4)]
        return np.concatenate([*parts, await stream.flush()])

    return asyncio.run(run())


def pitch_of(samples: np.ndarray, rate: int = RATE) -> float:
    hz, _ = track_pitch(samples / 32_768, rate, careful=False)
    return float(np.median(hz[hz > 0]))


def level(samples: np.ndarray) -> float:
    return float(np.std(samples.astype(float)))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_sings_the_note_it_hears(tmp_path: Path, layout: dict):
    samples = sung(2.2, 220)
    result = spoken(SoVits.load(save_voice(tmp_path, **layout)), samples)
    assert len(result) == len(samples)
    assert pitch_of(result) == pytest.approx(220, rel=0.01)
    loudness = [level(result[at : at + RATE // 5]) for at in (RATE // 10, RATE, RATE * 2)]
    assert loudness[1] > 1.5 * loudness[0]
    assert loudness[1] > 1.5 * loudness[2], "the units reach the network in their order"


@pytest.mark.parametrize("semitones", [-5, 7])
def test_the_pitch_can_be_moved(tmp_path: Path, semitones: int):
    result = spoken(SoVits.load(save_voice(tmp_path)), sung(1.5, 220), semitones)
    assert pitch_of(result) == pytest.approx(220 * 2 ** (semitones / 12), rel=0.01)


@pytest.mark.parametrize("layout", [{}, {"mixed": True}], ids=["number", "mixture"])
def test_the_card_says_which_speaker_is_heard(tmp_path: Path, layout: dict):
    samples = sung(1.0, 220)
    first, second = (
        level(spoken(SoVits.load(save_voice(tmp_path, f"s{speaker}", f"speaker = {speaker}\n", **layout)), samples))
        for speaker in (0, 1)
    )
    assert second / first == pytest.approx(GAINS[1] / GAINS[0], rel=0.02)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_every_rate_of_a_voice_is_taken(tmp_path: Path, rate: int):
    samples = sung(1.2, 300, rate)
    result = spoken(SoVits.load(save_voice(tmp_path)), samples, rate=rate)
    assert len(result) == len(samples)
    assert pitch_of(result, rate) == pytest.approx(300, rel=0.01)


def test_blocks_are_joined_without_a_jump(tmp_path: Path):
    result = spoken(SoVits.load(save_voice(tmp_path)), sung(4, 200)).astype(float)
    middle = result[RATE // 2 : -RATE // 2]
    loudness = np.sqrt(np.convolve(middle**2, np.ones(480) / 480, "valid"))
    steepest = loudness.max() * np.sqrt(2) * 2 * np.pi * 200 / RATE
    assert np.abs(np.diff(middle)).max() < 1.3 * steepest


def test_a_whole_file_is_as_long_as_it_was(tmp_path: Path):
    samples = sung(1.3, 220)
    assert len(spoken(SoVits.load(save_voice(tmp_path)), samples, live=False)) == len(samples)


def test_a_moment_of_silence_can_be_spoken(tmp_path: Path):
    voice = SoVits.load(save_voice(tmp_path))
    assert len(spoken(voice, np.zeros(10, np.int16))) == 10


def test_an_encoder_with_units_before_time_is_understood(tmp_path: Path):
    folder = save_voice(tmp_path)
    save_encoder(folder / "encoder.onnx", units_first=True)
    assert pitch_of(spoken(SoVits.load(folder), sung(1, 220))) == pytest.approx(220, rel=0.01)


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("hop = 256\n", "512 samples a frame"),
        ("hop = \"a lot\"\n", "hop must be"),
        ("sample_rate = true\n", "sample_rate must be"),
        ("network = \"absent.onnx\"\n", "absent.onnx"),
        ("encoder = \"../encoder.onnx\"\n", "encoder.onnx"),
        ("hop = [\n", "weights.toml"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, card: str, reason: str):
    with pytest.raises(WeightsInvalid, match=reason):
        SoVits.load(save_voice(tmp_path, card=card))


def test_a_speaker_it_does_not_have_is_refused(tmp_path: Path):
    with pytest.raises(WeightsInvalid, match="2 speakers"):
        SoVits.load(save_voice(tmp_path, card="speaker = 2\n", mixed=True))


def test_an_encoder_of_other_units_is_refused(tmp_path: Path):
    folder = save_voice(tmp_path)
    save_encoder(folder / "encoder.onnx", units=12)
    with pytest.raises(WeightsInvalid, match="units of 8"):
        SoVits.load(folder)


def test_another_kind_of_network_is_refused(tmp_path: Path):
    folder = save_voice(tmp_path)
    save_encoder(folder / "model.onnx")
    with pytest.raises(WeightsInvalid, match="inputs source"):
        SoVits.load(folder)


def test_a_damaged_file_is_refused(tmp_path: Path):
    folder = save_voice(tmp_path)
    (folder / "model.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsInvalid, match=r"model\.onnx"):
        SoVits.load(folder)
