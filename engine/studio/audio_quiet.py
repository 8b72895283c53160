"""Everyday sounds during which a mouth stays shut: keyboards, fans, drums, single notes, calls, rattling.

Place in the flow: ``audio_augment.silence_like`` -> one of ``QUIET_SOUNDS`` -> mel -> audio network.

Invariants:
    * every maker returns (count,) float64 of any level; the caller sets level and room;
    * a maker draws all its chance from the generator given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

from engine.types import ANALYSIS_RATE


def typing(count: int, rng: np.random.Generator) -> np.ndarray:
    """A keyboard: strokes in bursts, each a click, a knock and a softer release."""
    sound, at = np.zeros(count), 0.0
    while at < count:
        at += rng.exponential(rng.choice((0.09, 0.14, 0.6))) * ANALYSIS_RATE
        loud, hollow_hz = rng.uniform(0.3, 1.0), rng.uniform(180, 900)
        for delay_s, share in ((0.0, 1.0), (rng.uniform(0.05, 0.12), rng.uniform(0.1, 0.6))):
            length = int(rng.uniform(0.01, 0.04) * ANALYSIS_RATE)
            seconds = np.arange(length) / ANALYSIS_RATE
            click = rng.standard_normal(length) * np.exp(-seconds * rng.uniform(200, 900))
            knock = np.sin(2 * np.pi * hollow_hz * seconds) * np.exp(-seconds * rng.uniform(80, 300))
            _add(sound, (click + knock * rng.uniform(0, 1.5)) * loud * share, int(at + delay_s * ANALYSIS_RATE))
    return sound


def fan(count: int, rng: np.random.Generator) -> np.ndarray:
    """A fan or an air conditioner: low noise, the whistle of its blades, a slow waver."""
    seconds = np.arange(count) / ANALYSIS_RATE
    rush = lfilter([1.0], [1.0, -rng.uniform(0.7, 0.98)], rng.standard_normal(count))
    rush /= max(1e-9, float(np.std(rush)))
    blades_hz = rng.uniform(60, 420)
    drift = 1 + 0.01 * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * seconds)
    phase = 2 * np.pi * blades_hz * np.cumsum(drift) / ANALYSIS_RATE
    tones = sum(np.sin(phase * k) * rng.uniform(0, 0.4) / k for k in range(1, 7))
    return (rush + tones) * (1 + rng.uniform(0, 0.3) * np.sin(2 * np.pi * rng.uniform(0.1, 9) * seconds))


def drums(count: int, rng: np.random.Generator) -> np.ndarray:
    """A beat of kick, snare and cymbal, sometimes over a bass line."""
    sound = np.zeros(count)
    step = int(60 / rng.uniform(70, 180) / 4 * ANALYSIS_RATE)
    pattern = rng.random((3, 16)) < np.array([[0.3], [0.2], [0.55]])
    bass_hz = 55 * 2 ** (rng.integers(0, 18, 16) / 12) if rng.random() < 0.5 else None
    shift = int(rng.integers(0, step))
    for index, at in enumerate(range(-shift, count, step)):
        beat = index % 16
        seconds = np.arange(int(0.25 * ANALYSIS_RATE)) / ANALYSIS_RATE
        if pattern[0, beat]:
            fall = 2 * np.pi * (50 * seconds + 3 * (1 - np.exp(-30 * seconds)))
            _add(sound, 1.4 * np.sin(fall) * np.exp(-14 * seconds), at)
        if pattern[1, beat]:
            noise = rng.standard_normal(len(seconds)) + np.sin(2 * np.pi * 190 * seconds)
            _add(sound, 0.6 * noise * np.exp(-20 * seconds), at)
        if pattern[2, beat]:
            hiss = np.diff(rng.standard_normal(len(seconds) + 1))
            _add(sound, 0.25 * hiss * np.exp(-rng.uniform(15, 60) * seconds), at)
        if bass_hz is not None:
            phase = 2 * np.pi * bass_hz[beat] * seconds
            _add(sound, 0.5 * (np.sin(phase) + 0.4 * np.sin(2 * phase)) * np.exp(-4 * seconds), at)
    return sound


def notes(count: int, rng: np.random.Generator) -> np.ndarray:
    """One instrument alone: a steady timbre, one note after the other, plucked or bowed, with slides and vibrato."""
    sound, at = np.zeros(count), int(-rng.uniform(0, 0.5) * ANALYSIS_RATE)
    bowed, fall = rng.random() < 0.55, rng.uniform(0.3, 1.8)
    weights = rng.uniform(0.15, 1, 18) / np.arange(1, 19) ** fall
    rate_hz, depth = rng.uniform(4.5, 7), rng.uniform(0, 0.012)
    pitch = int(rng.integers(-26, 22))
    while at < count:
        length = int(rng.uniform(0.1, 2.2 if bowed else 0.8) * ANALYSIS_RATE)
        seconds = np.arange(length) / ANALYSIS_RATE
        earlier, pitch = pitch, int(np.clip(pitch + rng.integers(-7, 8), -30, 30))
        slide = (earlier - pitch) / 12 * np.exp(-seconds * 40) if bowed and rng.random() < 0.4 else 0.0
        hz = 440 * 2 ** (pitch / 12 + slide) * (1 + depth * np.sin(2 * np.pi * rate_hz * seconds))
        phase = 2 * np.pi * np.cumsum(hz * np.ones(length)) / ANALYSIS_RATE
        highest = max(1, min(len(weights), int(ANALYSIS_RATE / 2 / (440 * 2 ** (pitch / 12) * 1.1))))
        tone = sum(weights[k] * np.sin((k + 1) * phase) for k in range(highest))
        attack_s = rng.uniform(0.03, 0.2) if bowed else 0.004
        shape = np.minimum(1, seconds / attack_s) * np.minimum(1, (seconds[::-1] + 1e-3) / 0.03)
        _add(sound, tone * shape * (1.0 if bowed else np.exp(-seconds * rng.uniform(1, 6))), at)
        at += length + int(rng.choice((0.0, 0.0, 0.3)) * ANALYSIS_RATE)
    return sound


def calls(count: int, rng: np.random.Generator) -> np.ndarray:
    """Gliding tones: birds, whales, sirens, rings and squeaks; pure, rich or hoarse."""
    sound, at = np.zeros(count), int(-rng.uniform(0, 1) * ANALYSIS_RATE)
    centre, longest_s = float(np.exp(rng.uniform(np.log(70), np.log(4500)))), float(np.exp(rng.uniform(-2.3, 1.2)))
    partials = 1 + np.arange(int(rng.integers(1, 16)))
    weights = rng.uniform(0, 1, len(partials)) / partials ** rng.uniform(0, 1.5)
    weights[0] = max(weights[0], 0.5)
    hoarse = rng.uniform(0, 0.3) * (rng.random() < 0.4)
    while at < count:
        length = int(rng.uniform(0.3, 1) * longest_s * ANALYSIS_RATE) + 64
        knots = centre * 2 ** np.cumsum(rng.normal(0, rng.uniform(0.05, 0.5), 5))
        hz = np.clip(np.interp(np.linspace(0, 4, length), np.arange(5), knots), 40, 7500)
        phase = 2 * np.pi * np.cumsum(hz) / ANALYSIS_RATE
        tone = sum(w * np.sin(k * phase) * (k * hz < 7800) for k, w in zip(partials, weights, strict=True))
        tone = tone * (1 + hoarse * rng.standard_normal(length))
        _add(sound, tone * np.hanning(length) ** rng.uniform(0.3, 1), at)
        at += length + int(rng.exponential(0.6 * longest_s) * ANALYSIS_RATE)
    return sound


def rattle(count: int, rng: np.random.Generator) -> np.ndarray:
    """Engines, knocking, applause, rain: many short bursts, regular or not."""
    gap_s = float(np.exp(rng.uniform(np.log(0.004), np.log(0.3))))
    steady = rng.random() < 0.5
    gaps_s = rng.normal(gap_s, 0.03 * gap_s, 8000).clip(0.002) if steady else rng.exponential(gap_s, 8000)
    starts = np.cumsum(gaps_s * ANALYSIS_RATE).astype(int)
    impulses = np.zeros(count)
    starts = starts[starts < count]
    impulses[starts] = rng.uniform(0.3, 1, len(starts))
    burst = rng.standard_normal(int(rng.uniform(0.003, 0.06) * ANALYSIS_RATE))
    burst *= np.exp(-np.arange(len(burst)) / len(burst) * rng.uniform(2, 8))
    return lfilter(burst, [1.0], impulses)


QUIET_SOUNDS: tuple[Callable[[int, np.random.Generator], np.ndarray], ...] = (typing, fan, drums, notes, calls, rattle)
"""All makers: (count, rng) -> (count,) float64."""


def _add(sound: np.ndarray, piece: np.ndarray, at: int) -> None:
    """Adds a piece where it lies inside the sound."""
    start, stop = max(at, 0), min(at + len(piece), len(sound))
    if start < stop:
        sound[start:stop] += piece[start - at : stop - at]
