"""The browser's microphone: drained always, mixed to mono, handed to the session as it comes.

Place in the flow: aiortc receiver -> ``LatestFirst`` -> Opus decoder -> ``Microphone`` -> ``Session.hear``.

Invariants:
    * the inbound track is read from its first frame to its last, used or not: its queue has no bound of its own;
    * a lost packet becomes silence of its length, so that what follows keeps its place in time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket

from engine.types import CHUNK_SAMPLES, PLAYOUT_RATE

logger = logging.getLogger(__name__)

MAX_FILL_SAMPLES = 3 * CHUNK_SAMPLES
"""Longer gaps are a microphone that was switched off, not a loss."""

_JITTER_BUFFER = "_RTCRtpReceiver__jitter_buffer"
_SEQUENCE_RANGE = 1 << 16
MAX_LATE_PACKETS = 100
"""A number further back than this (2 s) is a stream that started over, not a late packet."""


class LatestFirst:
    """In place of aiortc's jitter buffer for sound: every packet goes on at once, late ones are dropped.

    aiortc holds four packets (80 ms) without smoothing anything by it: one packet leaves whenever one arrives. After a
    loss it waits for sixteen, and stays that far behind. An Opus packet is a whole frame, so none has to wait for
    the next; what arrives out of order is as good as lost to a face that answers in 100 ms.
    """

    def __init__(self) -> None:
        self._last: int | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Takes a packet that was depayloaded; returns (False: no picture to ask for, the frame or None)."""
        if self._last is not None:
            behind = (self._last - packet.sequence_number) % _SEQUENCE_RANGE
            if behind <= MAX_LATE_PACKETS:
                return False, None
        self._last = packet.sequence_number
        data: bytes = packet._data  # type: ignore[attr-defined]
        if not data:
            # Padding alone. To libav's decoder no data is the end of the stream, after which it takes nothing more.
            return False, None
        return False, JitterFrame(data=data, timestamp=packet.timestamp)


def skip_jitter_buffer(receiver: RTCRtpReceiver) -> bool:
    """Gives a sound receiver the buffer above. False when this aiortc keeps its buffer elsewhere: then it stays."""
    if not hasattr(receiver, _JITTER_BUFFER):
        logger.warning("this aiortc's jitter buffer is not where it was; the microphone is 80 ms later")
        return False
    setattr(receiver, _JITTER_BUFFER, LatestFirst())
    return True


class Microphone:
    """Reads one inbound track until it ends."""

    def __init__(self, track: MediaStreamTrack, hear: Callable[[np.ndarray], None]) -> None:
        """Args: track: inbound sound; hear: takes (n,) int16 mono at 48 kHz and never blocks."""
        self._track = track
        self._hear = hear
        self._next_pts: int | None = None

    async def run(self) -> None:
        """Drains the track until it ends. Cancellation loses what was not yet read."""
        while True:
            try:
                frame = await self._track.recv()
            except MediaStreamError:
                return
            try:
                samples = to_mono(cast(av.AudioFrame, frame))
            except ValueError:
                logger.exception("a microphone frame could not be used")
                continue
            pts = frame.pts or 0
            missing = 0 if self._next_pts is None else pts - self._next_pts
            self._next_pts = pts + len(samples)
            if 0 < missing <= MAX_FILL_SAMPLES:
                self._hear(np.zeros(missing, np.int16))
            self._hear(samples)


def to_mono(frame: av.AudioFrame) -> np.ndarray:
    """(n,) int16 mean of a packed s16 frame's channels.

    Raises:
        ValueError: not packed 16-bit sound at 48 kHz.
    """
    if frame.format.name != "s16" or frame.sample_rate != PLAYOUT_RATE:
        raise ValueError(f"expected s16 at {PLAYOUT_RATE} Hz, not {frame.format.name} at {frame.sample_rate} Hz")
    channels = frame.layout.nb_channels
    samples: np.ndarray = frame.to_ndarray().reshape(-1, channels)
    if channels == 1:
        return samples[:, 0].copy()
    if channels == 2:
        # Exact, and four times faster than a mean over 32-bit sums.
        return ((samples[:, 0] >> 1) + (samples[:, 1] >> 1) + (samples[:, 0] & samples[:, 1] & 1)).astype(np.int16)
    return (samples.sum(axis=1, dtype=np.int32) // channels).astype(np.int16)
