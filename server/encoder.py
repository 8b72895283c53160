"""Our own encoders in front of aiortc: H.264, VP8 and Opus packets of one session, made on threads of our own.

Place in the flow: AvatarFrame -> encoder -> av.Packet -> track -> aiortc, which only packs and sends.

Why not aiortc's: its x264 runs at preset medium (five times the CPU), it rebuilds the encoder, with a key frame, at
every bandwidth estimate that moves by 10 %, and it encodes on the event loop's default executor.

Invariants:
    * one call in, one packet out: no B-frames, no look-ahead, no dropped frames;
    * the bitrate is held: an encoder is never rebuilt while it works;
    * every H.264 picture that a decoder can start at says that it was generated, see ``engine.marking``;
    * an encoder is used by one thread at a time (the caller awaits each call before the next).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, cast

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from engine.config import usable_cores
from engine.marking import mark_h264
from engine.types import CHUNK_SAMPLES, FPS, PLAYOUT_RATE

if TYPE_CHECKING:
    import numpy.typing as npt

VideoCodec = Literal["H264", "VP8"]

VIDEO_CLOCK_RATE = 90_000
"""RTP clock of every video codec, Hz (RFC 3551)."""
VIDEO_RTP_TIME_BASE = Fraction(1, VIDEO_CLOCK_RATE)
AUDIO_RTP_TIME_BASE = Fraction(1, PLAYOUT_RATE)
TICKS_PER_FRAME = VIDEO_CLOCK_RATE // FPS

KEY_FRAME_INTERVAL_S = 10
"""A viewer that lost a picture and whose requests are lost too recovers within this time."""

OPUS_BITRATE = 48_000
"""Bits per second; full-band mono speech is transparent from about 40 kbit/s (RFC 7587, 3.1.1)."""

_BUFFER_S = 0.5
"""How far a picture may overdraw the steady bitrate: a key frame is worth about six ordinary ones."""

CLOSE_TIMEOUT_S = 1.0
"""How long closing waits for the pictures that are being encoded; one takes a few milliseconds."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


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


def create_video_encoder(codec: VideoCodec, width: int, height: int, bitrate: int) -> VideoEncoder:
    """An encoder for pictures of one size.

    Args:
        codec: what the peers agreed on.
        width: pixels of the pictures that will come.
        height: same.
        bitrate: bits per second. A talking face of 512 x 512 reaches 46.5 dB at 1.0 Mbit/s, 47.2 at 1.3, 47.5 at 1.5.
    """
    width, height = width & ~1, height & ~1
    context = _h264(bitrate) if codec == "H264" else _vp8(bitrate)
    context.width, context.height = width, height
    context.pix_fmt = "yuv420p"
    context.framerate = Fraction(FPS, 1)
    context.time_base = Fraction(1, FPS)
    context.bit_rate = bitrate
    context.gop_size = KEY_FRAME_INTERVAL_S * FPS
    context.max_b_frames = 0
    context.thread_count = 1
    # cv2 converts with BT.601 in studio range; said so in the stream, or a decoder would guess BT.709 for some sizes.
    context.colorspace = _COLORSPACE_BT601
    context.color_primaries = _COLOR_BT709
    context.color_trc = _COLOR_BT709
    context.color_range = _RANGE_STUDIO
    return _AvVideoEncoder(context)


_COLORSPACE_BT601 = 6  # AVCOL_SPC_SMPTE170M
_COLOR_BT709 = 1  # AVCOL_PRI_BT709, AVCOL_TRC_BT709: the nearest names for sRGB material
_RANGE_STUDIO = 1  # AVCOL_RANGE_MPEG


def _h264(rate: int) -> av.VideoCodecContext:
    context = av.CodecContext.create("libx264", "w")
    context.options = {
        "preset": "superfast",
        "tune": "zerolatency",
        # x264's baseline sets constraint_set0 and constraint_set1: it satisfies both profiles that aiortc
        # negotiates, 42e01f (constrained baseline) and 42001f (baseline).
        "profile": "baseline",
        "forced-idr": "1",
        "sc_threshold": "0",
        "maxrate": str(rate),
        "bufsize": str(int(rate * _BUFFER_S)),
    }
    return context


def _vp8(rate: int) -> av.VideoCodecContext:
    context = av.CodecContext.create("libvpx", "w")
    context.qmin, context.qmax = 2, 56
    context.options = {
        "deadline": "realtime",
        "cpu-used": "-12",
        "lag-in-frames": "0",
        "auto-alt-ref": "0",
        "static-thresh": "1",
        # Equal minimum, target and maximum is how this wrapper is told "constant bitrate".
        "minrate": str(rate),
        "maxrate": str(rate),
        "bufsize": str(int(rate * _BUFFER_S)),
        "undershoot-pct": "100",
        "overshoot-pct": "15",
    }
    return context


class _AvVideoEncoder:
    def __init__(self, context: av.VideoCodecContext) -> None:
        self._context = context

    def encode(self, image: np.ndarray, pts: int, key_frame: bool) -> av.Packet:
        image = image[: self._context.height, : self._context.width]
        planes = cast("npt.NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420))
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts = pts
        picture.time_base = self._context.time_base
        picture.colorspace = _COLORSPACE_BT601
        picture.color_range = _RANGE_STUDIO
        picture.pict_type = PictureType.I if key_frame else PictureType.NONE
        (packet,) = self._context.encode(picture)
        if packet.is_keyframe and self._context.name == "libx264":
            packet = av.Packet(mark_h264(bytes(packet)))
            packet.is_keyframe = True
        packet.pts = packet.dts = pts * TICKS_PER_FRAME
        packet.time_base = VIDEO_RTP_TIME_BASE
        return packet


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
        context.options = {"application": "voip", "frame_duration": "20", "fec": "1", "packet_loss": "5"}
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


class EncoderPool:
    """The threads that encode for all sessions.

    Sound has a thread of its own, so that a burst of slow pictures never delays it. The codecs release the
    interpreter lock while they work.
    """

    def __init__(self, video_threads: int = 0) -> None:
        """Args: video_threads: 0 picks one per core that may be used, at most four."""
        threads = video_threads or min(4, usable_cores())
        self._video = ThreadPoolExecutor(threads, thread_name_prefix="video-encoder")
        self._audio = ThreadPoolExecutor(1, thread_name_prefix="audio-encoder")

    async def video(self, work: Callable[[], T]) -> T:
        """Runs work on a picture thread. Cancellation abandons the result; work that started still finishes."""
        return await asyncio.get_running_loop().run_in_executor(self._video, work)

    async def audio(self, work: Callable[[], T]) -> T:
        """Runs work on the sound thread. Cancellation as in ``video``."""
        return await asyncio.get_running_loop().run_in_executor(self._audio, work)

    async def aclose(self) -> None:
        """Drops what waits and lets running work finish, for at most ``CLOSE_TIMEOUT_S``; idempotent."""
        pools = (self._video, self._audio)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        loop = asyncio.get_running_loop()
        finished = asyncio.Event()

        def join() -> None:
            for pool in pools:
                pool.shutdown(wait=True)
            # The loop may have given up, and ended, before the work did.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(finished.set)

        threading.Thread(target=join, name="encoder-join", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await finished.wait()
        except TimeoutError:
            logger.warning("an encoder did not finish in %.1f s", CLOSE_TIMEOUT_S)
