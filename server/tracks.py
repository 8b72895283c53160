"""The two tracks a viewer receives, fed from one stream of frames and paced by one clock.

Place in the flow: session -> MediaPump -> (AvatarVideoTrack, AvatarAudioTrack) -> aiortc senders.

One pump takes each ``AvatarFrame`` and hands its picture to one track and its sound to the other in the same step.
Both are encoded at once, on the encoder's threads, while the frame is still ahead of its time; ``recv`` then only
waits for the clock. RTP timestamps are computed from the frame's position, never from the time of day, so that the
two tracks agree to the sample however late the machine was.

Invariants:
    * ``recv`` raises nothing but ``MediaStreamError`` (anything else ends an aiortc sender for good);
    * until somebody receives, nothing is encoded and nothing accumulates;
    * when the machine is short, pictures are dropped before they are encoded (the viewer holds the last one);
      encoded pictures are never dropped, because the next one builds on them;
    * the first picture a viewer gets is a key frame.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterable, Callable
from typing import Protocol

import av
import cv2
import numpy as np
from aiortc import MediaStreamTrack, RTCRtpSender, VideoStreamTrack
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket

from engine.types import CHUNK_SAMPLES, CHUNKS_PER_FRAME, FPS, FRAME_SAMPLES, AvatarFrame
from server.encoder import EncoderPool, OpusEncoder, VideoCodec, VideoEncoder, create_video_encoder

logger = logging.getLogger(__name__)

FRAME_S = 1 / FPS
CHUNK_S = FRAME_S / CHUNKS_PER_FRAME

READY_LIMIT = 8
"""Encoded pictures that may wait for their time; the producer leads by two."""
WAITING_LIMIT = 2
"""Pictures that may wait for the encoder; older ones are dropped."""
SOUND_LIMIT = 25
"""Encoded 20 ms chunks that may wait: half a second, after which the oldest is lost."""
NTP_SECOND = 1 << 32
"""Units of an NTP timestamp in a second (RFC 3550, 4)."""
KEY_FRAME_GAP_S = 0.3
"""Requests that arrive closer together than this are one request: browsers repeat them until the answer arrives."""
FAILURES_LIMIT = 25
"""Pictures in a row that no encoder could be made for or could encode, about a second; then encoding has failed."""


class Clock(Protocol):
    """The part of the session's FrameClock that the tracks need."""

    def due_s(self, pts: int) -> float:
        """Monotonic time at which a frame is to leave, seconds."""
        ...


class PacedPackets:
    """Encoded packets that wait for their time. One reader."""

    def __init__(self, limit: int) -> None:
        """Args: limit: packets held; ``put`` beyond it loses the oldest, so ask ``full`` where that matters."""
        self._packets: deque[tuple[float, av.Packet]] = deque(maxlen=limit)
        self._arrived = asyncio.Event()
        self._closed = asyncio.Event()
        self.late_s = 0.0
        """How long after its time the last packet left, seconds."""

    @property
    def full(self) -> bool:
        """Whether the next ``put`` would lose a packet."""
        return len(self._packets) == self._packets.maxlen

    def put(self, packet: av.Packet, due_s: float) -> None:
        """Adds a packet that is to leave at a monotonic time, seconds."""
        self._packets.append((due_s, packet))
        self._arrived.set()

    async def take(self) -> av.Packet:
        """The oldest packet, at its time; at once when that has passed.

        Raises:
            MediaStreamError: closed, before or during the wait.
        """
        while not self._packets:
            if self._closed.is_set():
                raise MediaStreamError
            self._arrived.clear()
            await self._arrived.wait()
        due_s, packet = self._packets.popleft()
        if due_s > time.monotonic():
            try:
                # The loop's clock is the monotonic one.
                async with asyncio.timeout_at(due_s):
                    await self._closed.wait()
            except TimeoutError:
                pass
        if self._closed.is_set():
            raise MediaStreamError
        self.late_s = max(0.0, time.monotonic() - due_s)
        return packet

    def close(self) -> None:
        """Wakes the reader and forgets what waits."""
        self._packets.clear()
        self._closed.set()
        self._arrived.set()


class AvatarVideoTrack(VideoStreamTrack):
    """The picture: takes frames, returns encoded packets at their time."""

    def __init__(
        self,
        clock: Clock,
        pool: EncoderPool,
        codec: VideoCodec,
        bitrate: int,
        on_dropped: Callable[[], None] | None = None,
        on_encoded: Callable[[float], None] | None = None,
        on_failed: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            clock: when each frame is due.
            pool: where encoding happens.
            codec: what the peers agreed on.
            bitrate: bits per second.
            on_dropped: called for each picture the encoder had no time for.
            on_encoded: called with the seconds each picture took to encode, waiting included.
            on_failed: called once when no picture will come any more, though nobody stopped the track.
        """
        super().__init__()
        self._clock = clock
        self._pool = pool
        self._codec = codec
        self._bitrate = bitrate
        self._on_dropped = on_dropped or (lambda: None)
        self._on_encoded = on_encoded or (lambda _seconds: None)
        self._on_failed = on_failed or (lambda: None)
        self.dress: Callable[[AvatarFrame], np.ndarray] | None = None
        """What is shown of a frame, called on an encoder's thread; its picture as it is when None."""
        self._failures = 0
        self._encoder: VideoEncoder | None = None
        self._encoder_size = (0, 0)
        self._pictures: deque[AvatarFrame] = deque()
        self._work = asyncio.Event()
        self._ready = PacedPackets(READY_LIMIT)
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
        limit = WAITING_LIMIT if self._wanted else 1
        while len(self._pictures) >= limit:
            self._pictures.popleft()
            if self._wanted:
                self._on_dropped()
        self._pictures.append(frame)
        self._work.set()

    async def recv(self) -> av.Packet:  # type: ignore[override]  # aiortc's base only speaks of frames
        """The next encoded picture, at its time.

        Raises:
            MediaStreamError: the track was stopped.
        """
        self._wanted = True
        self._work.set()
        return await self._ready.take()

    def stop(self) -> None:
        """Ends the track; ``recv`` raises from now on."""
        super().stop()
        self._ready.close()
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
            frame = self._pictures.popleft()
            packet = await self._encode(frame)
            if packet is not None:
                self._ready.put(packet, self._clock.due_s(frame.pts))

    async def _encode(self, frame: AvatarFrame) -> av.Packet | None:
        started_s = time.monotonic()
        dress = self.dress
        try:
            image = frame.image if dress is None else await self._pool.video(lambda: dress(frame))
            size = (image.shape[1], image.shape[0])
            if self._encoder is None or size != self._encoder_size:
                self._encoder = create_video_encoder(self._codec, *size, self._bitrate)
                self._encoder_size = size
                self._key_wanted = True
            encoder, key_frame = self._encoder, self._key_wanted
            if key_frame:
                self._key_wanted = False
                self._key_sent_s = started_s
            packet = await self._pool.video(lambda: encoder.encode(image, frame.pts, key_frame))
        except (av.FFmpegError, cv2.error, ValueError):
            # One picture is lost and the next comes from a fresh encoder; the viewer sees a held picture.
            self._failures += 1
            if self._failures >= FAILURES_LIMIT:
                raise
            logger.exception("encoding a picture failed")
            self._encoder = None
            self._on_dropped()
            return None
        self._failures = 0
        self._on_encoded(time.monotonic() - started_s)
        return packet

    def _encoding_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        logger.error("pictures are not encoded any more", exc_info=task.exception())
        self._ready.close()
        self._on_failed()


class AvatarAudioTrack(MediaStreamTrack):
    """The sound: takes frames, returns Opus packets of 20 ms at their time."""

    kind = "audio"

    def __init__(self, clock: Clock, pool: EncoderPool) -> None:
        """Args: clock: when each frame is due; pool: where encoding happens."""
        super().__init__()
        self._clock = clock
        self._pool = pool
        self._encoder = OpusEncoder()
        self._ready = PacedPackets(SOUND_LIMIT)
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
        due_s = self._clock.due_s(frame.pts)
        for index, packet in enumerate(await self._pool.audio(lambda: self._encode(frame))):
            self._ready.put(packet, due_s + index * CHUNK_S)

    def _encode(self, frame: AvatarFrame) -> list[av.Packet]:
        first = frame.pts * FRAME_SAMPLES
        return [
            self._encoder.encode(frame.audio[at : at + CHUNK_SAMPLES], first + at)
            for at in range(0, FRAME_SAMPLES, CHUNK_SAMPLES)
        ]

    async def recv(self) -> av.Packet:
        """The next 20 ms, at its time.

        Raises:
            MediaStreamError: the track was stopped.
        """
        self._wanted = True
        return await self._ready.take()

    def stop(self) -> None:
        """Ends the track; ``recv`` raises from now on."""
        super().stop()
        self._ready.close()


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


def report_due_times(sender: RTCRtpSender, track: AvatarVideoTrack | AvatarAudioTrack) -> None:
    """Makes RTCP sender reports tell when a packet was due instead of when it was sent.

    A browser aligns sound and picture by these reports. aiortc stamps them with the time of sending, so a picture that
    left late because the machine was busy would count as taken late, and be shown late beside its own sound. Both
    tracks are due by one clock: with its times in the reports, lateness is seen for what it is and evened out.

    Raises:
        AttributeError: this aiortc sends its reports another way.
    """
    send = sender._send_rtcp

    async def send_corrected(packets: list[AnyRtcpPacket]) -> None:
        for packet in packets:
            # Zero until the first packet was sent.
            if isinstance(packet, RtcpSrPacket) and packet.sender_info.ntp_timestamp:
                packet.sender_info.ntp_timestamp -= int(track.late_s * NTP_SECOND)
        await send(packets)

    sender._send_rtcp = send_corrected  # type: ignore[method-assign]


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
