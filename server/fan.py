"""One session's pictures and sound for any number of takers: encoded once per codec, handed out in one loop.

Place in the flow: session -> Peer or Audience -> ``Fan.offer`` -> tracks -> parcels -> ``Feed`` of each taker.

A hundred coroutines that each wake up for each parcel would cost more than the packets; here one loop per codec wakes
up and calls everybody.

Invariants:
    * nothing is encoded in a codec that nobody takes;
    * pictures begin with a key frame for everybody who joins;
    * however many join, key frames stay ``JOIN_GAP_S`` apart, those made because packets were lost ``LOSS_GAP_S``, and
      who asks without end is heard ever more seldom: nobody's bad line spoils the others' pictures;
    * who takes parcels never waits; one that raises ConnectionError is let go, and only that one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from aiortc import RTCRtpSender
from aiortc.mediastreams import MediaStreamError

from engine.types import AvatarFrame
from server.encoder import VideoCodec
from server.encoder_pool import EncoderPool
from server.rtp import Codec, Parcel
from server.sending import ParcelTrack, RtpStream, take_over
from server.tracks import AvatarAudioTrack, AvatarVideoTrack, Clock

logger = logging.getLogger(__name__)

JOIN_GAP_S = 0.5
LOSS_GAP_S = 1.0
ANSWER_S = 1.0
"""A key frame that was asked for and has not come by then is asked for again."""
EARLY_S = 0.03
"""Most of a frame: a steady key frame comes rather early than late."""
QUIET_S = 15.0
"""Who has asked for nothing for so long is heard at once again."""
LONGEST_PATIENCE_S = 16.0
BATCH = 64
"""Takers served before other work has its turn; about three milliseconds."""
SOUND_LIMIT = 25
"""Frames whose sound may wait for the encoder: a second."""

Deliver = Callable[[Parcel, int, float], None]
"""Takes a parcel, its time stamp in units of the codec's clock, and how late it is, seconds."""


class Fan:
    """What of a session others than its own browser get."""

    def __init__(
        self,
        clock: Clock,
        pool: EncoderPool,
        bitrate: int,
        on_encoded: Callable[[float], None] = lambda seconds: None,
        on_dropped: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            clock: when each frame is due.
            pool: where encoding happens.
            bitrate: of pictures, bits per second.
            on_encoded: called with the seconds each picture took.
            on_dropped: called for each picture the encoder had no time for.
        """
        self._clock = clock
        self._pool = pool
        self._bitrate = bitrate
        self._on_encoded = on_encoded
        self._on_dropped = on_dropped
        self._sources: dict[Codec, _Pictures | _Sound] = {}
        self.keepers: set[object] = set()
        """Who needs the session though nothing is taken just now: an output between two connections."""

    @property
    def is_wanted(self) -> bool:
        """Whether anybody takes anything, or will."""
        return bool(self._sources or self.keepers)

    @property
    def codecs(self) -> list[Codec]:
        """What is encoded at the moment."""
        return list(self._sources)

    def offer(self, frame: AvatarFrame) -> None:
        """Takes a frame; never blocks."""
        for source in self._sources.values():
            source.offer(frame)

    def subscribe(self, codec: Codec, deliver: Deliver, key_frame_s: float | None = None) -> Feed:
        """Hands somebody everything from the next key frame on, each parcel when it is due.

        Args:
            codec: in which.
            deliver: called on the event loop; must return at once.
            key_frame_s: a key frame at least so often, seconds, for somebody who hands the pictures to others.
        """
        source = self._sources.get(codec)
        if source is None:
            source = self._sources[codec] = self._encode_in(codec)
        feed = Feed(source, deliver, key_frame_s, waits=isinstance(source, _Pictures))
        source.join(feed)
        return feed

    async def aclose(self) -> None:
        """Ends all feeds and stops encoding; idempotent."""
        await asyncio.gather(*(source.aclose() for source in list(self._sources.values())))

    def _encode_in(self, codec: Codec) -> _Pictures | _Sound:
        def forget() -> None:
            self._sources.pop(codec, None)

        if codec == "opus":
            return _Sound(AvatarAudioTrack(self._clock, self._pool), forget)
        return _Pictures(self._video_track(codec), forget)

    def _video_track(self, codec: VideoCodec) -> AvatarVideoTrack:
        return AvatarVideoTrack(
            self._clock, self._pool, codec, self._bitrate, on_dropped=self._on_dropped, on_encoded=self._on_encoded
        )


class Feed:
    """What one taker gets of one kind."""

    def __init__(self, source: _Source, deliver: Deliver, key_frame_s: float | None, *, waits: bool) -> None:
        """
        Args:
            source: of the parcels.
            deliver: who takes them.
            key_frame_s: how often a key frame is needed at least; None when only to begin with.
            waits: begin with a key frame.
        """
        self._source = source
        self._deliver = deliver
        self.key_frame_s = key_frame_s
        self.is_waiting = waits
        """Whether it has yet to get its first key frame."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when no more will come."""
        self._asked_s = self._heard_s = -math.inf
        self._patience_s = 0.0

    def request_key_frame(self) -> None:
        """Asks for a picture that a decoder can start at, because packets were lost."""
        if self.is_waiting or self.ended.done():
            return
        now_s = time.monotonic()
        # By every request, heard or not: who is kept waiting and goes on asking has not been quiet.
        was_quiet = now_s - self._asked_s >= QUIET_S
        self._asked_s = now_s
        if was_quiet:
            self._patience_s = LOSS_GAP_S
        elif now_s - self._heard_s >= self._patience_s:
            self._patience_s = min(2 * self._patience_s, LONGEST_PATIENCE_S)
        else:
            return
        self._heard_s = now_s
        self._source.want_key_frame(LOSS_GAP_S)

    def close(self) -> None:
        """Takes no more; idempotent."""
        if not self.ended.done():
            self.ended.set_result(None)
            self._source.leave(self)

    def take(self, parcel: Parcel, timestamp: int, late_s: float) -> None:
        """Hands on what the source has."""
        if self.ended.done() or (self.is_waiting and not parcel.key_frame):
            return
        self.is_waiting = False
        try:
            self._deliver(parcel, timestamp, late_s)
        except ConnectionError:
            self.close()
        except Exception:
            logger.exception("a taker of a broadcast failed")
            self.close()


class _Source:
    """One codec of a fan."""

    def __init__(self, track: ParcelTrack, forget: Callable[[], None]) -> None:
        """Args: track: makes the parcels; forget: called when nobody takes them any more."""
        self._track = track
        self._forget = forget
        self._feeds: dict[Feed, None] = {}
        self._task = asyncio.create_task(self._run(), name="fan")
        self._closing: asyncio.Task[None] | None = None

    def join(self, feed: Feed) -> None:
        self._feeds[feed] = None

    def leave(self, feed: Feed) -> None:
        self._feeds.pop(feed, None)
        if not self._feeds and self._closing is None:
            self._forget()
            self._closing = asyncio.create_task(self._close(), name="fan-close")

    def want_key_frame(self, gap_s: float) -> None:
        """Sound has none."""

    def passing(self, parcel: Parcel) -> None:
        """Sees each parcel before it goes out."""

    async def aclose(self) -> None:
        for feed in list(self._feeds):
            feed.close()
        if self._closing is not None:
            await asyncio.wait([self._closing])

    async def _close(self) -> None:
        self._track.stop()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while True:
                parcel, timestamp = await self._track.next_parcel()
                late_s = self._track.late_s
                self.passing(parcel)
                for index, feed in enumerate(list(self._feeds)):
                    if index and index % BATCH == 0:
                        await asyncio.sleep(0)
                    feed.take(parcel, timestamp, late_s)
        except MediaStreamError:
            pass
        except Exception:
            logger.exception("a broadcast's parcels ended")
        for feed in list(self._feeds):
            feed.close()


class _Pictures(_Source):
    def __init__(self, track: AvatarVideoTrack, forget: Callable[[], None]) -> None:
        super().__init__(track, forget)
        self._pictures = track
        self._key_s = -JOIN_GAP_S
        self._asked_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, frame: AvatarFrame) -> None:
        self._pictures.offer(frame)

    def join(self, feed: Feed) -> None:
        super().join(feed)
        self.want_key_frame(JOIN_GAP_S)

    def want_key_frame(self, gap_s: float) -> None:
        """Asks for one, at once or when the last one is long enough ago; the earliest wish counts."""
        loop = asyncio.get_running_loop()
        at_s = max(loop.time(), self._key_s + gap_s)
        if self._timer is not None and self._timer.when() > at_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = loop.call_at(at_s, self._ask)

    def passing(self, parcel: Parcel) -> None:
        now_s = asyncio.get_running_loop().time()
        if parcel.key_frame:
            self._key_s = now_s
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None and now_s - self._asked_s > ANSWER_S and self._is_due(now_s - self._key_s + EARLY_S):
            self._ask()

    def _is_due(self, since_s: float) -> bool:
        """Whether somebody waits for a key frame, or needs them more often than this one came."""
        return any(feed.is_waiting or (feed.key_frame_s or math.inf) <= since_s for feed in self._feeds)

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await super()._close()
        await self._pictures.aclose()

    def _ask(self) -> None:
        self._timer = None
        self._asked_s = asyncio.get_running_loop().time()
        self._pictures.request_key_frame()


class _Sound(_Source):
    def __init__(self, track: AvatarAudioTrack, forget: Callable[[], None]) -> None:
        self._frames: asyncio.Queue[AvatarFrame] = asyncio.Queue(SOUND_LIMIT)
        self._sound = track
        super().__init__(track, forget)
        self._encoding = asyncio.create_task(self._encode(), name="fan-sound")

    def offer(self, frame: AvatarFrame) -> None:
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(frame)

    async def _close(self) -> None:
        self._encoding.cancel()
        await asyncio.wait([self._encoding])
        await super()._close()

    async def _encode(self) -> None:
        try:
            while True:
                await self._sound.offer(await self._frames.get())
        except Exception:
            logger.exception("a broadcast's sound ended")
            self._sound.stop()


def send_fan(
    sender: RTCRtpSender,
    fan: Fan,
    codec: Codec,
    key_frame_s: float | None = None,
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """Makes a sender send what a fan has, and ask it for key frames; call it before the connection starts.

    Args:
        sender: of whom it is sent.
        fan: what is sent.
        codec: in which.
        key_frame_s: as ``Fan.subscribe`` has it.
        on_end: called when no more will be sent.

    Raises:
        AttributeError: this aiortc works another way.
    """

    async def work(stream: RtpStream) -> None:
        feed = fan.subscribe(codec, stream.send, key_frame_s)
        sender._send_keyframe = feed.request_key_frame  # type: ignore[method-assign]
        try:
            await asyncio.shield(feed.ended)
        finally:
            feed.close()

    take_over(sender, work, on_end)
