"""A viewer that costs next to nothing: real ICE, DTLS and data channel, and of the media only the headers.

Place in the flow: ``Viewer.connect`` -> server's offer route; ``take`` <- crowd_process, with what came for it.

The connection is aiortc's own, made with the same offer a browser would make. Once it stands, its socket is no longer
read packet by packet (see ``wire``): STUN and DTLS are passed on to aiortc, sender reports are read, media is left as
it came, encrypted, its header being clear. Receiver reports and heartbeats go out as a browser sends them.

Invariants: a viewer never holds back what the connection lives on; what it reports has been received.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription
from pylibsrtp import Error as SrtpError

from server.signaling import allow_loopback_only_hosts
from tests.benchmarks.load import wire

CONNECT_TIMEOUT_S = 20.0
HEARTBEAT_S = 1.0
REPORT_S = 1.0
"""How often Chromium sends receiver reports for a picture."""
NTP_UNIX_S = 2_208_988_800
"""From the epoch of NTP to that of Unix."""

_SENDER_REPORT = 200
_RECEIVER_REPORT = 201
_PAYLOAD_FEEDBACK = 206


class ViewerFailed(Exception):
    """A viewer was refused or did not connect; the message says why."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where viewers come in.

    Attributes:
        url: the server.
        watch: id of a broadcast to watch over WHEP; a session of its own when empty.
        avatar: whom to ask for; the server's choice when empty.
        channel: whether to open the data channel, as the page does.
    """

    url: str
    watch: str = ""
    avatar: str = ""
    channel: bool = True


@dataclass(slots=True)
class Stream:
    """What is known of one stream that is received, for receiver reports.

    Attributes:
        ssrc: its source.
        kind: ``video`` or ``audio``.
        first: first extended sequence number.
        highest: highest one.
        received: packets.
        report: middle of the last sender report's NTP time, and when it came.
        due: (Unix seconds, RTP time stamp) of the last sender report.
    """

    ssrc: int
    kind: str
    first: int
    highest: int
    received: int = 0
    expected_before: int = 0
    received_before: int = 0
    report: tuple[int, float] = (0, 0.0)
    due: tuple[float, int] | None = None

    def count(self, sequence: int, packets: int) -> None:
        """Takes note of packets, of which this is the newest."""
        step = (sequence - self.highest) & 0xFFFF
        if step < 0x8000:
            self.highest += step
        self.received += packets

    def block(self) -> bytes:
        """Its block in a receiver report (RFC 3550, 6.4.1); jitter is left at 0."""
        expected = self.highest - self.first + 1
        lost = max(0, expected - self.received)
        interval = expected - self.expected_before
        missing = max(0, interval - (self.received - self.received_before))
        self.expected_before, self.received_before = expected, self.received
        fraction = min(255, (missing << 8) // interval) if interval > 0 else 0
        middle, at_s = self.report
        delay = int((time.monotonic() - at_s) * 65536) if at_s else 0
        return struct.pack(
            "!IIIIII", self.ssrc, fraction << 24 | min(lost, 0x7FFFFF), self.highest & 0xFFFFFFFF, 0, middle, delay
        )


class Viewer:
    """One viewer, from its offer to its farewell."""

    def __init__(self, index: int, http: aiohttp.ClientSession, door: Door) -> None:
        """
        Args:
            index: tells it apart from others.
            http: for signaling.
            door: where to come in.
        """
        self.index = index
        self.session_id = ""
        self.connect_s = 0.0
        """From the offer to a connection with keys for media."""
        self.payload_types: dict[int, str] = {}
        """``video`` or ``audio`` by payload type; what is missing (retransmissions) is neither."""
        self.streams: dict[int, Stream] = {}
        self.lost = False
        """Whether the server ended it."""
        self.events = 0
        """Messages of its data channel."""
        self.sees = asyncio.Event()
        """Set once something of a picture has come."""
        self._http = http
        self._door = door
        self._location = ""
        self._ssrc = random.getrandbits(32)
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channel: RTCDataChannel | None = None
        self._dtls: Any = None
        self._deliver: Callable[[bytes, int], None] | None = None
        self._ice: Any = None
        self._protocols: list[Any] = []
        self.handles: list[int] = []
        """File descriptors of its sockets, once connected; one for each address of this machine."""

    async def connect(self) -> None:
        """Offers, waits for the connection, and takes its socket over.

        Raises:
            ViewerFailed: refused, or not connected in time.
        """
        allow_loopback_only_hosts()
        connection, started_s = self._connection, time.monotonic()
        for kind in ("audio", "video"):
            transceiver = connection.addTransceiver(kind, direction="recvonly")
            transceiver.receiver.receive = _receive_nothing  # type: ignore[method-assign, assignment]
        if self._door.channel:
            self._channel = connection.createDataChannel("visavis")
            self._channel.on("message", self._heard)
        connection.on("connectionstatechange", self._changed)
        await connection.setLocalDescription(await connection.createOffer())
        answer = await self._signal(connection.localDescription.sdp)
        self._read_payload_types(answer)
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        self._dtls = connection.getTransceivers()[0].receiver.transport
        ice = self._dtls.transport._connection
        self._deliver = ice.data_received
        # Media that comes before the socket is taken over needs no decoding either.
        ice.data_received = self._before
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                while connection.connectionState != "connected":
                    if connection.connectionState in ("failed", "closed"):
                        raise ViewerFailed(f"Viewer {self.index} could not connect: {connection.connectionState}.")
                    await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise ViewerFailed(f"Viewer {self.index} was not connected in {CONNECT_TIMEOUT_S:.0f} s.") from error
        self.connect_s = time.monotonic() - started_s
        self._ice = ice
        self._take_over()

    async def _signal(self, sdp: str) -> str:
        door = self._door
        if door.watch:
            url = f"{door.url}/whep/watch/{door.watch}"
            async with self._http.post(url, data=sdp, headers={"Content-Type": "application/sdp"}) as response:
                text = await response.text()
                if response.status != 201:
                    raise ViewerFailed(f"Viewer {self.index} was refused with {response.status}: {text[:200]}")
                self._location = response.headers["Location"]
                return text
        offer = {"sdp": sdp, "type": "offer", "mode": "say", **({"avatar": door.avatar} if door.avatar else {})}
        async with self._http.post(f"{door.url}/offer", json=offer) as response:
            content = await response.json()
            if response.status != 200:
                raise ViewerFailed(f"Viewer {self.index} was refused with {response.status}: {content}")
        self.session_id = content["session_id"]
        return str(content["sdp"])

    def _read_payload_types(self, answer: str) -> None:
        for media in SessionDescription.parse(answer).media:
            if media.kind in ("audio", "video"):
                for codec in media.rtp.codecs:
                    if codec.payloadType is not None and codec.name.lower() != "rtx":
                        self.payload_types[codec.payloadType] = media.kind

    def _before(self, data: bytes, component: int) -> None:
        if self._deliver is not None and not (127 < data[0] < 192):
            self._deliver(data, component)

    def _take_over(self) -> None:
        loop = asyncio.get_running_loop()
        # All of them: which one the server sends to is the server's choice.
        for protocol in self._ice._protocols:
            handle = protocol.transport.get_extra_info("socket")
            wire.prepare(handle)
            # From here on the socket is read by ``wire``; asyncio only sends through it.
            loop._remove_reader(handle.fileno())  # type: ignore[attr-defined]
            self._protocols.append(protocol)
            self.handles.append(handle.fileno())

    def take(self, data: bytes, place: int, sender: tuple[str, int]) -> None:
        """Passes on what is not media.

        Args:
            data: the datagram.
            place: of the socket in ``handles`` through which it came.
            sender: from where.
        """
        if 127 < data[0] < 192:
            self._read_report(data)
        elif data[0] < 4:
            self._protocols[place].datagram_received(data, sender)
        elif self._deliver is not None:
            self._deliver(data, 1)

    def _send_control(self, message: bytes) -> None:
        pair = next(iter(self._ice._nominated.values()), None)
        if pair is not None and self._dtls._tx_srtp is not None:
            pair.protocol.transport.sendto(self._dtls._tx_srtp.protect_rtcp(message), tuple(pair.remote_addr))

    def _read_report(self, data: bytes) -> None:
        try:
            plain = self._dtls._rx_srtp.unprotect_rtcp(data)
        except SrtpError:
            return
        if len(plain) < 28 or plain[1] != _SENDER_REPORT:
            return
        ssrc, seconds, fraction, stamp = struct.unpack_from("!IIII", plain, 4)
        if (stream := self.streams.get(ssrc)) is not None:
            stream.report = ((seconds & 0xFFFF) << 16 | fraction >> 16, time.monotonic())
            stream.due = (seconds - NTP_UNIX_S + fraction / 2**32, stamp)

    def received(self, ssrc: int, kind: str, sequence: int, packets: int) -> None:
        """Counts media for the next receiver report; ``sequence`` is the newest of the packets."""
        stream = self.streams.get(ssrc)
        if stream is None:
            # Which of the batch was first matters only to the first report.
            stream = self.streams[ssrc] = Stream(ssrc, kind, sequence - packets + 1, sequence)
            stream.received = packets
            if kind == "video":
                self.sees.set()
        else:
            stream.count(sequence, packets)

    def report(self) -> None:
        """Sends a receiver report."""
        if not self.streams:
            return
        blocks = [stream.block() for stream in self.streams.values()]
        words = (8 + 24 * len(blocks)) // 4 - 1
        header = struct.pack("!BBHI", 0x80 | len(blocks), _RECEIVER_REPORT, words, self._ssrc)
        self._send_control(header + b"".join(blocks))

    def ask_key_frame(self) -> None:
        """Sends a picture loss indication (RFC 4585, 6.3.1), as a decoder does that begins now."""
        for stream in self.streams.values():
            if stream.kind == "video":
                self._send_control(struct.pack("!BBHII", 0x81, _PAYLOAD_FEEDBACK, 2, self._ssrc, stream.ssrc))

    def beat(self) -> None:
        """Sends the page's heartbeat, if there is a channel."""
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json.dumps({"type": "ping", "t": round(time.monotonic() * 1000)}))

    def decrypt(self, packet: bytes) -> bytes | None:
        """A packet of media in clear; None when it is not genuine, or was seen before."""
        try:
            return bytes(self._dtls._rx_srtp.unprotect(packet))
        except SrtpError:
            return None

    def _heard(self, _message: str | bytes) -> None:
        self.events += 1

    def _changed(self) -> None:
        if self.handles and self._connection.connectionState in ("failed", "closed"):
            self.lost = True

    async def close(self) -> None:
        """Says farewell and closes; idempotent."""
        path = self._location or (f"/sessions/{self.session_id}" if self.session_id else "")
        self._location = self.session_id = ""
        try:
            if path:
                async with self._http.delete(self._door.url + path):
                    pass
        except aiohttp.ClientError:
            self.lost = True
        await self._connection.close()


async def _receive_nothing(_parameters: Any) -> None:
    """In place of aiortc's receiver, whose jitter buffer, decoder thread and reports nobody needs here."""
