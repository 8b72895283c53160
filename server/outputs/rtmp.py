"""RTMP: a session's own H.264 in FLV's clothes, with its sound as AAC, to one server.

Place in the flow: Fan (pictures), watchers (sound) -> ``RtmpDelivery`` -> ``RtmpConnection``.

Invariants:
    * pictures are those that viewers get, encoded once; only sound is encoded here, on the encoders' threads;
    * pictures and sound are stamped with their places in the session, never with the time of day;
    * a server that is too slow loses pictures up to a key frame; one that takes nothing for ``STALL_S`` is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.aio import DropOldest
from engine.errors import BackendFailed, Closed
from engine.types import FRAME_MS, FRAME_SAMPLES, PLAYOUT_RATE, AvatarFrame
from server.encoder import TICKS_PER_FRAME
from server.encoder_pool import EncoderPool
from server.outputs import flv
from server.outputs.aac import LEAD_SAMPLES, AacEncoder
from server.outputs.base import KEY_FRAME_S, Kind, Shown
from server.outputs.rtmp_connection import AUDIO, DATA, VIDEO, Address, RtmpConnection
from server.rtp import Parcel

STALL_S = 5.0
"""A server that is behind for so long is left and asked again."""
BEHIND_S = 1.5
"""Sound and pictures that may wait in our socket before pictures are left out."""
SOCKET_BYTES = 1 << 17
"""The system's own buffer; what lies there is not seen, so it must not be long."""
FIRST_PICTURE_TIMEOUT_S = 10.0
FRAMES_LIMIT = 25
LEAD_MS = LEAD_SAMPLES * 1000 // PLAYOUT_RATE


class RtmpDelivery:
    """To one address, again and again."""

    kind: Kind = "rtmp"

    def __init__(self, url: str, pool: EncoderPool, video_bitrate: int) -> None:
        """Args: url: ``rtmp://host/application/key`` or ``rtmps:``; pool: where sound is encoded; video_bitrate: bits
        per second."""
        self._address = Address.parse(url)
        self._pool = pool
        self._video_bitrate = video_bitrate
        self._connection: RtmpConnection | None = None
        self._sent_before = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far, over all connections."""
        return self._sent_before + (self._connection.sent_bytes if self._connection is not None else 0)

    async def deliver(self, shown: Shown, live: Callable[[], None]) -> None:
        """As ``Delivery`` has it."""
        self._connection = connection = await RtmpConnection.open(self._address)
        stream = _Stream(connection, self._pool, self._video_bitrate, live)
        feed = None
        try:
            connection.limit(SOCKET_BYTES)
            shown.watchers.add(stream.take_frame)
            feed = shown.fan.subscribe("H264", stream.take_picture, KEY_FRAME_S)
            await stream.run(feed.ended)
        finally:
            shown.watchers.discard(stream.take_frame)
            if feed is not None:
                feed.close()
            self._sent_before, self._connection = self.sent_bytes, None
            await connection.aclose()


class _Stream:
    """What goes over one connection."""

    def __init__(
        self, connection: RtmpConnection, pool: EncoderPool, video_bitrate: int, live: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._video_bitrate = video_bitrate
        self._live = live
        self._frames: DropOldest[AvatarFrame] = DropOldest(FRAMES_LIMIT)
        self._size = (0, 0)
        self._header: bytes | None = None
        self._first = -1
        self._begun = asyncio.Event()
        self._stalled = asyncio.Event()
        self._behind_bytes = int((video_bitrate + flv.AUDIO_KBPS * 1000) / 8 * BEHIND_S)
        self._behind_s: float | None = None
        self._incomplete = False

    def take_frame(self, frame: AvatarFrame) -> None:
        """Takes a frame for its sound."""
        height, width = frame.image.shape[:2]
        self._size = (width & ~1, height & ~1)
        self._frames.put(frame)

    def take_picture(self, parcel: Parcel, timestamp: int, _late_s: float) -> None:
        """Sends a picture, if the server keeps up."""
        pts = timestamp // TICKS_PER_FRAME
        if self._first < 0:
            if not parcel.key_frame or not any(self._size):
                return
            self._first = pts
            self._begun.set()
            self._connection.send(DATA, 0, flv.about(*self._size, self._video_bitrate))
        if not self._keeps_up():
            self._incomplete = True
        elif parcel.key_frame or not self._incomplete:
            # What was left out is missing in everything up to the next key frame.
            self._incomplete = False
            self._send(parcel, (pts - self._first) * FRAME_MS + LEAD_MS)

    async def run(self, session_ended: asyncio.Future[None]) -> None:
        """Sends until the connection, or the session, is over.

        Raises:
            BackendFailed: it is.
        """
        try:
            async with asyncio.timeout(FIRST_PICTURE_TIMEOUT_S):
                await self._begun.wait()
        except TimeoutError:
            raise BackendFailed("publish_lost", "The session shows nothing.") from None
        if self._connection.ended.done():
            raise self._connection.ended.result()
        self._live()
        works: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._send_sound(), name="rtmp-sound"),
            asyncio.create_task(self._stalled.wait(), name="rtmp-stalled"),
        }
        try:
            ends: set[asyncio.Future[Any]] = {*works, self._connection.ended, session_ended}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._frames.close()
            for work in works:
                work.cancel()
            await asyncio.wait(works)
        for work in works:
            if not work.cancelled() and (error := work.exception()) is not None:
                raise error
        if self._stalled.is_set():
            raise BackendFailed("publish_stalled", f"The server has taken nothing for {STALL_S:.0f} s.")
        if self._connection.ended.done():
            raise self._connection.ended.result()

    async def _send_sound(self) -> None:
        encoder = await self._pool.audio(AacEncoder)
        self._connection.send(AUDIO, 0, flv.sound_header(encoder.config))
        while True:
            try:
                frame = await self._frames.get()
            except Closed:
                return
            if frame.pts < self._first:
                continue
            for packet in await self._pool.audio(partial(encoder.encode, frame.audio, frame.pts)):
                time_ms = round((packet.at - self._first * FRAME_SAMPLES) * 1000 / PLAYOUT_RATE)
                # While pictures are left out, sound is what little the server gets.
                if self._connection.backlog < 2 * self._behind_bytes:
                    self._connection.send(AUDIO, time_ms, flv.sound(packet.data))

    def _send(self, parcel: Parcel, time_ms: int) -> None:
        units = flv.nal_units(parcel.payloads)
        header = flv.picture_header(units) if parcel.key_frame else None
        if header is not None and header != self._header:
            self._header = header
            self._connection.send(VIDEO, time_ms, header)
        self._connection.send(VIDEO, time_ms, flv.picture(units, parcel.key_frame))

    def _keeps_up(self) -> bool:
        """Whether the server has taken enough to be sent another picture."""
        backlog, now_s = self._connection.backlog, time.monotonic()
        if self._behind_s is None:
            if backlog <= self._behind_bytes:
                return True
            self._behind_s = now_s
        elif backlog <= self._behind_bytes // 4:
            self._behind_s = None
            return True
        elif now_s - self._behind_s > STALL_S:
            self._stalled.set()
        return False
