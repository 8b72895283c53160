"""Log-mel spectrogram with Wav2Lip's parameters, whole or column by column as sound arrives.

Place in the flow: 16 kHz sound -> mel columns -> rolling window per video frame -> lip-sync model.

Invariants:
    * column k is centred on sample 200 k, so it is certain once 200 k + 400 samples are there;
    * around the sound lies digital silence, whose column is ``SILENCE`` in every band;
    * N samples make 1 + N // 200 columns;
    * a column has the same bits whatever the chunks it came in.
"""

from __future__ import annotations

import numpy as np

from engine.errors import Closed
from engine.types import ANALYSIS_RATE

MEL_BANDS = 80
HOP_SAMPLES = 200
WINDOW_SAMPLES = 800
HOP_MS = 1000 * HOP_SAMPLES / ANALYSIS_RATE
HALF_WINDOW_MS = 1000 * (WINDOW_SAMPLES // 2) / ANALYSIS_RATE

MEL_LIMIT = 4.0
SILENCE = -MEL_LIMIT
"""Every band of a silent column, and the lowest value there is."""

_FMIN_HZ = 55.0
_FMAX_HZ = 7_600.0
_PRE_EMPHASIS = 0.97
_MIN_LEVEL_DB = -100.0
_REF_LEVEL_DB = 20.0
_HALF = WINDOW_SAMPLES // 2
_BINS = WINDOW_SAMPLES // 2 + 1
_MAX_BLOCK_COLUMNS = 256


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    """Mel -> Hz on Slaney's scale: linear to 1 kHz, logarithmic above (Auditory Toolbox, 1998; librosa's default)."""
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0)))


def _slaney_mel(hz: float) -> float:
    """Hz -> mel, the inverse of ``_slaney_hz``."""
    return hz * 3.0 / 200.0 if hz < 1000.0 else 15.0 + 27.0 * float(np.log(hz / 1000.0) / np.log(6.4))


class _Filterbank:
    """80 overlapping triangles, each of area-one height (Slaney normalisation).

    Between two neighbouring corner frequencies exactly one triangle rises and one falls, so a band is the sum of
    one rising and one falling segment: 760 products a column instead of the 32,080 of a dense matrix, in an order
    that does not depend on how many columns are computed together.
    """

    def __init__(self) -> None:
        corners = _slaney_hz(np.linspace(_slaney_mel(_FMIN_HZ), _slaney_mel(_FMAX_HZ), MEL_BANDS + 2))
        hz = np.arange(_BINS) * ANALYSIS_RATE / WINDOW_SAMPLES
        starts = np.searchsorted(hz, corners)
        self._first, self._last = int(starts[0]), int(starts[-1])
        self._starts = starts[:-1] - self._first
        segment = np.searchsorted(corners, hz[self._first : self._last], side="right") - 1
        inside = (hz[self._first : self._last] - corners[segment]) / (corners[segment + 1] - corners[segment])
        norm = 2.0 / (corners[2:] - corners[:-2])
        self._rising = inside * np.append(norm, 0.0)[segment]
        self._falling = (1.0 - inside) * np.insert(norm, 0, 0.0)[segment]

    def __call__(self, magnitudes: np.ndarray) -> np.ndarray:
        """(n, 401) -> (n, 80), float64."""
        used = magnitudes[:, self._first : self._last]
        rising = np.add.reduceat(used * self._rising, self._starts, axis=1)
        falling = np.add.reduceat(used * self._falling, self._starts, axis=1)
        return rising[:, :-1] + falling[:, 1:]


_FILTERBANK = _Filterbank()
_HANN = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES)
_MIN_AMPLITUDE = 10.0 ** (_MIN_LEVEL_DB / 20.0)


def _columns(emphasised: np.ndarray) -> np.ndarray:
    """Spectra of all whole windows in the given sound, (n, 80) float32 in [-4, 4].

    Wav2Lip's ``audio.melspectrogram`` (github.com/Rudrabha/Wav2Lip, audio.py and hparams.py).
    """
    count = (emphasised.size - WINDOW_SAMPLES) // HOP_SAMPLES + 1
    # Overlapping rows over one buffer: what sliding_window_view gives, without its 20 µs of preparations.
    step = emphasised.itemsize
    windows = np.ndarray((count, WINDOW_SAMPLES), emphasised.dtype, emphasised, strides=(HOP_SAMPLES * step, step))
    spectrum = np.fft.rfft(windows * _HANN, axis=1)
    # sqrt(re² + im²) is correctly rounded step by step; np.abs may round differently in vector and tail lanes.
    magnitudes = np.sqrt(spectrum.real**2 + spectrum.imag**2)
    level_db = 20.0 * np.log10(np.maximum(_MIN_AMPLITUDE, _FILTERBANK(magnitudes))) - _REF_LEVEL_DB
    scaled = 2.0 * MEL_LIMIT * (level_db - _MIN_LEVEL_DB) / -_MIN_LEVEL_DB - MEL_LIMIT
    return np.clip(scaled, -MEL_LIMIT, MEL_LIMIT).astype(np.float32)


class StreamingMel:
    """Mel columns of a sound that is still arriving: each column is computed once, when its last sample is there."""

    def __init__(self) -> None:
        self._buffer = np.zeros(_HALF)
        self._last = 0.0
        self._ended = False

    def push(self, x: np.ndarray) -> np.ndarray:
        """Takes the next sound, gives the columns that became certain.

        Args:
            x: (n,) float at 16 kHz, nominally in [-1, 1].

        Returns:
            (80, m) float32 in [-4, 4]; m may be 0.

        Raises:
            Closed: after ``flush``.
        """
        if self._ended:
            raise Closed("closed", "This spectrogram was flushed; make a new one for a new sound.")
        if x.size == 0:
            return np.zeros((MEL_BANDS, 0), np.float32)
        x = x.astype(np.float64)
        emphasised = x.copy()
        emphasised[1:] -= _PRE_EMPHASIS * x[:-1]
        emphasised[0] -= _PRE_EMPHASIS * self._last
        self._last = float(x[-1])
        return self._advance(emphasised)

    def flush(self) -> np.ndarray:
        """The columns whose windows reach past the end, (80, m) float32: in all 1 + pushed // 200 columns come out."""
        if self._ended:
            return np.zeros((MEL_BANDS, 0), np.float32)
        self._ended = True
        # The padding follows pre-emphasis, as in the reference: the step at the end is not emphasised.
        return self._advance(np.zeros(_HALF))

    def _advance(self, emphasised: np.ndarray) -> np.ndarray:
        self._buffer = np.concatenate([self._buffer, emphasised])
        count = max(0, (self._buffer.size - WINDOW_SAMPLES) // HOP_SAMPLES + 1)
        columns = np.empty((count, MEL_BANDS), np.float32)
        for a in range(0, count, _MAX_BLOCK_COLUMNS):
            b = min(count, a + _MAX_BLOCK_COLUMNS)
            columns[a:b] = _columns(self._buffer[a * HOP_SAMPLES : (b - 1) * HOP_SAMPLES + WINDOW_SAMPLES])
        self._buffer = self._buffer[count * HOP_SAMPLES :]
        return columns.T


def mel_spectrogram(x: np.ndarray) -> np.ndarray:
    """The mel spectrogram of a whole sound.

    Args:
        x: (N,) float at 16 kHz, nominally in [-1, 1].

    Returns:
        (80, 1 + N // 200) float32 in [-4, 4].
    """
    stream = StreamingMel()
    return np.concatenate([stream.push(x), stream.flush()], axis=1)
