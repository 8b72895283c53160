"""WHIP: a session's own H.264 and Opus to one endpoint, mostly that of an SFU that serves thousands.

Place in the flow: Fan -> ``WhipDelivery`` -> RTCPeerConnection whose offer ``WhipClient`` takes to the endpoint.

Invariants:
    * nothing is encoded here: pictures and sound are those that all viewers of the session get;
    * each connection is new, since aiortc cannot restart ICE, and each is ended at the endpoint, too;
    * an endpoint that reports nothing for ``SILENCE_S`` is taken for dead; a connection alone would tell after 31 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from engine.errors import BackendFailed
from server import signaling
from server.fan import send_fan
from server.outputs.base import KEY_FRAME_S, Kind, Shown
from server.outputs.whip_client import Published, WhipClient

CONNECT_TIMEOUT_S = 10.0
SILENCE_S = 8.0
"""Receivers report every second, some every five (RFC 3550's smallest interval)."""
LOOK_S = 1.0
CLOSE_TIMEOUT_S = 1.5


class WhipDelivery:
    """To one endpoint, again and again."""

    kind: Kind = "whip"

    def __init__(self, url: str, token: str | None, ice_servers: Callable[[], Sequence[dict[str, Any]]]) -> None:
        """Args: url: of the endpoint; token: shown to it; ice_servers: our own, for one connection."""
        self._client = WhipClient(url, token)
        self._ice_servers = ice_servers
        self._recommended: tuple[dict[str, str], ...] = ()
        self._sent_before = 0
        self._sent = 0

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far, over all connections, as of the last second."""
        return self._sent_before + self._sent

    async def deliver(self, shown: Shown, live: Callable[[], None]) -> None:
        """As ``Delivery`` has it."""
        # For one connection: should it fail for their sake, the next goes without them.
        recommended, self._recommended = self._recommended, ()
        servers = [*self._ice_servers(), *recommended]
        configuration = signaling.rtc_configuration(servers)
        configuration.bundlePolicy = RTCBundlePolicy.MAX_BUNDLE
        connection = RTCPeerConnection(configuration)
        published: Published | None = None
        try:
            changed, over = asyncio.Event(), asyncio.Event()

            def end() -> None:
                over.set()
                changed.set()

            connection.on("connectionstatechange", changed.set)
            offer = await _offer(connection, shown, end)
            published = await self._client.publish(offer)
            # They come too late for this connection, whose candidates stand in the offer, and help the next.
            self._recommended = published.ice_servers
            await _accept(connection, published.answer)
            await _connected(connection, changed)
            live()
            await self._watch(connection, changed, over)
        finally:
            self._sent_before, self._sent = self._sent_before + self._sent, 0
            await asyncio.gather(
                _close(connection), *([self._client.end(published)] if published is not None else []),
                return_exceptions=True,
            )  # fmt: skip

    async def _watch(self, connection: RTCPeerConnection, changed: asyncio.Event, over: asyncio.Event) -> None:
        """Waits until the connection is of no more use.

        Args:
            connection: which.
            changed: set when its state has changed, or with the next.
            over: set when there is no more to send.

        Raises:
            BackendFailed: ``publish_lost``.
        """
        loop = asyncio.get_running_loop()
        received, heard_s = -1, loop.time()
        while connection.connectionState == "connected":
            if over.is_set():
                raise BackendFailed("publish_lost", "The session's pictures or its sound ended.")
            changed.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await changed.wait()
            except TimeoutError:
                pass
            stats = [stat for stat in (await connection.getStats()).values() if stat.type == "transport"]
            self._sent = sum(stat.bytesSent for stat in stats)
            if (now_received := sum(stat.packetsReceived for stat in stats)) != received:
                received, heard_s = now_received, loop.time()
            elif loop.time() - heard_s > SILENCE_S:
                raise BackendFailed("publish_lost", f"The endpoint has reported nothing for {SILENCE_S:.0f} s.")
        raise BackendFailed("publish_lost", "The endpoint closed the connection.")


async def _offer(connection: RTCPeerConnection, shown: Shown, end: Callable[[], None]) -> str:
    """Offers pictures and sound, complete with all candidates, since nothing is added later.

    Args:
        connection: new.
        shown: what is sent.
        end: called when no more will come of either.

    Returns:
        The session description.
    """
    signaling.allow_loopback_only_hosts()
    for kind in ("audio", "video"):
        transceiver = connection.addTransceiver(_Placeholder(kind), direction="sendonly")
        transceiver.setCodecPreferences(
            [codec for codec in RTCRtpSender.getCapabilities(kind).codecs if codec.mimeType in _CODECS]
        )
        send_fan(transceiver.sender, shown.fan, "opus" if kind == "audio" else "H264", KEY_FRAME_S, on_end=end)
    await connection.setLocalDescription(await connection.createOffer())
    # RFC 9725, 4.4.1: one transport for everything, and said so.
    return connection.localDescription.sdp.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\n")


_CODECS = ("audio/opus", "video/H264", "video/rtx")


class _Placeholder(MediaStreamTrack):
    """What aiortc wants a sender to have; parcels come from the fan."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def recv(self) -> Any:
        """Never asked. Raises MediaStreamError."""
        raise MediaStreamError


async def _accept(connection: RTCPeerConnection, answer: str) -> None:
    try:
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    except Exception as error:  # aiortc raises its own errors, ValueError, KeyError … for what it cannot use
        raise BackendFailed("publish_refused", "The endpoint's answer cannot be used.") from error
    takes = {"audio": "", "video": ""} | {
        transceiver.kind: transceiver.currentDirection for transceiver in connection.getTransceivers()
    }
    if any(direction != "sendonly" for direction in takes.values()):
        raise BackendFailed("publish_refused", "The endpoint does not take H.264 with Opus.")


async def _connected(connection: RTCPeerConnection, changed: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            while connection.connectionState not in ("connected", "failed", "closed"):
                changed.clear()
                await changed.wait()
    except TimeoutError:
        raise BackendFailed("publish_timeout", "No connection to the endpoint came about; is its UDP open?") from None
    if connection.connectionState != "connected":
        raise BackendFailed("publish_unreachable", "The connection to the endpoint failed.")


async def _close(connection: RTCPeerConnection) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
            await signaling.stop_latecomers(connection)
    except TimeoutError:
        return
