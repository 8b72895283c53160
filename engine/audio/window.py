"""Cuts a sound into video frames: 40 ms to play and the stretch of mel a lip-sync model hears around them.

Place in the flow: playout sound of one utterance -> RollingWindows -> (mel window, 40 ms of sound) -> renderer.

Invariants:
    * frame i plays samples [1920 i, 1920 (i + 1)) and hears mel columns [floor(3.2 i) + offset, ... + columns);
    * columns before the start and after the end of the sound are digital silence;
    * what comes out has the same bits whatever the chunks the sound came in;
    * only what was not taken yet, plus one window, is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.audio.mel import HALF_WINDOW_MS, HOP_MS, HOP_SAMPLES, MEL_BANDS, SILENCE, WINDOW_SAMPLES, StreamingMel
from engine.audio.pcm import DECIMATION, Decimator, SampleQueue
from engine.errors import Closed
from engine.types import FRAME_SAMPLES

# 80 columns a second over 25 frames a second: 16 columns every 5 frames, kept in integers.
_COLUMNS_PER_GROUP = 16
_FRAMES_PER_GROUP = 5

FRAMES_AT_ONCE = 4
"""Frames that are analysed together where their sound is there: most of what a few columns cost is calling numpy."""


@dataclass(frozen=True, slots=True)
class MelWindow:
    """Where the window of a model sits around its video frame.

    Attributes:
        columns: mel columns in a window, 12.5 ms each.
        offset: first column, counted from the start of the frame; negative reaches into the past.
    """

    columns: int
    offset: int

    @property
    def lookahead_ms(self) -> float:
        """Future sound needed, counted from the START of the frame, milliseconds."""
        return (self.offset + self.columns - 1) * HOP_MS + HALF_WINDOW_MS

    def start(self, index: int) -> int:
        """First column of frame ``index``; may be negative."""
        return index * _COLUMNS_PER_GROUP // _FRAMES_PER_GROUP + self.offset

    def needed_samples(self, index: int) -> int:
        """16 kHz samples from the start of the sound that the window of frame ``index`` needs."""
        last = self.start(index) + self.columns - 1
        return last * HOP_SAMPLES + WINDOW_SAMPLES // 2 if last >= 0 else 0

    def frames_within(self, columns: int) -> int:
        """How many frames, from the first on, need none but the first ``columns`` columns of the sound."""
        latest = columns - self.columns - self.offset
        return max(0, (_FRAMES_PER_GROUP * (latest + 1) - 1) // _COLUMNS_PER_GROUP + 1)

    def cut(self, mel: np.ndarray, index: int) -> np.ndarray:
        """The window of frame ``index`` out of a whole spectrogram, padded with silence.

        Args:
            mel: (80, T) from ``mel_spectrogram``.
            index: video frame.

        Returns:
            (80, columns) float32.
        """
        return _cut(mel, self.start(index), self.columns)


def _cut(mel: np.ndarray, start: int, columns: int) -> np.ndarray:
    """Columns [start, start + columns) of ``mel``, silence where there are none."""
    window = np.full((MEL_BANDS, columns), SILENCE, np.float32)
    a, b = max(start, 0), min(start + columns, mel.shape[1])
    if a < b:
        window[:, a - start : b - start] = mel[:, a:b]
    return window


class RollingWindows:
    """The frames of one utterance, each as soon as the sound it needs is there.

    Analysis happens in ``next``, a few frames at a time, so that pushing a long file costs nothing at once. How much
    sound waits here is the caller's choice: take frames while ``frames_ready``, or push less.
    """

    def __init__(self, window: MelWindow) -> None:
        self.window = window
        self._playout = SampleQueue()
        self._analysis = SampleQueue()
        self._decimator = Decimator()
        self._mel = StreamingMel()
        self._columns = np.zeros((MEL_BANDS, 0), np.float32)
        self._first_column = 0
        self._total = 0
        self._index = 0
        self._ended = False
        self._flushed = False

    @property
    def ended(self) -> bool:
        """True once ``end`` was called."""
        return self._ended

    @property
    def total_samples(self) -> int:
        """48 kHz samples pushed so far."""
        return self._total

    @property
    def index(self) -> int:
        """The frame ``next`` will give."""
        return self._index

    @property
    def frames_ready(self) -> int:
        """How many times ``next`` can be called now. After ``end``: all frames that are left."""
        if self._ended:
            return -(-self._total // FRAME_SAMPLES) - self._index
        # Column k needs 200 k + 400 analysis samples: the largest k for which they can come out of the decimator.
        certain = (self._total - Decimator.needed(WINDOW_SAMPLES // 2)) // (DECIMATION * HOP_SAMPLES) + 1
        ready = min(self.window.frames_within(max(0, certain)), self._total // FRAME_SAMPLES)
        return ready - self._index

    def push(self, samples: np.ndarray) -> None:
        """Appends sound.

        Args:
            samples: (n,) int16 mono at 48 kHz, any n; copied.

        Raises:
            Closed: after ``end``.
        """
        if self._ended:
            raise Closed("closed", "This utterance has ended; no more sound can be added to it.")
        own = np.array(samples, np.int16)
        self._playout.push(own)
        self._analysis.push(own)
        self._total += own.size

    def end(self) -> None:
        """No more sound will come: the frames that are left become ready, the last one filled up with silence."""
        self._ended = True

    def next(self) -> tuple[int, np.ndarray, np.ndarray]:
        """The next frame.

        Returns:
            (index, mel (80, columns) float32 in [-4, 4], audio (1920,) int16 at 48 kHz).

        Raises:
            IndexError: no frame is ready.
        """
        if self.frames_ready <= 0:
            raise IndexError("no frame is ready: push more sound or end the utterance")
        index = self._index
        start = self.window.start(index)
        if not self._flushed and start + self.window.columns > self._first_column + self._columns.shape[1]:
            self._analyse(self.window.needed_samples(index + FRAMES_AT_ONCE - 1), start)
        mel = _cut(self._columns, start - self._first_column, self.window.columns)
        audio = np.zeros(FRAME_SAMPLES, np.int16)
        position = 0
        for piece in self._playout.take(FRAME_SAMPLES):
            audio[position : position + piece.size] = piece
            position += piece.size
        self._index += 1
        return index, mel, audio

    def _analyse(self, needed: int, first_column: int) -> None:
        """Computes columns until ``needed`` 16 kHz samples are analysed, or fewer where no more sound is there; forgets
        those before ``first_column``."""
        consumed = self._total - len(self._analysis)
        pieces = self._analysis.take(Decimator.needed(needed) - consumed)
        new = [self._mel.push(self._decimator.push(piece)) for piece in pieces]
        if self._ended and not len(self._analysis) and not self._flushed:
            new += [self._mel.push(self._decimator.flush()), self._mel.flush()]
            self._flushed = True
        drop = min(max(0, first_column - self._first_column), self._columns.shape[1])
        self._columns = np.concatenate([self._columns[:, drop:], *new], axis=1)
        self._first_column += drop
