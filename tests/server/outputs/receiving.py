"""What arrives at a viewer of a distribution: pictures, flashes and beeps by their own times."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import av
import numpy as np


@dataclass
class Watched:
    """Attributes: pictures: (time, brightness) of each; beeps: times of the tones; comments: of the container."""

    pictures: list[tuple[float, float]] = field(default_factory=list)
    beeps: list[float] = field(default_factory=list)
    loudest: float = 0.0
    key_frames: list[float] = field(default_factory=list)
    key_data: bytes = b""
    sample_rate: int = 0
    channels: int = 0
    error: BaseException | None = None

    @property
    def fps(self) -> float:
        """Of most pictures: a busy machine leaves some out."""
        return 1 / float(np.median(np.diff([at_s for at_s, _ in self.pictures])))

    @property
    def offsets_s(self) -> list[float]:
        """Sound after picture, of each flash that has both."""
        flashes = [at_s for at_s, brightness in self.pictures if brightness > 150]
        inner = [at_s for at_s in flashes if self.beeps and self.beeps[0] - 0.3 <= at_s <= self.beeps[-1] + 0.3]
        return [min((beep - at_s for beep in self.beeps), key=abs) for at_s in inner]


def watch(url: str, seconds: float) -> Watched:
    """Plays a stream for a while; blocking."""
    seen = Watched()
    quiet_s = -1.0
    # Long enough for a key frame, and no longer.
    with av.open(url, timeout=10, options={"analyzeduration": "2500000"}) as container:
        sound = container.streams.audio[0]
        seen.sample_rate, seen.channels = sound.codec_context.sample_rate, sound.codec_context.layout.nb_channels
        end_s = time.monotonic() + seconds
        for packet in container.demux():
            if packet.stream.type == "video" and packet.is_keyframe:
                seen.key_frames.append(float(packet.pts * packet.time_base))
                seen.key_data = bytes(packet)
            for frame in packet.decode():
                if packet.stream.type == "video":
                    seen.pictures.append((frame.time, float(frame.to_ndarray(format="gray").mean())))
                    continue
                samples = np.abs(frame.to_ndarray()[0])
                seen.loudest = max(seen.loudest, float(samples.max()))
                for index in np.flatnonzero(samples > 0.1):
                    at_s = frame.time + index / seen.sample_rate
                    if at_s - quiet_s > 0.3:
                        seen.beeps.append(at_s)
                    quiet_s = at_s
            if time.monotonic() >= end_s:
                break
    return seen


class Watching(threading.Thread):
    """Plays beside the test."""

    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(daemon=True)
        self._url, self._seconds = url, seconds
        self.seen = Watched()
        self.start()

    def run(self) -> None:
        try:
            self.seen = watch(self._url, self._seconds)
        except Exception as error:
            self.seen.error = error
