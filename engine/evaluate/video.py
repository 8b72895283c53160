"""Any talking video as pictures at 25 a second and sound at 48 kHz, one picture at a time.

Place in the flow: video file -> ``VideoFile`` -> face track, picture measures, sound for the experts.

Invariants:
    * picture i is the one that is shown at 40 i ms after the start of the sound, whatever the file's own rate;
    * only local files of known containers are opened, and nothing beyond ``max_s`` is decoded;
    * pictures are BGR uint8 with the colours their file states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from engine.audio.pcm import PlayoutResampler, to_mono_float
from engine.errors import InvalidInput
from engine.types import FPS, PLAYOUT_RATE

_OPTIONS = {"format_whitelist": "mov,mp4,m4a,matroska,webm,avi,mpeg,mpegvideo,mpegts", "protocol_whitelist": "file"}
_HD_ROWS = 720
_HALF_PICTURE_S = 0.5 / FPS


@dataclass(frozen=True)
class VideoFile:
    """A video that can be read as often as needed.

    Attributes:
        path: the file.
        max_s: what lies behind this is not read, seconds.
    """

    path: Path
    max_s: float = 20.0

    def frames(self) -> Iterator[np.ndarray]:
        """Pictures at 25 a second, each (H, W, 3) uint8 BGR.

        Raises:
            InvalidInput: ``video_unreadable``.
        """
        limit = round(self.max_s * FPS)
        shown: np.ndarray | None = None
        count = 0
        for time_s, picture in self._decoded():
            # Up to the time of this picture its predecessor is on the screen.
            while shown is not None and count < limit and count / FPS < time_s - _HALF_PICTURE_S:
                yield shown
                count += 1
            shown = picture
            if count >= limit:
                return
        if shown is not None and count < limit:
            yield shown

    def sound(self) -> np.ndarray | None:
        """The first sound track as (N,) int16 mono at 48 kHz, in time with the pictures; None when there is none."""
        try:
            with av.open(str(self.path), options=_OPTIONS) as container:
                if not container.streams.audio:
                    return None
                stream = container.streams.audio[0]
                resampler = PlayoutResampler(stream.rate)
                pieces, begin_s, got_s = [], None, 0.0
                for frame in container.decode(stream):
                    if begin_s is None:
                        begin_s = float(frame.time or 0.0) - _start_s(container)
                    values = frame.to_ndarray()
                    if not frame.format.is_planar:
                        values = values.reshape(-1, frame.layout.nb_channels).T
                    pieces.append(resampler.push(to_mono_float(values.T)))
                    got_s += frame.samples / stream.rate
                    if got_s > self.max_s:
                        break
                pieces.append(resampler.flush())
        except (av.error.FFmpegError, OSError) as error:
            raise self._unreadable(str(error)) from error
        shift = round((begin_s or 0.0) * PLAYOUT_RATE)
        samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
        samples = np.pad(samples, (shift, 0)) if shift > 0 else samples[-shift:]
        return samples[: round(self.max_s * PLAYOUT_RATE)]

    def _decoded(self) -> Iterator[tuple[float, np.ndarray]]:
        """(time of showing from the start, picture) of every picture in the file."""
        try:
            with av.open(str(self.path), options=_OPTIONS) as container:
                if not container.streams.video:
                    raise self._unreadable("it has no picture track")
                stream = container.streams.video[0]
                start_s = _start_s(container)
                period_s = 1.0 / float(stream.average_rate or FPS)
                for index, frame in enumerate(container.decode(stream)):
                    time_s = index * period_s if frame.time is None else float(frame.time) - start_s
                    yield time_s, _to_bgr(frame)
        except (av.error.FFmpegError, OSError) as error:
            raise self._unreadable(str(error)) from error

    def _unreadable(self, reason: str) -> InvalidInput:
        return InvalidInput(
            "video_unreadable",
            f"Cannot read {self.path} as a video ({reason}); give an mp4, mov, mkv, webm, avi or mpg.",
        )


def _start_s(container: av.container.InputContainer) -> float:
    """When the file's earliest track begins, seconds."""
    return (container.start_time or 0) / 1e6


def _to_bgr(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8; files that do not state their colours mean BT.709 when they are HD, else BT.601."""
    matrix = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 6: Colorspace.ITU601}.get(int(frame.colorspace))
    if matrix is None:
        matrix = Colorspace.ITU709 if frame.height >= _HD_ROWS else Colorspace.ITU601
    full = int(frame.color_range) == int(ColorRange.JPEG)
    source = ColorRange.JPEG if full else ColorRange.MPEG
    return frame.reformat(
        format="bgr24", src_colorspace=matrix, src_color_range=source, dst_color_range=ColorRange.JPEG
    ).to_ndarray()
