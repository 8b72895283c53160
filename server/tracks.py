"""The two tracks a viewer receives, fed from one stream of frames and paced by one clock.

Place in the flow: session -> MediaPump -> (AvatarVideoTrack, AvatarAudioTrack) -> ``sending``, or a ``fan`` of viewers.

One pump takes each ``AvatarFrame`` and hands its picture to one track and its sound to the other in the same step.
Both are encoded at once, on the encoder's threads, while the frame is still ahead of its time; ``next_parcel`` then
only waits for the clock. RTP timestamps are computed from the frame's position, never from the time of day, so that the
two tracks agree to the sample however late the machine was.

An avatar at rest is not encoded: its pictures come from the loop that all sessions share, from where a decoder can
start at on, and its silence is next to no packets. The first frame that is anything else comes from an encoder of its
own again, as a key frame; that costs a few kilobytes and is not seen.

Invariants:
    * ``next_parcel`` raises nothing but ``MediaStreamError`` (anything else ends a sender for good);
    * until somebody receives, nothing is encoded and nothing accumulates;
    * when the machine is short, pictures are dropped before they are encoded (the viewer holds the last one);
      encoded pictures are never dropped, because the next one builds on them;
    * the first picture a viewer gets is a key frame, and so is each at which the pictures' source changes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from typing import Protocol

import av
import cv2
import numpy as np
from aiortc import MediaStreamTrack, RTCRtpSender, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError

from engine.planner import SILENCE
from engine.types import CHUNK_SAMPLES, CHUNKS_PER_FRAME, FPS, FRAME_SAMPLES, AvatarFrame
from server.encoder import (
    KEY_FRAME_INTERVAL_S,
    TICKS_PER_FRAME,
    OpusEncoder,
    VideoCodec,
    VideoEncoder,
    create_video_encoder,
)
from server.encoder_pool import EncoderPool
from server.loop_follower import LoopFollower
from server.pacing import PacedParcels
from server.packing import Dress
from server.rtp import Parcel, pack
from server.silence import NOTHING, REFRESH_FRAMES, Sending, Silence

logger = logging.getLogger(__name__)

FRAME_S = 1 / FPS
CHUNK_S = FRAME_S / CHUNKS_PER_FRAME

READY_LIMIT = 8
"""Encoded pictures that may wait for their time; the producer leads by two."""
WAITING_LIMIT = 2
"""Pictures that may wait for the encoder; older ones are dropped."""
SOUND_LIMIT = 25
"""Encoded 20 ms chunks that may wait: half a second, after which the oldest is lost."""
KEY_FRAME_GAP_S = 0.3
"""Requests that arrive closer together than this are one request: browsers repeat them until the answer arrives."""
FAILURES_LIMIT = 25
"""Pictures in a row that no encoder could be made for or could encode, about a second; then encoding has failed."""
EXPECTED_S = 0.010
"""What encoding may take before it is to blame for a late picture: so long before its time a frame comes."""


class Clock(Protocol):
    """The part of the session's FrameClock that the tracks need."""

    def due_s(self, pts: int) -> float:
        """Monotonic time at which a frame is to leave, seconds."""
        ...


class AvatarVideoTrack(VideoStreamTrack):
    """The picture: takes frames, returns parcels at their time."""

    def __init__(
        self,
        clock: Clock,
        pool: EncoderPool,
        codec: VideoCodec,
        bitrate: int,
        on_dropped: Callable[[], None] | None = None,
        on_encoded: Callable[[float], None] | None = None,
        on_failed: Callable[[], None] | None = None,
        on_hurried: Callable[[bool], None] | None = None,
    ) -> None:
        """
        Args:
            clock: when each frame is due.
            pool: where encoding happens, and whose loops are shown.
            codec: what the peers agreed on.
            bitrate: bits per second at most.
            on_dropped: called for each picture the encoder had no time for.
            on_encoded: called with the seconds each picture took to encode, waiting included.
            on_failed: called once when no picture will come any more, though nobody stopped the track.
            on_hurried: called when pictures begin (True) or cease (False) to be encoded in a hurry.
        """
        super().__init__()
        self._clock = clock
        self._pool = pool
        self._codec: VideoCodec = codec
        self._bitrate = bitrate
        self._on_dropped = on_dropped or (lambda: None)
        self._on_encoded = on_encoded or (lambda _seconds: None)
        self._on_failed = on_failed or (lambda: None)
        self._on_hurried = on_hurried or (lambda _hurried: None)
        self.dress: Dress | None = None
        """What is shown of a frame, called on an encoder's thread; its picture as it is when None."""
        self._failures = 0
        self._encoder: _Begun | None = None
        self._hurried = False
        self._follower = LoopFollower(pool.loops, codec, bitrate, pool.metrics)
        self._pictures: deque[tuple[float, AvatarFrame]] = deque()
        self._encoding = False
        self._work = asyncio.Event()
        self._ready = PacedParcels(READY_LIMIT)
        self._wanted = False
        self._key_wanted = True
        self._key_sent_s = 0.0
        self._task = asyncio.create_task(self._encode_frames(), name="video-track-encode")
        self._task.add_done_callback(self._encoding_ended)

    @property
    def late_s(self) -> float:
        """How long after its time the last picture left, seconds."""
        return self._ready.late_s

    def request_key_frame(self) -> None:
        """Makes the next picture decodable on its own; repeated requests within a moment count once."""
        if time.monotonic() - self._key_sent_s >= KEY_FRAME_GAP_S:
            self._key_wanted = True

    def offer(self, frame: AvatarFrame) -> None:
        """Takes a frame to encode; never blocks. While nobody receives only the newest is kept."""
        if self._follower.follows and not (self._encoding or self._pictures or self._ready.full):
            # No task, no thread: this is what an idle session does 25 times a second.
            if (parcel := self._from_loop(frame)) is not None:
                self._put(parcel, frame)
                return
        limit = WAITING_LIMIT if self._wanted else 1
        while len(self._pictures) >= limit:
            self._pictures.popleft()
            if self._wanted:
                self._on_dropped()
        self._pictures.append((time.monotonic(), frame))
        self._work.set()

    async def recv(self) -> av.Packet:  # type: ignore[override]  # aiortc's base only speaks of frames
        """Nothing: what asks for it is aiortc's own sending, in whose place ``sending`` is."""
        raise MediaStreamError

    async def next_parcel(self) -> tuple[Parcel, int]:
        """The next picture, at its time, and its position in 90 kHz ticks.

        Raises:
            MediaStreamError: the track was stopped.
        """
        self._wanted = True
        if self._pictures:
            # There is somebody to encode for, or room again.
            self._work.set()
        return await self._ready.take()

    def stop(self) -> None:
        """Ends the track; ``next_parcel`` raises from now on."""
        super().stop()
        self._ready.close()
        self._follower.leave()
        # Encoders are large, and what aiortc keeps of a closed connection waits for the garbage collector.
        self._encoder = None
        self._task.cancel()

    async def aclose(self) -> None:
        """Stops and waits for the encoding task; idempotent."""
        self.stop()
        await asyncio.wait([self._task])

    async def _encode_frames(self) -> None:
        while True:
            if not (self._wanted and self._pictures) or self._ready.full:
                self._work.clear()
                await self._work.wait()
                continue
            offered_s, frame = self._pictures.popleft()
            parcel = self._from_loop(frame)
            if parcel is None:
                self._encoding = True
                parcel = await self._encode(frame, offered_s)
                self._encoding = False
            if parcel is not None:
                self._put(parcel, frame)

    def _put(self, parcel: Parcel, frame: AvatarFrame) -> None:
        self._ready.put(parcel, frame.pts * TICKS_PER_FRAME, self._clock.due_s(frame.pts))

    def _from_loop(self, frame: AvatarFrame) -> Parcel | None:
        parcel = self._follower.parcel(frame, self.dress, self._key_wanted)
        if parcel is not None and parcel.key_frame:
            # The encoder's references are not what the viewer has any more.
            self._encoder = None
            self._key_wanted, self._key_sent_s = False, time.monotonic()
        return parcel

    async def _encode(self, frame: AvatarFrame, offered_s: float) -> Parcel | None:
        started_s, due_s = time.monotonic(), self._clock.due_s(frame.pts)
        before, dress = self._encoder, self.dress
        if before is None or self._key_wanted or before.pictures >= KEY_FRAME_INTERVAL_S * FPS:
            # A new encoder's first picture is better than a key frame that is asked of an old one, and it may hurry.
            before, self._key_wanted, self._key_sent_s = None, False, started_s
        try:
            begun, parcel = await self._pool.video(lambda: self._encode_on_thread(frame, dress, before), due_s)
        except (av.FFmpegError, cv2.error, ValueError):
            # One picture is lost and the next comes from a fresh encoder; the viewer sees a held picture.
            self._failures += 1
            if self._failures >= FAILURES_LIMIT:
                raise
            logger.exception("encoding a picture failed")
            self._encoder = None
            self._on_dropped()
            return None
        self._encoder = begun
        self._failures = 0
        now_s = time.monotonic()
        self._pool.pressure.encoded(now_s - max(due_s, offered_s + EXPECTED_S), now_s, held=frame.held)
        self._on_encoded(now_s - started_s)
        if begun.hurried != self._hurried:
            self._hurried = begun.hurried
            self._on_hurried(self._hurried)
        return parcel

    def _encode_on_thread(
        self, frame: AvatarFrame, dress: Dress | None, begun: _Begun | None
    ) -> tuple[_Begun, Parcel]:
        image = frame.image if dress is None else dress(frame)
        size = (image.shape[1], image.shape[0])
        if begun is None or begun.size != size:
            hurried = self._pool.pressure.hurried
            encoder = create_video_encoder(self._codec, *size, self._bitrate, hurried=hurried, h264=self._pool.h264)
            begun = _Begun(encoder, size, hurried)
        begun.pictures += 1
        packet = begun.encoder.encode(image, frame.pts, False)
        return begun, pack(self._codec, bytes(packet), bool(packet.is_keyframe))

    def _encoding_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        logger.error("pictures are not encoded any more", exc_info=task.exception())
        self._ready.close()
        self._on_failed()


@dataclass(slots=True)
class _Begun:
    """An encoder at work, and how many pictures it has had."""

    encoder: VideoEncoder
    size: tuple[int, int]
    hurried: bool
    pictures: int = 0


class AvatarAudioTrack(MediaStreamTrack):
    """The sound: takes frames, returns Opus packets of 20 ms at their time, and few of them where there is none."""

    kind = "audio"

    def __init__(self, clock: Clock, pool: EncoderPool) -> None:
        """Args: clock: when each frame is due; pool: where encoding happens."""
        super().__init__()
        self._clock = clock
        self._pool = pool
        self._encoder: OpusEncoder | None = None
        self._silence = Silence()
        self._nothing = Parcel((NOTHING,))
        self._ready = PacedParcels(SOUND_LIMIT)
        self._wanted = False

    @property
    def late_s(self) -> float:
        """How long after its time the last 20 ms left, seconds."""
        return self._ready.late_s

    async def offer(self, frame: AvatarFrame) -> None:
        """Encodes a frame's sound; about half a millisecond. While nobody receives it is dropped.

        Raises:
            av.FFmpegError: the codec refused the sound.
        """
        if not self._wanted:
            return
        sending = self._silence.take(frame.audio is SILENCE or not frame.audio.any())
        if sending is Sending.NONE:
            return
        first, due_s = frame.pts * FRAME_SAMPLES, self._clock.due_s(frame.pts)
        if sending is Sending.NOTHING_NEW:
            self._pool.metrics.sound_spared.inc(REFRESH_FRAMES * CHUNKS_PER_FRAME - 1)
            # The decoder begins anew as well; an encoder has threads of its own, and most sessions are silent.
            self._encoder = None
            self._ready.put(self._nothing, first, due_s)
            return
        for index, parcel in enumerate(await self._pool.audio(lambda: self._encode(frame.audio, first))):
            self._ready.put(parcel, first + index * CHUNK_SAMPLES, due_s + index * CHUNK_S)

    def _encode(self, audio: np.ndarray, first: int) -> list[Parcel]:
        encoder = self._encoder = self._encoder or OpusEncoder()
        return [
            pack("opus", bytes(encoder.encode(audio[at : at + CHUNK_SAMPLES], first + at)))
            for at in range(0, FRAME_SAMPLES, CHUNK_SAMPLES)
        ]

    async def recv(self) -> av.Packet:
        """Nothing, as of the picture."""
        raise MediaStreamError

    async def next_parcel(self) -> tuple[Parcel, int]:
        """The next 20 ms, at their time, and their position in samples at 48 kHz.

        Raises:
            MediaStreamError: the track was stopped.
        """
        self._wanted = True
        return await self._ready.take()

    def stop(self) -> None:
        """Ends the track; ``next_parcel`` raises from now on."""
        super().stop()
        self._ready.close()
        # It has threads of its own.
        self._encoder = None


def route_key_frame_requests(sender: RTCRtpSender, track: AvatarVideoTrack) -> None:
    """Makes a browser's PLI and FIR reach our encoder.

    aiortc's sender answers them by marking its own encoder, which never runs here because we hand it packets. Its
    RTCP handler calls ``_send_keyframe`` on itself, so an attribute of the instance takes the call over.

    Raises:
        AttributeError: this aiortc has no such method; lost pictures would never be repaired.
    """
    if not callable(sender._send_keyframe):
        raise AttributeError("aiortc's RTCRtpSender._send_keyframe is gone")
    sender._send_keyframe = track.request_key_frame  # type: ignore[method-assign]


class MediaPump:
    """Takes a session's frames and hands picture and sound of each to the two tracks."""

    def __init__(self, frames: AsyncIterable[AvatarFrame], video: AvatarVideoTrack, audio: AvatarAudioTrack) -> None:
        """Args: frames: the session; video, audio: where they go."""
        self._frames = frames
        self._video = video
        self._audio = audio
        self.watcher: Callable[[AvatarFrame], None] | None = None
        """Is shown every frame too; must return at once."""

    async def run(self) -> None:
        """Pumps until the session ends. Cancellation loses at most one frame."""
        async for frame in self._frames:
            if self.watcher is not None:
                self.watcher(frame)
            self._video.offer(frame)
            await self._audio.offer(frame)
