"""Moves the pitch and the formants of a voice; needs no model.

Place in the flow: speech -> WORLD analysis (pitch, envelope, breath) -> changed -> WORLD synthesis -> speech.

WORLD (Morise, Yokomori and Ozawa, 2016) takes speech apart into the pitch of its pulses, the envelope of their
spectrum, and how much of it is noise, so each can be changed alone. It is made for one voice: accompaniment under a
song comes out as a hoarse murmur, so separate the voice first.

Invariant: pitch moves without the formants, formants without the pitch.
"""

from __future__ import annotations

import numpy as np
import pyworld

from engine.audio.pcm import resample
from engine.conversation.voice.blocks import BlockStream, Framing

LOWEST_HZ = 60.0
HIGHEST_HZ = 1000.0
"""Pitches that are looked for: from a low male voice to a high one that sings."""

_LIVE = Framing(first=0.16, block=0.4, before=0.12, after=0.08)
_WHOLE = Framing(first=4.0, block=4.0, before=0.3, after=0.3)
_LEAST_RATE = 16_000
_KNEE = 0.8
_FLOOR = 1e-16


class Vocoder:
    """A ``VoiceStage`` that moves pitch and formants.

    Args:
        pitch: semitones.
        formant: semitones.
    """

    def __init__(self, pitch: float, formant: float) -> None:
        self._pitch = 2 ** (pitch / 12)
        self._formant = 2 ** (formant / 12)

    def open(self, sample_rate: int, *, live: bool = True) -> BlockStream:
        """See ``VoiceStage.open``."""
        framing = _LIVE if live else _WHOLE
        return BlockStream(lambda block: self._change(block, sample_rate, live), sample_rate, framing, live=live)

    def _change(self, block: np.ndarray, sample_rate: int, live: bool) -> np.ndarray:
        if sample_rate < _LEAST_RATE:
            # The analysis of breath needs some spectrum above speech.
            wide = self._change(resample(block, sample_rate, _LEAST_RATE), _LEAST_RATE, live)
            return resample(wide, _LEAST_RATE, sample_rate)
        sound = block.astype(np.float64)
        pitch, times = track_pitch(sound, sample_rate, careful=not live)
        envelope = pyworld.cheaptrick(sound, pitch, times, sample_rate, f0_floor=LOWEST_HZ)
        noise = pyworld.d4c(sound, pitch, times, sample_rate, fft_size=2 * (envelope.shape[1] - 1))
        moved = self._move(envelope, log=True)
        # Resonances that move to where more of them is heard would make the voice louder.
        envelope = moved * (envelope.sum(axis=1, keepdims=True) / moved.sum(axis=1, keepdims=True))
        noise = self._move(noise, log=False)
        changed = pyworld.synthesize(pitch * self._pitch, envelope, noise, sample_rate)[: block.size]
        # Pulses made anew are sharper than those of a throat, and so their peaks higher at the same loudness.
        over = np.abs(changed) > _KNEE
        changed[over] = np.sign(changed[over]) * (_KNEE + _bent(np.abs(changed[over]) - _KNEE))
        return np.pad(changed, (0, block.size - changed.size))

    def _move(self, spectra: np.ndarray, *, log: bool) -> np.ndarray:
        """Stretches (frames, bins) spectra along the frequencies; what comes from beyond the last bin is like it."""
        if self._formant == 1:
            return spectra
        bins = spectra.shape[1]
        source = np.minimum(np.arange(bins) / self._formant, bins - 1)
        low = np.minimum(source.astype(int), bins - 2)
        part = source - low
        values = np.log(spectra + _FLOOR) if log else spectra
        moved = values[:, low] * (1 - part) + values[:, low + 1] * part
        return np.ascontiguousarray(np.exp(moved) if log else moved)


def _bent(over: np.ndarray) -> np.ndarray:
    """How far beyond the knee a peak may go: as far as it does at first, and never to full scale."""
    room = 1 - _KNEE
    return room * np.tanh(over / room)


def track_pitch(
    sound: np.ndarray, sample_rate: int, *, careful: bool, period_ms: float = 5.0
) -> tuple[np.ndarray, np.ndarray]:
    """The pitch of a voice over time.

    Args:
        sound: (n,) float64 in [-1, 1].
        sample_rate: Hz.
        careful: three times slower, and surer of what is voiced.
        period_ms: from one value to the next.

    Returns:
        (frames,) pitches in Hz, 0 where nothing is voiced, and (frames,) times, s, from 0 on.
    """
    if careful:
        return pyworld.harvest(sound, sample_rate, LOWEST_HZ, HIGHEST_HZ, period_ms)
    pitch, times = pyworld.dio(sound, sample_rate, LOWEST_HZ, HIGHEST_HZ, frame_period=period_ms)
    return pyworld.stonemask(sound, pitch, times, sample_rate), times
