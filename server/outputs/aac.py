"""AAC of a session's sound, as RTMP wants it: 128 kbit/s, two equal channels, each packet with its place.

Place in the flow: AvatarFrame -> ``AacEncoder`` -> ``flv.sound``.

Invariants: a packet's place is that of its samples, also after a gap, so sound never moves against pictures.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from engine.types import FRAME_SAMPLES, PLAYOUT_RATE
from server.outputs.flv import AUDIO_KBPS

BLOCK_SAMPLES = 1024
LEAD_SAMPLES = BLOCK_SAMPLES
"""A decoder begins with so many samples of nothing: what is told as a packet's place is heard so much later."""


@dataclass(frozen=True, slots=True)
class AacPacket:
    """Encoded sound. Attributes: at: position of the block in the session, samples; data: one AAC frame."""

    at: int
    data: bytes


class AacEncoder:
    """One stream of AAC. Use it from one thread at a time."""

    def __init__(self) -> None:
        context = av.CodecContext.create("aac", "w")
        context.sample_rate = PLAYOUT_RATE
        context.format = "fltp"
        context.layout = "stereo"
        context.time_base = Fraction(1, PLAYOUT_RATE)
        context.bit_rate = AUDIO_KBPS * 1000
        context.open()
        self._context = context
        self.config = bytes(context.extradata or b"")
        """AudioSpecificConfig."""
        self._rest = np.zeros(0, np.float32)
        self._at = -1
        self._count = 0
        self._places: deque[int] = deque()

    def encode(self, samples: np.ndarray, pts: int) -> list[AacPacket]:
        """Encodes the sound of a frame; gaps before it become silence.

        Args:
            samples: (1920,) int16 mono at 48 kHz.
            pts: position of the frame in the session.

        Raises:
            av.FFmpegError: the codec refused it.
        """
        begin = pts * FRAME_SAMPLES
        if self._at < 0:
            self._at = begin
        missing = begin - self._at - len(self._rest)
        if missing > 0:
            # Whole blocks of silence need not be encoded: places may have holes.
            skipped = missing // BLOCK_SAMPLES * BLOCK_SAMPLES
            self._rest = np.append(self._rest, np.zeros(missing - skipped, np.float32))
            self._at += skipped
        self._rest = np.append(self._rest, samples.astype(np.float32) / 32768)
        packets = []
        while len(self._rest) >= BLOCK_SAMPLES:
            block, self._rest = self._rest[:BLOCK_SAMPLES], self._rest[BLOCK_SAMPLES:]
            frame = av.AudioFrame.from_ndarray(np.stack([block, block]), format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base = PLAYOUT_RATE, self._context.time_base
            frame.pts = self._count
            self._count += BLOCK_SAMPLES
            self._places.append(self._at)
            self._at += BLOCK_SAMPLES
            packets += [AacPacket(self._places.popleft(), bytes(packet)) for packet in self._context.encode(frame)]
        return packets
