"""One viewer of a broadcast: a connection out of which pictures and sound come, and nothing else.

Place in the flow: offer -> ``Viewer.answer`` -> the broadcast's fan calls its streams -> ``ended``.

Invariants:
    * it encodes nothing and wakes the event loop for nothing that the others' parcels do not wake it for already;
    * what it sends (sound, a data channel) is not taken;
    * it never ends the session it shows.
"""

from __future__ import annotations

import asyncio
import logging
import time

from aiortc import MediaStreamTrack, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError

from server import signaling
from server.fan import Fan, send_fan
from server.metrics import ServerMetrics
from server.peer_options import PeerOptions
from server.sending import packets_received

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 1.5
SETTLED_S = 5.0
"""A connection whose state has not changed for so long starts nothing any more."""
SILENT_S = 10.0
"""Who receives reports on it every second or so, and is gone when nothing has come for so long."""


class _Place(MediaStreamTrack):
    """Holds the place of a track in the negotiation; what is sent comes from the fan."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def recv(self) -> None:  # type: ignore[override]  # never asked: the sender's own loop does not run
        raise MediaStreamError


class Viewer:
    """Somebody who watches."""

    def __init__(self, fan: Fan, options: PeerOptions, metrics: ServerMetrics) -> None:
        """Args: fan: what is watched; options: how to connect; metrics: where to count."""
        self._fan = fan
        self._options = options
        self._metrics = metrics
        self._connection = RTCPeerConnection(signaling.rtc_configuration(options.ice_servers()))
        self.trickle = signaling.Trickle(self._connection)
        """Takes candidates that come after the offer."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it is of no more use."""
        self._connected = False
        self._packets = 0
        self._changed_s = self._seen_s = time.monotonic()

    async def answer(self, offer: signaling.Offer) -> signaling.Description:
        """Negotiates. On any error, call ``aclose``.

        Raises:
            OfferInvalid: ``offer_invalid``.
        """
        # What is encoded for others already costs nothing more.
        shared = next((codec for codec in offer.video_codecs if codec in self._fan.codecs), None)
        codec = shared or signaling.choose_video_codec(offer, self._options.video_codec)
        video, audio = _Place("video"), _Place("audio") if offer.has_audio else None
        self._connection.on("connectionstatechange", self._on_state)
        description = await signaling.answer(self._connection, offer, codec, video, audio, hears=False)
        for transceiver in self._connection.getTransceivers():
            if transceiver.sender.track is video:
                # Should no more pictures come, or no more sound, the viewer had better connect anew.
                send_fan(transceiver.sender, self._fan, codec, on_end=self.end)
            elif audio is not None and transceiver.sender.track is audio:
                send_fan(transceiver.sender, self._fan, "opus", on_end=self.end)
        return description

    def check(self) -> None:
        """Ends it when nobody came in time, or nothing has come from it for a while. Call it every second or so."""
        now_s = time.monotonic()
        if not self._connected:
            if now_s - self._seen_s > self._options.connect_timeout_s:
                self._end("never connected")
            return
        if (received := packets_received(self._connection)) > self._packets:
            self._packets, self._seen_s = received, now_s
        elif now_s - self._seen_s > SILENT_S:
            self._end("nothing came from it")

    def end(self) -> None:
        """Begins to end it; call ``aclose``, too."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _end(self, why: str) -> None:
        if not self.ended.done():
            logger.info("a viewer was let go: %s", why)
        self.end()

    async def aclose(self) -> None:
        """Closes the connection; idempotent and time-limited."""
        self.end()
        if self._connected:
            self._connected = False
            self._metrics.viewers.dec()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()
                if time.monotonic() - self._changed_s <= SETTLED_S:
                    await signaling.stop_latecomers(self._connection)
        except TimeoutError:
            logger.warning("a viewer's connection did not close in %.1f s", CLOSE_TIMEOUT_S)

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if state != "closed":
            self._changed_s = time.monotonic()
        if state == "connected" and not self._connected:
            self._connected = True
            self._seen_s = time.monotonic()
            self._metrics.viewers.inc()
        elif state in ("failed", "closed"):
            self._end(f"its connection {state}")
