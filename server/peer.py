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
from collections.abc import Sequence

from aiortc import MediaStreamTrack, RTCIceCandidate, RTCPeerConnection

from engine.session import Session
from server import signaling
from server.countdown import Countdown
from server.encoder_pool import EncoderPool
from server.fan import Fan
from server.manner import Manner
from server.metrics import EndReason, ServerMetrics
from server.microphone import Microphone, skip_jitter_buffer
from server.packing import Dress
from server.peer_options import PeerOptions
from server.sending import packets_received, send_parcels
from server.showing import CLOSE_TIMEOUT_S, Showing, Watcher
from server.tracks import AvatarAudioTrack, AvatarVideoTrack, MediaPump, route_key_frame_requests

logger = logging.getLogger(__name__)

SETTLED_S = 5.0
"""A connection whose state has not changed for so long starts nothing any more."""


class Peer(Showing):
    """A browser that watches one session."""

    def __init__(
        self,
        session: Session,
        manner: Manner,
        session_id: str,
        pool: EncoderPool,
        options: PeerOptions,
        metrics: ServerMetrics,
        fan: Fan | None = None,
        watchers: set[Watcher] | None = None,
    ) -> None:
        """
        Args:
            session: what it shows; started, and not closed by the peer.
            manner: how it answers.
            session_id: told to the browser.
            pool: where pictures and sound are encoded.
            options: how to connect.
            metrics: where to count.
            fan: what others get of the session; while anybody takes it, the session is not idle.
            watchers: who is shown every frame beside the browser.
        """
        super().__init__(session, manner, session_id, options, watchers)
        self._pool = pool
        self._metrics = metrics
        self._fan = fan
        self._connected = asyncio.Event()
        self._connection = RTCPeerConnection(signaling.rtc_configuration(options.ice_servers()))
        self._trickle = signaling.Trickle(self._connection)
        self._video: AvatarVideoTrack | None = None
        self._audio: AvatarAudioTrack | None = None
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
            on_hurried=lambda hurried: self._session.tell("encoder", hurried=hurried),
        )
        video.dress = self.packing.dress
        self._audio = audio = AvatarAudioTrack(self._session.clock, self._pool)
        self._connection.on("connectionstatechange", self._on_state)
        self._connection.on("datachannel", self.channel.attach)
        self._connection.on("track", self._on_track)
        description = await signaling.answer(self._connection, offer, codec, video, audio if offer.has_audio else None)
        for transceiver in self._connection.getTransceivers():
            if transceiver.sender.track is video:
                send_parcels(transceiver.sender, video)
                route_key_frame_requests(transceiver.sender, video)
            elif transceiver.sender.track is audio:
                send_parcels(transceiver.sender, audio)
                skip_jitter_buffer(transceiver.receiver)
        pump = MediaPump(self._session, video, audio)
        pump.watcher = self._show
        self._start("pump", pump.run(), EndReason.FAILED)
        self._start("channel", self.channel.run(), EndReason.FAILED)
        self._start("watch", self._watch(), None)
        return description

    async def add_candidates(self, candidates: Sequence[RTCIceCandidate]) -> None:
        """Takes ways to reach the browser that it found after its offer.

        Raises:
            InvalidInput: ``too_many_candidates``.
        """
        await self._trickle.add(candidates)

    async def let_go(self, reason: EndReason = EndReason.CLOSED) -> None:
        """Ends every task, so that another can show the session; quick and idempotent. Call ``aclose`` too."""
        self._end(reason)
        for track in (self._video, self._audio):
            if track is not None:
                track.stop()
        await super().let_go(reason)

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
            elif (received := packets_received(self._connection)) > packets:
                packets, seen_s = received, time.monotonic()
            now_s = time.monotonic()
            alive_s = seen_s + self._options.heartbeat_timeout_s - now_s
            wanted_s = self.channel.last_speech_s + self._options.idle_timeout_s - now_s
            if self._fan is not None and self._fan.is_wanted:
                # Others watch, whether anything is said or not.
                wanted_s = self._options.idle_timeout_s
            if alive_s <= 0 or wanted_s <= 0:
                self._end(EndReason.VANISHED if alive_s <= 0 else EndReason.IDLE)
                return
            # Without a channel the signs of life are counted, not timed: look twice in the time allowed.
            look_s = alive_s if self.channel.last_seen_s is not None else alive_s / 2
            await asyncio.sleep(min(countdown.left(wanted_s), look_s))
