"""Pictures and sound as a client gets them, and the microphone it sends.

Place in the flow: aiortc -> ``Picture``, ``Sound`` -> ``TalkingHead.frames``, ``.audio``; ``TalkingHead.hear`` ->
``Speaking`` -> aiortc.

Invariants: the microphone never stops and never hurries: what is not there in time is silence.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import av
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from engine.types import CHUNK_MS, CHUNK_SAMPLES, PLAYOUT_RATE

MAX_WAITING_SAMPLES = 30 * PLAYOUT_RATE
"""Sound to be sent that may wait: a sentence pushed at once, not a lecture."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as it arrived.

    Attributes:
        frame: as the decoder gave it.
        pts_s: its place in the stream, seconds; pictures and sounds count from different origins.
        at_s: monotonic time of its arrival, seconds.
    """

    frame: av.VideoFrame
    pts_s: float
    at_s: float = field(default_factory=time.monotonic)

    @property
    def image(self) -> np.ndarray:
        """(height, width, 3) uint8 BGR; converted at each call, which takes a millisecond."""
        image: np.ndarray = self.frame.to_ndarray(format="bgr24")
        return image


@dataclass(frozen=True, slots=True)
class Sound:
    """Twenty milliseconds of sound as they arrived.

    Attributes:
        samples: (960,) int16 mono at 48 kHz.
        pts_s: their place in the stream, seconds.
        at_s: monotonic time of their arrival, seconds.
    """

    samples: np.ndarray
    pts_s: float
    at_s: float = field(default_factory=time.monotonic)


class Speaking(MediaStreamTrack):
    """A microphone that says what it is given, 20 ms at a time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._unsent = np.zeros(0, np.int16)
        self._pts = 0
        self._started_s: float | None = None

    @property
    def waiting_s(self) -> float:
        """How much sound waits to be sent, seconds."""
        return len(self._unsent) / PLAYOUT_RATE

    def push(self, samples: np.ndarray) -> None:
        """Appends (n,) int16 mono at 48 kHz; beyond half a minute the oldest is dropped."""
        self._unsent = np.concatenate([self._unsent, samples])[-MAX_WAITING_SAMPLES:]

    async def recv(self) -> av.AudioFrame:
        """The next 20 ms, at its time.

        Raises:
            MediaStreamError: the track was stopped.
        """
        if self.readyState != "live":
            raise MediaStreamError
        if self._started_s is None:
            self._started_s = time.monotonic()
        due_s = self._started_s + self._pts / PLAYOUT_RATE
        await asyncio.sleep(due_s - time.monotonic())
        chunk = np.zeros(CHUNK_SAMPLES, np.int16)
        taken, self._unsent = self._unsent[:CHUNK_SAMPLES], self._unsent[CHUNK_SAMPLES:]
        chunk[: len(taken)] = taken
        frame = av.AudioFrame.from_ndarray(chunk.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = PLAYOUT_RATE, self._pts
        self._pts += CHUNK_SAMPLES
        if time.monotonic() - due_s > 1.0:
            # The machine stood still: what was missed is not made up for in a hurry.
            self._started_s += CHUNK_MS / 1000
        return frame
