"""Pitch and formants move by what was asked for, apart from each other, and nothing else does."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
import soxr

from engine.audio.decode import decode_audio
from engine.conversation.voice.vocoder import Vocoder, track_pitch

RATE = 22_050
FORMANT_HZ = 1000.0


def vowel(seconds: float, rate: int = RATE, hz: float = 130.0) -> np.ndarray:
    """A throat with one resonance and a gliding pitch; (n,) int16."""
    t = np.arange(round(seconds * rate)) / rate
    phase = np.cumsum(hz * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * t)) / rate)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    k = np.arange(round(0.03 * rate)) / rate
    response = np.exp(-2 * np.pi * 60 * k) * np.sin(2 * np.pi * FORMANT_HZ * k)
    sound = np.convolve(pulses, response)[: t.size]
    return (sound / np.abs(sound).max() * 12_000).astype(np.int16)


def changed(samples: np.ndarray, rate: int, pitch: float, formant: float, *, live: bool = True) -> np.ndarray:
    async def run() -> np.ndarray:
        stream = Vocoder(pitch, formant).open(rate, live=live)
        step = rate // 4
        parts = [await stream.push(samples[start : start + step]) for start in range(0, len(samples), step)]
        return np.concatenate([*parts, await stream.flush()])

    return asyncio.run(run())


def moved_by(before: np.ndarray, after: np.ndarray, rate: int) -> float:
    """Median of the pitch's way, semitones."""
    was, now = (track_pitch(x / 32_768, rate, careful=True)[0] for x in (before, after))
    both = (was > 0) & (now > 0)
    assert both.sum() > 0.6 * (was > 0).sum(), "what is voiced stays voiced"
    return float(np.median(12 * np.log2(now[both] / was[both])))


def resonance_hz(samples: np.ndarray, rate: int) -> float:
    """Where the smoothed spectrum is highest."""
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(float), 2048)[::1024] * np.hanning(2048)
    power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2).mean(axis=0)
    width = round(500 / (rate / 2048))
    smooth = np.convolve(power, np.hanning(width), "same")
    return float(np.argmax(smooth) * rate / 2048)


@pytest.mark.parametrize("semitones", [-7, -3, 4, 9])
def test_the_pitch_moves_and_the_formants_stay(semitones: int):
    before = vowel(1.2)
    after = changed(before, RATE, semitones, 0)
    assert len(after) == len(before)
    assert moved_by(before, after, RATE) == pytest.approx(semitones, abs=0.15)
    assert resonance_hz(after, RATE) == pytest.approx(resonance_hz(before, RATE), rel=0.08)


@pytest.mark.parametrize("semitones", [-4, 3, 6])
def test_the_formants_move_and_the_pitch_stays(semitones: int):
    before = vowel(1.2)
    after = changed(before, RATE, 0, semitones)
    assert moved_by(before, after, RATE) == pytest.approx(0, abs=0.1)
    way = 12 * np.log2(resonance_hz(after, RATE) / resonance_hz(before, RATE))
    assert way == pytest.approx(semitones, abs=1.0)


def test_nothing_clicks_where_blocks_meet():
    after = changed(vowel(2.2), RATE, 4, 0).astype(float)
    # A click is loud where the throat is silent, in the highest octave.
    high = np.fft.irfft(np.fft.rfft(after) * (np.fft.rfftfreq(after.size, 1 / RATE) > 7000), after.size)
    level = np.sqrt(np.convolve(high**2, np.ones(110) / 110, "valid"))[RATE // 4 : -RATE // 4]
    whole = changed(vowel(2.2), RATE, 4, 0, live=False).astype(float)
    calm = np.fft.irfft(np.fft.rfft(whole) * (np.fft.rfftfreq(whole.size, 1 / RATE) > 7000), whole.size)
    reference = np.sqrt(np.convolve(calm**2, np.ones(110) / 110, "valid"))[RATE // 4 : -RATE // 4]
    assert level.max() < 2 * reference.max()
    loudness = np.sqrt(np.convolve(after**2, np.ones(880) / 880, "valid"))[RATE // 4 : -RATE // 4]
    assert loudness.min() > 0.5 * np.median(loudness)


@pytest.mark.parametrize(("pitch", "formant"), [(5, 0), (-5, 0), (0, 5), (0, -5)])
def test_a_voice_stays_as_loud_as_it_was(pitch: float, formant: float):
    before = vowel(1.2)
    after = changed(before, RATE, pitch, formant)
    assert 20 * np.log10(np.std(after.astype(float)) / np.std(before.astype(float))) == pytest.approx(0, abs=1.5)


def test_a_loud_voice_is_not_clipped():
    loud = (vowel(1).astype(float) / 12_000 * 32_000).astype(np.int16)
    after = changed(loud, RATE, -6, 4)
    assert np.abs(after.astype(int)).max() < 32_767


def test_silence_stays_silent():
    after = changed(np.zeros(RATE, np.int16), RATE, 5, 2)
    assert np.abs(after).max() < 20


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_every_rate_of_a_voice_can_be_changed(rate: int):
    before = vowel(1, rate)
    after = changed(before, rate, 4, 0)
    assert len(after) == len(before)
    assert moved_by(before, after, rate) == pytest.approx(4, abs=0.2)


@pytest.mark.alone
def test_it_is_faster_than_speech():
    samples, began = vowel(3), time.process_time()
    changed(samples, RATE, 4, 2)
    assert time.process_time() - began < 1.5


@pytest.mark.parametrize("name", ["en_ljspeech_LJ001-0001.wav", "zh_aishell_BAC009S0724W0121.wav"])
def test_real_speech_moves_by_what_was_asked_for(shared_data: Path, name: str):
    sound = decode_audio(shared_data / "speech" / name, 60)[: 48_000 * 4]
    samples = soxr.resample(sound, 48_000, RATE)
    after = changed(samples, RATE, 5, 2)
    assert moved_by(samples, after, RATE) == pytest.approx(5, abs=0.3)
