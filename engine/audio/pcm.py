"""Turns any PCM into playout sound (mono int16 at 48 kHz) and playout sound into what models hear (float at 16 kHz).

Place in the flow: decoded files, voices and pushed PCM -> ``to_playout`` / ``PlayoutResampler`` -> session ->
``Decimator`` -> mel.

Invariants:
    * loudness is never touched, only clipped where it leaves the range of int16;
    * streaming results do not depend on how the sound was cut into chunks;
    * ``Decimator`` does not shift content: output sample m is centred on input sample 3 m.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import soxr

from engine.errors import AudioInvalid, Closed
from engine.types import ANALYSIS_RATE, PLAYOUT_RATE

MIN_RATE = 4_000
MAX_RATE = 384_000
MAX_CHANNELS = 64
INT16_SCALE = 32_768.0

DECIMATION = PLAYOUT_RATE // ANALYSIS_RATE

_SOXR_QUALITY = "HQ"


def check_format(rate: int, channels: int) -> None:
    """Raises AudioInvalid ``audio_rate`` or ``audio_channels`` for a rate (Hz) or channel count nobody records in."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioInvalid(
            "audio_rate", f"A sample rate of {rate} Hz cannot be used; send between {MIN_RATE} and {MAX_RATE} Hz."
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioInvalid("audio_channels", f"{channels} channels cannot be used; send 1 to {MAX_CHANNELS}.")


def to_mono_float(samples: np.ndarray) -> np.ndarray:
    """Mixes channels down by their mean.

    Args:
        samples: (N,) or (N, C); integers use their full range, unsigned 8-bit is centred on 128, floats are
            nominally in [-1, 1] and NaN counts as silence.

    Returns:
        (N,) float32, nominally in [-1, 1].

    Raises:
        AudioInvalid: ``audio_format`` for a type or shape that is no sound.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise AudioInvalid("audio_format", f"Sound must have the shape (N,) or (N, channels), not {samples.shape}.")
    if samples.dtype == np.uint8:
        x = (samples.astype(np.float32) - 128.0) / 128.0
    elif np.issubdtype(samples.dtype, np.signedinteger):
        x = samples.astype(np.float32) / np.float32(-float(np.iinfo(samples.dtype).min))
    elif np.issubdtype(samples.dtype, np.floating):
        x = np.nan_to_num(samples.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    else:
        raise AudioInvalid("audio_format", f"Samples of type {samples.dtype} are no sound; send int16 or float32.")
    return x if x.ndim == 1 else x.mean(axis=1, dtype=np.float32)


def to_int16(x: np.ndarray) -> np.ndarray:
    """(N,) float in [-1, 1] -> (N,) int16, rounded, clipped at full scale."""
    return np.clip(np.rint(x * INT16_SCALE), -32_768, 32_767).astype(np.int16)


def to_playout(samples: np.ndarray, rate: int) -> np.ndarray:
    """Whole sound at once -> playout sound.

    Args:
        samples: (N,) or (N, C), see ``to_mono_float``.
        rate: sample rate, Hz.

    Returns:
        (M,) int16 mono at 48 kHz, M = N * 48000 / rate within one sample. Mono int16 at 48 kHz passes unchanged.

    Raises:
        AudioInvalid: ``audio_rate``, ``audio_channels`` or ``audio_format``.
    """
    samples = np.asarray(samples)
    resampler = PlayoutResampler(rate, samples.shape[1] if samples.ndim == 2 else 1)
    return np.concatenate([resampler.push(samples), resampler.flush()])


class PlayoutResampler:
    """Any PCM stream -> playout sound, chunk by chunk (soxr, linear phase, delay compensated).

    Args:
        rate: sample rate of what will be pushed, Hz.
        channels: channels of what will be pushed.

    Raises:
        AudioInvalid: ``audio_rate`` or ``audio_channels``.
    """

    def __init__(self, rate: int, channels: int = 1) -> None:
        check_format(rate, channels)
        self.rate = rate
        self.channels = channels
        self._stream = (
            None
            if rate == PLAYOUT_RATE
            else soxr.ResampleStream(rate, PLAYOUT_RATE, 1, dtype="float32", quality=_SOXR_QUALITY)
        )

    def push(self, samples: np.ndarray) -> np.ndarray:
        """(n,) or (n, channels) samples -> (m,) int16 at 48 kHz that became certain; m may be 0.

        Raises:
            AudioInvalid: ``audio_format``, or ``audio_channels`` when the shape is not the one announced.
        """
        samples = np.asarray(samples)
        channels = samples.shape[1] if samples.ndim == 2 else 1
        if channels != self.channels:
            raise AudioInvalid("audio_channels", f"{channels} channels came where {self.channels} were announced.")
        if self._stream is None:
            if samples.dtype == np.int16 and samples.ndim == 1:
                return samples.copy()
            return to_int16(to_mono_float(samples))
        return to_int16(self._stream.resample_chunk(to_mono_float(samples)))

    def flush(self) -> np.ndarray:
        """The rest of the stream, (m,) int16; afterwards a new stream may be pushed."""
        if self._stream is None:
            return np.zeros(0, np.int16)
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self._stream.clear()
        return to_int16(rest)


def resample(samples: np.ndarray, rate: int, to_rate: int) -> np.ndarray:
    """Whole sound at another rate, for models that know one only.

    Args:
        samples: (n,) float32.
        rate: its sample rate, Hz.
        to_rate: the one wanted, Hz.

    Returns:
        (m,) float32, m = n * to_rate / rate, rounded.
    """
    changed = soxr.resample(samples.astype(np.float32), rate, to_rate, quality=_SOXR_QUALITY)
    length = round(samples.size * to_rate / rate)
    return changed[:length] if changed.size >= length else np.pad(changed, (0, length - changed.size))


class SampleQueue:
    """First in, first out, of 1-D sample arrays; holds exactly what was not taken yet."""

    def __init__(self) -> None:
        self._chunks: deque[np.ndarray] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, samples: np.ndarray) -> None:
        """Appends (n,) samples without copying: the caller must not change them afterwards."""
        if samples.size:
            self._chunks.append(samples)
            self._length += samples.size

    def take(self, count: int) -> list[np.ndarray]:
        """Removes the first ``count`` samples, or all when there are fewer, as consecutive pieces."""
        pieces = []
        while count > 0 and self._chunks:
            head = self._chunks.popleft()
            if head.size > count:
                self._chunks.appendleft(head[count:])
                head = head[:count]
            pieces.append(head)
            count -= head.size
            self._length -= head.size
        return pieces


_HALF_TAPS = 90
_CUTOFF_HZ = 7_850.0
_KAISER_BETA = 6.75
_TAP_BITS = 22


def _decimation_taps() -> np.ndarray:
    """(181,) float64 low-pass: flat to 7.3 kHz, -70 dB from 8.4 kHz on, unit gain at 0 Hz.

    A Kaiser-windowed sinc (Oppenheim & Schafer, Discrete-Time Signal Processing, 7.6). The taps are multiples of
    2^-22 and the sound is integer, so every sum is exact in float64 and no order of summation can change a bit.
    """
    k = np.arange(-_HALF_TAPS, _HALF_TAPS + 1)
    taps = np.sinc(2 * _CUTOFF_HZ / PLAYOUT_RATE * k) * np.kaiser(k.size, _KAISER_BETA)
    return np.rint(taps / taps.sum() * 2**_TAP_BITS) / 2**_TAP_BITS


class Decimator:
    """48 kHz -> 16 kHz, streaming, linear phase, not shifting content.

    Output sample m is the filter centred on input sample 3 m, so it needs ``LOOKAHEAD_SAMPLES`` samples of future:
    90 samples of 48 kHz, 1.875 ms. The world around the sound is silence.
    """

    LOOKAHEAD_SAMPLES = _HALF_TAPS

    _TAPS = _decimation_taps()
    _MAX_BLOCK = 32_768

    def __init__(self) -> None:
        self._buffer = np.zeros(_HALF_TAPS)
        self._ended = False

    @classmethod
    def needed(cls, outputs: int) -> int:
        """How many 48 kHz samples must be pushed before ``outputs`` 16 kHz samples have come out."""
        return DECIMATION * (outputs - 1) + cls.LOOKAHEAD_SAMPLES + 1 if outputs > 0 else 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """(n,) int16 at 48 kHz -> (m,) float32 at 16 kHz that became certain.

        Values are nominally in [-1, 1]; a full-scale square wave overshoots it a little, as any band-limited one.

        Raises:
            Closed: after ``flush``.
        """
        if self._ended:
            raise Closed("closed", "This decimator was flushed; make a new one for a new sound.")
        blocks = [self._filter(samples[a : a + self._MAX_BLOCK]) for a in range(0, samples.size, self._MAX_BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def flush(self) -> np.ndarray:
        """The rest, (m,) float32: in all ceil(pushed / 3) samples come out."""
        if self._ended:
            return np.zeros(0, np.float32)
        self._ended = True
        return self._filter(np.zeros(_HALF_TAPS))

    def _filter(self, samples: np.ndarray) -> np.ndarray:
        self._buffer = np.concatenate([self._buffer, samples])
        outputs = (self._buffer.size - self._TAPS.size) // DECIMATION + 1
        if outputs <= 0:
            return np.zeros(0, np.float32)
        used = self._buffer[: DECIMATION * (outputs - 1) + self._TAPS.size]
        # The three phases apart: one third of the work of filtering at 48 kHz and dropping two samples of three.
        y = np.zeros(outputs)
        for phase in range(DECIMATION):
            taps = self._TAPS[phase::DECIMATION]
            y += np.correlate(used[phase::DECIMATION], taps, "valid")[:outputs]
        self._buffer = self._buffer[DECIMATION * outputs :]
        return (y / INT16_SCALE).astype(np.float32)
