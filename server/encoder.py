"""Our own encoders in front of aiortc: H.264, VP8 and Opus packets of one session.

Place in the flow: AvatarFrame -> encoder, on a thread of ``EncoderPool`` -> av.Packet -> ``rtp.pack`` -> track.

Why not aiortc's: its x264 runs at preset medium (five times the CPU), it rebuilds the encoder, with a key frame, at
every bandwidth estimate that moves by 10 %, and it encodes on the event loop's default executor.

Invariants:
    * one call in, one packet out: no B-frames, no look-ahead, no dropped frames;
    * the bitrate is held: an encoder is never rebuilt for an estimate;
    * the first picture of an encoder is as good as those that follow it, because encoders begin often: whenever a key
      frame is asked for, and whenever a session leaves the shared idle loop;
    * every H.264 picture that a decoder can start at says that it was generated, see ``engine.marking``;
    * an encoder is used by one thread at a time (the caller awaits each call before the next).
"""

from __future__ import annotations

import logging
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol, cast

import av
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.frame import PictureType

from engine.marking import mark_h264
from engine.types import CHUNK_SAMPLES, FPS, PLAYOUT_RATE

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

VideoCodec = Literal["H264", "VP8"]
H264Encoder = Literal["x264", "nvenc"]

VIDEO_CLOCK_RATE = 90_000
"""RTP clock of every video codec, Hz (RFC 3551)."""
VIDEO_RTP_TIME_BASE = Fraction(1, VIDEO_CLOCK_RATE)
AUDIO_RTP_TIME_BASE = Fraction(1, PLAYOUT_RATE)
TICKS_PER_FRAME = VIDEO_CLOCK_RATE // FPS

KEY_FRAME_INTERVAL_S = 10
"""A viewer that lost a picture and whose requests are lost too recovers within this time."""

OPUS_BITRATE = 48_000
"""Bits per second; full-band mono speech is transparent from about 40 kbit/s (RFC 7587, 3.1.1)."""

_OPUS_COMPLEXITY = "5"
"""Of 10: two thirds of the time for hardly a difference in speech."""
BUFFER_S = 0.5
"""How far a picture may overdraw the steady bitrate: a key frame is worth about six ordinary ones."""
_VP8_BUFFER_S = 2.0
"""The same for VP8, whose first key frame gets what is half of the buffer at most."""
_H264_QUALITY = 18
"""x264's constant rate factor within the bitrate: about 50 dB. Steered by the bitrate alone, its first pictures are
4 dB worse than what follows, because it has to find out what they cost; and all others stay a little worse, too."""


_NVENC_QUALITY = 21
"""NVENC's target of constant quality, on the scale of x264's."""


class VideoEncoder(Protocol):
    """Pictures in, one packet each out."""

    def encode(self, image: np.ndarray, pts: int, key_frame: bool) -> av.Packet:
        """Encodes one picture.

        Args:
            image: (H, W, 3) uint8 BGR; an odd last row or column is cut off.
            pts: position in frames, growing.
            key_frame: make this picture decodable on its own.

        Returns:
            A packet whose pts counts 90 kHz ticks.

        Raises:
            av.FFmpegError: the codec refused the picture.
        """
        ...


def create_video_encoder(
    codec: VideoCodec,
    width: int,
    height: int,
    bitrate: int,
    *,
    hurried: bool = False,
    h264: H264Encoder = "x264",
) -> VideoEncoder:
    """An encoder for pictures of one size; made in 2 ms.

    Args:
        codec: what the peers agreed on.
        width: pixels of the pictures that will come.
        height: same.
        bitrate: bits per second at most. A talking face of 512 x 512 reaches 48.3 dB at 0.6 Mbit/s, 50.8 at 1.5.
        hurried: two thirds of the time for a little more of the bitrate.
        h264: what encodes H.264; x264 does where the graphics card has no encoder, or none to spare.
    """
    if codec == "H264" and h264 == "nvenc" and (on_card := _nvenc(width, height, bitrate, hurried)) is not None:
        return _AvVideoEncoder(on_card)
    context = _h264(bitrate, hurried) if codec == "H264" else _vp8(bitrate, hurried)
    describe_pictures(context, width, height)
    return _AvVideoEncoder(context)


def describe_pictures(context: av.VideoCodecContext, width: int, height: int) -> None:
    """Says what an encoder's pictures will be like; an odd last row or column is cut off."""
    context.width, context.height = width & ~1, height & ~1
    context.pix_fmt = "yuv420p"
    context.framerate = Fraction(FPS, 1)
    context.time_base = Fraction(1, FPS)
    context.gop_size = KEY_FRAME_INTERVAL_S * FPS
    context.max_b_frames = 0
    context.thread_count = 1
    # cv2 converts with BT.601 in studio range; said so in the stream, or a decoder would guess BT.709 for some sizes.
    context.colorspace = _COLORSPACE_BT601
    context.color_primaries = _COLOR_BT709
    context.color_trc = _COLOR_BT709
    context.color_range = _RANGE_STUDIO


_COLORSPACE_BT601 = 6  # AVCOL_SPC_SMPTE170M
_COLOR_BT709 = 1  # AVCOL_PRI_BT709, AVCOL_TRC_BT709: the nearest names for sRGB material
_RANGE_STUDIO = 1  # AVCOL_RANGE_MPEG


def _h264(rate: int, hurried: bool) -> av.VideoCodecContext:
    context = av.CodecContext.create("libx264", "w")
    context.options = h264_options(rate) | {
        "preset": "ultrafast" if hurried else "superfast",
        "tune": "zerolatency",
        "crf": str(_H264_QUALITY),
    }
    return context


def _nvenc(width: int, height: int, rate: int, hurried: bool) -> av.VideoCodecContext | None:
    """NVIDIA's encoder, open; None where it cannot be had: gaming cards lend some eight, H100 and H200 have none."""
    try:
        context = av.CodecContext.create("h264_nvenc", "w")
        context.bit_rate = rate
        context.options = {
            "preset": "p1" if hurried else "p4",
            "tune": "ull",
            "profile": "baseline",
            "rc": "vbr",
            "cq": str(_NVENC_QUALITY),
            "maxrate": str(rate),
            "bufsize": str(int(rate * BUFFER_S)),
            "forced-idr": "1",
            "zerolatency": "1",
            "delay": "0",
        }
        describe_pictures(context, width, height)
        context.open()
    except (av.FFmpegError, UnknownCodecError) as error:
        # What follows the colon are the options above.
        _tell_once(f"NVIDIA's encoder cannot be used, x264 encodes instead ({str(error).partition(':')[0]})")
        return None
    return context


@cache
def _tell_once(message: str) -> None:
    logger.warning(message)


def h264_options(rate: int) -> dict[str, str]:
    """What every x264 whose pictures reach a browser has in common, so that their headers are the same.

    A decoder in hardware may have to begin anew when they change.

    Args:
        rate: bits per second at most.
    """
    return {
        # x264's baseline sets constraint_set0 and constraint_set1: it satisfies both profiles that aiortc
        # negotiates, 42e01f (constrained baseline) and 42001f (baseline).
        "profile": "baseline",
        "forced-idr": "1",
        "sc_threshold": "0",
        "maxrate": str(rate),
        "bufsize": str(int(rate * BUFFER_S)),
        # Headers say nothing of how the encoder was steered.
        "x264-params": "stitchable=1:ref=1",
    }


def _vp8(rate: int, hurried: bool) -> av.VideoCodecContext:
    context = av.CodecContext.create("libvpx", "w")
    context.bit_rate = rate
    context.qmin, context.qmax = 2, 56
    context.options = {
        "deadline": "realtime",
        "cpu-used": "-16" if hurried else "-12",
        "lag-in-frames": "0",
        "auto-alt-ref": "0",
        "static-thresh": "1",
        # Equal minimum, target and maximum is how this wrapper is told "constant bitrate".
        "minrate": str(rate),
        "maxrate": str(rate),
        "bufsize": str(int(rate * _VP8_BUFFER_S)),
        "rc_init_occupancy": str(int(rate * _VP8_BUFFER_S)),
        "undershoot-pct": "100",
        "overshoot-pct": "15",
    }
    return context


class _AvVideoEncoder:
    def __init__(self, context: av.VideoCodecContext) -> None:
        self._context = context

    def encode(self, image: np.ndarray, pts: int, key_frame: bool) -> av.Packet:
        (packet,) = self._context.encode(to_frame(self._context, image, pts, key_frame))
        if packet.is_keyframe and self._context.name != "libvpx":
            packet = av.Packet(mark_h264(bytes(packet)))
            packet.is_keyframe = True
        packet.pts = packet.dts = pts * TICKS_PER_FRAME
        packet.time_base = VIDEO_RTP_TIME_BASE
        return packet


def to_frame(context: av.VideoCodecContext, image: np.ndarray, pts: int, key_frame: bool) -> av.VideoFrame:
    """A picture as an encoder takes it; for the arguments see ``VideoEncoder.encode``."""
    image = image[: context.height, : context.width]
    planes = cast("npt.NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420))
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts = pts
    frame.time_base = context.time_base
    frame.colorspace = _COLORSPACE_BT601
    frame.color_range = _RANGE_STUDIO
    frame.pict_type = PictureType.I if key_frame else PictureType.NONE
    return frame


class OpusEncoder:
    """20 ms chunks of playout sound in, one Opus packet each out.

    Mono at a speech bitrate with in-band error correction; aiortc's own encodes two equal channels at 96 kbit/s.
    """

    def __init__(self, bitrate: int = OPUS_BITRATE) -> None:
        context = av.CodecContext.create("libopus", "w")
        context.sample_rate = PLAYOUT_RATE
        context.format = "s16"
        context.layout = "mono"
        context.time_base = AUDIO_RTP_TIME_BASE
        context.bit_rate = bitrate
        # By itself libav starts threads that have nothing to do.
        context.thread_count = 1
        context.options = {
            "application": "voip",
            "frame_duration": "20",
            "fec": "1",
            "packet_loss": "5",
            "compression_level": _OPUS_COMPLEXITY,
        }
        self._context = context

    def encode(self, samples: np.ndarray, pts: int) -> av.Packet:
        """Encodes one chunk.

        Args:
            samples: (960,) int16 mono at 48 kHz.
            pts: position of its first sample, growing by 960.

        Returns:
            A packet whose pts counts 48 kHz samples.

        Raises:
            ValueError: not exactly 20 ms.
            av.FFmpegError: the codec refused the chunk.
        """
        if samples.shape != (CHUNK_SAMPLES,):
            raise ValueError(f"an Opus chunk is {CHUNK_SAMPLES} samples, not {samples.shape}")
        chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
        chunk.sample_rate = PLAYOUT_RATE
        chunk.pts = pts
        chunk.time_base = AUDIO_RTP_TIME_BASE
        (packet,) = self._context.encode(chunk)
        packet.pts = packet.dts = pts
        packet.time_base = AUDIO_RTP_TIME_BASE
        return packet
