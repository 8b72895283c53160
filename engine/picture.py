"""Pictures in and out of video files without a change of colour: BGR <-> yuv420p, BT.709 limited range, tagged so.

Place in the flow: idle loop on disk <-> pictures; AvatarFrame -> recorder.

Invariants:
    * what is written says which colours it means, whatever its size;
    * a picture comes back within two grey levels before compression.
"""

from __future__ import annotations

import threading
from fractions import Fraction

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from engine.types import FPS

# The number of BT.709 in every one of the tags that players read.
_BT709 = 1

# Without these flags swscale truncates instead of rounding: a grey of 128 comes back as (126, 126, 124).
_EXACT = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)

# Setting swscale's tables up takes twice as long as converting a picture with them.
_kept = threading.local()


def add_h264(container: OutputContainer, size: tuple[int, int], *, crf: int, preset: str) -> VideoStream:
    """Adds an H.264 stream of 25 pictures a second.

    Args:
        container: where to.
        size: (width, height), both even.
        crf: x264 quality, lower is better.
        preset: x264 speed.
    """
    stream = container.add_stream("libx264", rate=FPS)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.time_base = Fraction(1, FPS)
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = ColorRange.MPEG.value
    # Without B frames the first picture needs no edit list, so that every player starts sound and picture together.
    stream.options = {"crf": str(crf), "preset": preset, "bf": "0"}
    return stream


def to_yuv(picture: np.ndarray, index: int) -> av.VideoFrame:
    """(H, W, 3) uint8 BGR -> a yuv420p frame, the ``index``-th of its stream."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24").reformat(
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=_EXACT,
    )
    frame.pts, frame.time_base = index, Fraction(1, FPS)
    return frame


def to_bgr(frame: av.VideoFrame) -> np.ndarray:
    """A decoded yuv420p frame -> (H, W, 3) uint8 BGR."""
    reformatter = getattr(_kept, "to_bgr", None)
    if reformatter is None:
        reformatter = _kept.to_bgr = VideoReformatter()
    return reformatter.reformat(
        frame,
        format="bgr24",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_EXACT,
        # More of them wait for each other longer than they work, and stay for as long as the tables do.
        threads=1,
    ).to_ndarray()
