"""One browser's WebRTC connection: tracks out, microphone in, data channel beside, and the eye on whether it lives.

Place in the flow: offer -> ``Peer.answer`` -> tasks between ``Session`` and aiortc -> ``ended``.

Invariants:
    * a peer owns its connection, its tracks and every task it starts, and ``aclose`` ends them all;
    * whatever goes wrong inside, the outside sees one thing: ``ended`` with a reason;
    * it never closes the session it shows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from aiortc import MediaStreamTrack, RTCIceCandidate, RTCPeerConnection

from engine.avatar.bundle import Avatar
from engine.avatar.matte_file import Matte
from engine.errors import BackendFailed, InvalidInput
from engine.session import Session
from engine.types import AvatarFrame
from server import signaling
from server.channel import ControlChannel
from server.countdown import Countdown
from server.encoder import EncoderPool
from server.manner import Manner
from server.metrics import EndReason, ServerMetrics
from server.microphone import Microphone, skip_jitter_buffer
from server.packing import Dress, Packing
from server.tracks import AvatarAudioTrack, AvatarVideoTrack, MediaPump, report_due_times, route_key_frame_requests

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 1.5
SETTLED_S = 5.0
"""A connection whose state has not changed for so long starts nothing any more."""


async def no_matte(avatar: Avatar) -> Matte:
    """For servers that show everybody as filmed. Raises BackendFailed ``matte_failed``."""
    raise BackendFailed("matte_failed", f"This server shows {avatar.title} as filmed.")


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How peers connect and how long they may be silent.

    Attributes:
        ice_servers: STUN and TURN servers in the browser's own form, with credentials for one peer; none by default.
        video_codec: ``auto``, ``h264`` or ``vp8``.
        video_bitrate: bits per second.
        connect_timeout_s: from the answer to a connection.
        heartbeat_timeout_s: silence after which a browser has vanished.
        return_timeout_s: how long a session waits for a browser that was lost.
        idle_timeout_s: time without speech after which nobody needs the session any more.
        matte: makes or fetches the matte of an avatar.
    """

    ice_servers: Callable[[], Sequence[dict[str, Any]]] = tuple
    video_codec: str = "auto"
    video_bitrate: int = 1_500_000
    connect_timeout_s: float = 15.0
    heartbeat_timeout_s: float = 4.0
    return_timeout_s: float = 30.0
    idle_timeout_s: float = 300.0
    matte: Callable[[Avatar], Awaitable[Matte]] = no_matte


class Peer:
    """A browser that watches one session."""

    def __init__(
        self,
        session: Session,
        manner: Manner,
        session_id: str,
        pool: EncoderPool,
        options: PeerOptions,
        metrics: ServerMetrics,
    ) -> None:
        """
        Args:
            session: what it shows; started, and not closed by the peer.
            manner: how it answers.
            session_id: told to the browser.
            pool: where pictures and sound are encoded.
            options: how to connect.
            metrics: where to count.
        """
        self._session = session
        self._pool = pool
        self._options = options
        self._metrics = metrics
        self.channel = ControlChannel(session, manner, session_id, lambda: self._end(EndReason.CLOSED))
        self.packing = Packing(lambda: options.matte(session.avatar), self._wear, self.channel.send)
        self.channel.on_background = self.packing.choose
        self.ended: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        """Done when the peer is of no more use; the first reason counts."""
        self._connected = asyncio.Event()
        self._connection = RTCPeerConnection(signaling.rtc_configuration(options.ice_servers()))
        self._video: AvatarVideoTrack | None = None
        self._audio: AvatarAudioTrack | None = None
        self._pump: MediaPump | None = None
        self.watcher: Callable[[AvatarFrame], None] | None = None
        """Who is shown every frame beside the browser."""
        self._candidates = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._microphones = 0
        self._changed_s = time.monotonic()

    async def answer(self, offer: signaling.Offer) -> signaling.Description:
        """Negotiates and starts to work. On any error, call ``aclose``.

        Raises:
            OfferInvalid: ``offer_invalid``.
        """
        codec = signaling.choose_video_codec(offer, self._options.video_codec)
        self._video = video = AvatarVideoTrack(
            self._session.clock,
            self._pool,
            codec,
            self._options.video_bitrate,
            on_dropped=self._metrics.pictures_dropped.inc,
            on_encoded=self._encoded,
            on_failed=lambda: self._end(EndReason.FAILED),
        )
        video.dress = self.packing.dress
        self._audio = audio = AvatarAudioTrack(self._session.clock, self._pool)
        self._connection.on("connectionstatechange", self._on_state)
        self._connection.on("datachannel", self.channel.attach)
        self._connection.on("track", self._on_track)
        description = await signaling.answer(self._connection, offer, codec, video, audio if offer.has_audio else None)
        for transceiver in self._connection.getTransceivers():
            if transceiver.sender.track is video:
                report_due_times(transceiver.sender, video)
                route_key_frame_requests(transceiver.sender, video)
            elif transceiver.sender.track is audio:
                report_due_times(transceiver.sender, audio)
                skip_jitter_buffer(transceiver.receiver)
        self._pump = MediaPump(self._session, video, audio)
        self._start("pump", self._pump.run(), EndReason.FAILED)
        self._start("channel", self.channel.run(), EndReason.FAILED)
        self._start("watch", self._watch(), None)
        return description

    async def add_candidates(self, candidates: Sequence[RTCIceCandidate]) -> None:
        """Takes ways to reach the browser that it found after its offer.

        Raises:
            InvalidInput: ``too_many_candidates``.
        """
        self._candidates += len(candidates)
        if self._candidates > signaling.MAX_CANDIDATES:
            raise InvalidInput("too_many_candidates", f"At most {signaling.MAX_CANDIDATES} candidates are of use.")
        for candidate in candidates:
            await self._connection.addIceCandidate(candidate)

    def watch(self, watcher: Callable[[AvatarFrame], None] | None) -> None:
        """Shows every frame from now on to somebody, or to nobody any more; who watches must return at once."""
        self.watcher = watcher
        if self._pump is not None:
            self._pump.watcher = watcher

    async def let_go(self, reason: EndReason = EndReason.CLOSED) -> None:
        """Ends every task, so that another peer can show the session; quick and idempotent. Call ``aclose`` too."""
        self._end(reason)
        for track in (self._video, self._audio):
            if track is not None:
                track.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        await self.packing.aclose()

    async def aclose(self) -> None:
        """Closes the connection and ends every task; idempotent and time-limited."""
        await self.let_go()
        if self._connected.is_set():
            self._connected.clear()
            self._metrics.peers.dec()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()
                if time.monotonic() - self._changed_s <= SETTLED_S:
                    await signaling.stop_latecomers(self._connection)
                if self._video is not None:
                    await self._video.aclose()
        except TimeoutError:
            logger.warning("a peer connection did not close in %.1f s", CLOSE_TIMEOUT_S)

    def _start(self, name: str, work: Coroutine[Any, Any, None], reason: EndReason | None) -> None:
        """Runs work of this peer; its end is the peer's end when a reason is given, its failure always is."""

        async def guarded() -> None:
            try:
                await work
            except Exception:
                logger.exception("the peer's %s task failed", name)
                self._end(EndReason.FAILED)
            else:
                if reason is not None:
                    self._end(reason)

        task = asyncio.create_task(guarded(), name=f"peer-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, reason: EndReason) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    def _encoded(self, seconds: float) -> None:
        self._metrics.encode_ms.observe(seconds * 1000)
        self._session.encoded(seconds)

    def _wear(self, dress: Dress | None) -> None:
        if self._video is not None:
            # Pictures of another size begin with a key frame.
            self._video.dress = dress

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if state != "closed":
            self._changed_s = time.monotonic()
        if state == "connected" and not self._connected.is_set():
            self._connected.set()
            self._metrics.peers.inc()
        elif state == "failed":
            self._end(EndReason.CONNECTION_FAILED)
        elif state == "closed":
            self._end(EndReason.CLOSED)

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._microphones += 1
            self._start(f"microphone-{self._microphones}", Microphone(track, self._session.hear).run(), None)

    async def _watch(self) -> None:
        """Ends the peer when nobody connects in time, when the browser has fallen silent, or when nobody speaks."""
        answered_s = time.monotonic()
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await self._connected.wait()
        except TimeoutError:
            self._end(EndReason.NEVER_CONNECTED)
            return
        seen_s = time.monotonic()
        self._metrics.connect_ms.observe((seen_s - answered_s) * 1000)
        packets = 0
        countdown = Countdown(self.channel.send, EndReason.IDLE)
        while True:
            # A page that opened the channel owes heartbeats; any other client shows its life by reports and sound.
            if self.channel.last_seen_s is not None:
                seen_s = self.channel.last_seen_s
            elif (received := await self._packets_received()) > packets:
                packets, seen_s = received, time.monotonic()
            now_s = time.monotonic()
            alive_s = seen_s + self._options.heartbeat_timeout_s - now_s
            wanted_s = self.channel.last_speech_s + self._options.idle_timeout_s - now_s
            if alive_s <= 0 or wanted_s <= 0:
                self._end(EndReason.VANISHED if alive_s <= 0 else EndReason.IDLE)
                return
            # Without a channel the signs of life are counted, not timed: look twice in the time allowed.
            look_s = alive_s if self.channel.last_seen_s is not None else alive_s / 2
            await asyncio.sleep(min(countdown.left(wanted_s), look_s))

    async def _packets_received(self) -> int:
        report = await self._connection.getStats()
        return sum(stats.packetsReceived for stats in report.values() if stats.type == "transport")
