"""Makes one recorded sound into many: other speeds, colours, rooms, lines, levels and noises, before the mel.

Place in the flow: training clip -> ``augment`` -> mel -> audio network.

The voices of synthesisers are few and clean; without hard augmentation the network learns those voices instead of
speech, and grows worse on people the longer it trains.

Invariants:
    * the result is as long as ``len(samples) / speed`` and in time with gestures divided by the same speed;
    * nothing is shifted: rooms and filters start with the direct sound.
"""

from __future__ import annotations

import numpy as np
import soxr
from scipy.signal import fftconvolve, lfilter

from engine.studio.audio_codec import CODECS, coded
from engine.studio.audio_quiet import QUIET_SOUNDS
from engine.types import ANALYSIS_RATE

_CLEAN_SHARE = 0.2
_BED_SHARE = 0.25
"""Of the noises behind speech, those that things, music and animals make: beside a voice they mean nothing."""

_QUIET_SHARE = 0.5
"""Of the sounds without speech, those that things and animals make."""
_VOICELIKE = ("notes", "calls")
_VOICELIKE_ODDS = 3
"""How much oftener than others the sounds come that are hard to tell from a voice."""
_MORE_SHARE = 0.35
"""How often another one of them sounds at the same time."""


def augment(samples: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A random variation of a sound.

    Args:
        samples: (N,) float32 at 16 kHz in [-1, 1].
        rng: source of chance.

    Returns:
        The (M,) float32 sound in [-1, 1], and its speed: what was at t seconds is now at t / speed.
    """
    speed = 1.0
    if rng.random() < _CLEAN_SHARE:  # voices and microphones near the mouth reach the product like this
        return (samples * 10 ** (rng.uniform(-25, 0) / 20)).astype(np.float32), speed
    if rng.random() < 0.7:  # pitch, formants and tempo together, as between people of different size
        speed = float(np.exp(rng.uniform(-0.20, 0.20)))
        samples = soxr.resample(samples, ANALYSIS_RATE, ANALYSIS_RATE / speed, quality="MQ")
    samples = samples / max(1e-4, float(np.abs(samples).max()))
    if rng.random() < 0.3:
        samples = np.tanh(samples * rng.uniform(1.0, 4.0))
    if rng.random() < 0.75:
        samples = _equalise(samples, rng)
    if rng.random() < 0.45:
        samples = _room(samples, rng)
    if rng.random() < 0.75:
        noise = _bed(len(samples), rng) if rng.random() < _BED_SHARE else _noise(len(samples), rng)
        samples = samples + noise * _rms(samples) * 10 ** (-rng.uniform(3, 40) / 20)
    if rng.random() < 0.2:
        samples = _line(samples, rng)
    elif rng.random() < 0.12:
        samples = _compressed(samples, rng)
    peak_db = rng.uniform(-38, 0)
    samples = samples * (10 ** (peak_db / 20) / max(1e-4, float(np.abs(samples).max())))
    if rng.random() < 0.1:
        samples = samples * 10 ** (rng.uniform(0, 6) / 20)
    return np.clip(samples, -1, 1).astype(np.float32), speed


def silence_like(count: int, rng: np.random.Generator) -> np.ndarray:
    """Sound during which a mouth stays shut: silence, noise, hum, chords, clicks, breath, things, at any level.

    Returns:
        (count,) float32 in [-1, 1].
    """
    if rng.random() < _QUIET_SHARE:
        sound = _bed(count, rng)
        while rng.random() < _MORE_SHARE:
            sound = sound + _bed(count, rng) * rng.uniform(0.1, 1)
        return finished(sound, rng)
    kind = rng.random()
    seconds = np.arange(count) / ANALYSIS_RATE
    sound = np.zeros(count)
    if kind < 0.12:
        return sound.astype(np.float32)
    if kind < 0.40:
        sound = _noise(count, rng)
    elif kind < 0.50:
        for harmonic in range(1, 8):
            sound += np.sin(2 * np.pi * rng.choice((50.0, 60.0)) * harmonic * seconds) * rng.uniform(0, 1) / harmonic
    elif kind < 0.78:
        for _ in range(int(rng.integers(1, 5))):  # several players, each at their own pace
            sound += _chords(count, rng) * rng.uniform(0.2, 1)
    elif kind < 0.88:
        for at in rng.integers(0, count, int(rng.integers(1, 2 + count // 4000))):
            click = rng.standard_normal(int(rng.integers(20, 400)))
            click *= np.exp(-np.arange(len(click)) / rng.uniform(5, 80))
            sound[at : at + len(click)] += click[: count - at]
    else:  # breath: broad noise with a slow swell
        swell = np.maximum(0, np.sin(2 * np.pi * rng.uniform(0.3, 1.2) * seconds + rng.uniform(0, 6.28))) ** 2
        sound = lfilter([1.0], [1.0, -rng.uniform(-0.3, 0.8)], rng.standard_normal(count)) * swell
    return finished(sound, rng, -60 if kind < 0.5 else -45)


def finished(sound: np.ndarray, rng: np.random.Generator, lowest_db: float = -50.0) -> np.ndarray:
    """A sound as a microphone hears it: with a little hiss, perhaps in a room, at a random level.

    Args:
        sound: (N,) of any level.
        rng: source of chance.
        lowest_db: lowest peak, dB of full scale.

    Returns:
        (N,) float32 in [-1, 1].
    """
    sound = sound + rng.standard_normal(len(sound)) * 10 ** (-rng.uniform(30, 80) / 20)
    if rng.random() < 0.3:
        sound = _room(sound, rng)
    level = 10 ** (rng.uniform(lowest_db, -6) / 20)
    return np.clip(sound * (level / max(1e-4, float(np.abs(sound).max()))), -1, 1).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    loud = samples[np.abs(samples) > 0.01]
    return float(np.sqrt(np.mean(loud**2))) if len(loud) else 0.1


def _equalise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth random frequency response, ±12 dB, with zero delay at its strongest tap."""
    bins = 65
    knots = rng.normal(0, 5.0, 7)
    tilt = rng.uniform(-9, 6) * np.linspace(0, 1, bins)
    gain_db = np.clip(np.interp(np.linspace(0, 6, bins), np.arange(7), knots) + tilt, -20, 14)
    if rng.random() < 0.25:  # a small microphone or a line: no bass, no treble
        hz = np.linspace(0, ANALYSIS_RATE / 2, bins)
        gain_db = gain_db - 30 * (hz < rng.uniform(0, 350)) - 40 * (hz > rng.uniform(3200, 7500))
    taps = np.fft.irfft(10 ** (gain_db / 20))
    taps = np.roll(taps, bins - 1) * np.hanning(2 * (bins - 1))
    return fftconvolve(samples, taps)[bins - 1 : bins - 1 + len(samples)]


def _room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Direct sound and an exponentially decaying, darkening tail."""
    decay_s = float(np.exp(rng.uniform(np.log(0.08), np.log(0.9))))
    count = int(decay_s * ANALYSIS_RATE)
    tail = rng.standard_normal(count) * np.exp(-6.9 * np.arange(count) / count)
    tail = lfilter([1.0], [1.0, -rng.uniform(0.0, 0.7)], tail)
    delay = int(rng.uniform(0.001, 0.02) * ANALYSIS_RATE)
    tail[:delay] = 0
    tail *= 10 ** (rng.uniform(-18, 0) / 20) / max(1e-6, float(np.sqrt((tail**2).sum())))
    tail[0] = 1.0
    return fftconvolve(samples, tail)[: len(samples)]


def _noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of a random colour, steady or swelling, with an rms of 1."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hz = np.maximum(20.0, np.fft.rfftfreq(count, 1 / ANALYSIS_RATE))
    spectrum *= (hz / 500) ** -rng.uniform(-0.3, 1.2)
    if rng.random() < 0.4:
        centre = np.exp(rng.uniform(np.log(150), np.log(5000)))
        spectrum *= 1 + rng.uniform(0, 6) * np.exp(-((np.log(hz / centre) / rng.uniform(0.2, 0.8)) ** 2))
    noise = np.fft.irfft(spectrum, count)
    swelling = rng.random()
    if swelling < 0.2:
        noise *= 1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.2, 6) * np.arange(count) / ANALYSIS_RATE)
    elif swelling < 0.4:  # gusts, steps, dishes
        knots = np.exp(rng.normal(0, 1.2, 2 + int(count / ANALYSIS_RATE * rng.uniform(1, 12))))
        noise *= np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)
    return noise / max(1e-9, float(np.sqrt(np.mean(noise**2))))


def _bed(count: int, rng: np.random.Generator) -> np.ndarray:
    """One of ``QUIET_SOUNDS`` with an rms of 1."""
    odds = np.array([_VOICELIKE_ODDS if maker.__name__ in _VOICELIKE else 1 for maker in QUIET_SOUNDS])
    sound = QUIET_SOUNDS[int(rng.choice(len(QUIET_SOUNDS), p=odds / odds.sum()))](count, rng)
    return sound / max(1e-6, float(np.sqrt(np.mean(sound**2))))


def _line(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A telephone: 8 kHz and mu-law steps."""
    narrow = soxr.resample(samples, ANALYSIS_RATE, ANALYSIS_RATE / 2)
    narrow = narrow / max(1e-4, float(np.abs(narrow).max()))
    steps = 2 ** int(rng.integers(5, 9)) / 2
    coded = np.round(np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256) * steps) / steps
    decoded = np.sign(coded) * (256 ** np.abs(coded) - 1) / 255
    wide = soxr.resample(decoded, ANALYSIS_RATE / 2, ANALYSIS_RATE)
    return np.pad(wide, (0, max(0, len(samples) - len(wide))))[: len(samples)]


def _compressed(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A call or a podcast: opus or mp3 at a low rate."""
    codec = CODECS[int(rng.integers(len(CODECS)))]
    peak = max(1e-4, float(np.abs(samples).max()))
    return coded(samples / peak, codec, int(rng.uniform(*codec.bit_rates))) * peak


def _chords(count: int, rng: np.random.Generator) -> np.ndarray:
    """Notes with harmonics, attacks and a little vibrato."""
    sound, at = np.zeros(count), 0
    while at < count:
        length = min(count - at, int(rng.uniform(0.12, 1.5) * ANALYSIS_RATE))
        seconds = np.arange(length) / ANALYSIS_RATE
        for _ in range(int(rng.integers(1, 5))):
            hz = 440 * 2 ** (rng.integers(-28, 20) / 12)
            vibrato = rng.uniform(0, 0.01) * np.sin(2 * np.pi * rng.uniform(4, 7) * seconds) / 5
            for harmonic in range(1, int(rng.integers(2, 9))):
                if hz * harmonic < ANALYSIS_RATE / 2:
                    phase = 2 * np.pi * hz * harmonic * (seconds + vibrato)
                    sound[at : at + length] += np.sin(phase) * rng.uniform(0.3, 1) / harmonic ** rng.uniform(0.5, 2)
        attack = np.minimum(1, seconds / rng.uniform(0.005, 0.1)) * np.exp(-seconds * rng.uniform(0, 4))
        sound[at : at + length] *= attack * np.minimum(1, (seconds[::-1] + 1e-3) / 0.02)
        at += length
    return sound
