"""Parcels to one viewer: RTP headers, encryption and the way to the socket, in as few steps as there can be.

Place in the flow: track or broadcast -> ``RtpStream.send`` -> DTLS transport's SRTP session -> the nominated candidate
pair's datagram transport.

Why not aiortc's own loop: it makes three objects and a dozen calls of every packet. What a crowd costs is packets, and
they all go through the one event loop. Here a packet is a header, an encryption and a call of the socket's transport.
Everything else (negotiation, ICE, DTLS, reading reports) stays aiortc's.

Invariants:
    * sequence numbers, time stamps and VP8 picture ids go on without a gap wherever the parcels come from;
    * ``send`` never waits, so one loop can serve any number of viewers;
    * sender reports tell when the last parcel was due, not when it left: a browser aligns sound and picture by them,
      and both are due by one clock;
    * what was sent in the last second or two can be asked for again, at a bounded rate;
    * no report of the other side, however malformed, ends a connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiortc import RTCPeerConnection, RTCRtpSender
from aiortc.codecs import is_rtx
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import RTCDtlsTransport, State
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpSendParameters
from aiortc.rtp import RtcpByePacket, RtcpSdesPacket, RtcpSenderInfo, RtcpSourceInfo, RtcpSrPacket

from engine.types import CHUNK_SAMPLES
from server.datagrams import Way
from server.rtp import VP8_PICTURE_ID, Parcel

logger = logging.getLogger(__name__)

HISTORY = 64
"""Parcels that can be asked for again: 2.5 s of pictures, 1.3 s of sound."""
RETRANSMISSIONS_PER_S = 500
"""Packets sent again; a viewer on a line so bad that it asks for more is helped by a key frame only."""

_MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
_ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
_HEADER = struct.Struct("!BBHII")
_EXTENDED = 0x90
"""Version 2 with header extensions."""
_PLAIN = 0x80
_MARKER = 0x80
_ONE_BYTE_PROFILE = b"\xbe\xde"
_NTP_EPOCH_S = 2_208_988_800
"""Seconds from 1900 to 1970. A multiple of 64, so that absolute send times need not count them."""

# What aiortc's objects keep to themselves.
_MILESTONES = _RTP_STARTED, _RTP_EXITED, _RTCP_STARTED, _RTCP_EXITED = tuple(
    f"_RTCRtpSender__{name}" for name in ("rtp_started", "rtp_exited", "rtcp_started", "rtcp_exited")
)
_TRACK = "_RTCRtpSender__track"
_PACKETS, _OCTETS = "_RTCRtpSender__packet_count", "_RTCRtpSender__octet_count"
_NTP, _RTP = "_RTCRtpSender__ntp_timestamp", "_RTCRtpSender__rtp_timestamp"
_REPORT, _REPORT_S = "_RTCRtpSender__lsr", "_RTCRtpSender__lsr_time"
_SENT_PACKETS, _SENT_BYTES = "_RTCDtlsTransport__tx_packets", "_RTCDtlsTransport__tx_bytes"
_RECEIVED = "_RTCDtlsTransport__rx_packets"


class ParcelTrack(Protocol):
    """Where the parcels of one viewer come from."""

    @property
    def late_s(self) -> float:
        """How long after its time the last parcel left, seconds."""
        ...

    async def next_parcel(self) -> tuple[Parcel, int]:
        """The next parcel, at its time, and its time stamp in units of the codec's clock from the stream's start.

        Raises:
            MediaStreamError: no more will come.
        """
        ...

    def stop(self) -> None:
        """Ends the track."""
        ...


def send_parcels(sender: RTCRtpSender, track: ParcelTrack) -> None:
    """Makes a sender send a track's parcels; call it before the connection starts.

    Raises:
        AttributeError: this aiortc works another way.
    """

    async def work(stream: RtpStream) -> None:
        while True:
            parcel, timestamp = await track.next_parcel()
            stream.send(parcel, timestamp, track.late_s)

    take_over(sender, work, track.stop)


def take_over(
    sender: RTCRtpSender, work: Callable[[RtpStream], Awaitable[None]], stop: Callable[[], None] = lambda: None
) -> None:
    """Puts work of ours in place of a sender's own loops; call it before the connection starts.

    Args:
        sender: whose; it goes on handling what the other side reports, and ``stop`` ends it as ever.
        work: sends what there is to send; runs from when the connection stands, ended by MediaStreamError,
            ConnectionError or cancellation.
        stop: called when it has ended.

    Raises:
        AttributeError: this aiortc works another way.
    """
    inside = _inside(sender, _TRACK, *_MILESTONES)
    begin = sender.send
    streams: list[RtpStream] = []

    async def send(parameters: RTCRtpSendParameters) -> None:
        if not streams:
            streams.append(RtpStream(sender, parameters))
            sender._retransmit = streams[0].retransmit  # type: ignore[method-assign]
            _bear_reports(sender.transport)
        await begin(parameters)

    async def run_rtp(codec: RTCRtpCodecParameters) -> None:
        inside[_RTP_STARTED].set()
        try:
            await work(streams[0])
        except (asyncio.CancelledError, ConnectionError, MediaStreamError):
            pass
        except Exception:
            logger.exception("sending failed")
        finally:
            stop()
            inside[_TRACK] = None
            # aiortc waits for this when it stops the sender.
            inside[_RTP_EXITED].set()

    async def run_rtcp() -> None:
        # Reports go out beside the parcels they are about; only the farewell is left to do.
        inside[_RTCP_STARTED].set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            pass
        try:
            await sender._send_rtcp([RtcpByePacket(sources=[sender._ssrc])])
        finally:
            inside[_RTCP_EXITED].set()

    for name in ("_run_rtp", "_run_rtcp", "_retransmit", "_send_rtcp"):
        if not callable(getattr(sender, name)):
            raise AttributeError(f"aiortc's RTCRtpSender.{name} is gone")
    if not callable(sender.transport._handle_rtcp_data):
        raise AttributeError("aiortc's RTCDtlsTransport._handle_rtcp_data is gone")
    sender.send = send  # type: ignore[method-assign]
    sender._run_rtp = run_rtp  # type: ignore[method-assign]
    sender._run_rtcp = run_rtcp  # type: ignore[method-assign]


def packets_received(connection: RTCPeerConnection) -> int:
    """How many packets have come from the other side: its reports, checks of the way, sound. Costs next to nothing.

    Raises:
        AttributeError: this aiortc counts another way.
    """
    transports = {id(sender.transport): sender.transport for sender in connection.getSenders()}
    return sum(_inside(transport, _RECEIVED)[_RECEIVED] for transport in transports.values())


class RtpStream:
    """One viewer's stream of one kind."""

    def __init__(self, sender: RTCRtpSender, parameters: RTCRtpSendParameters) -> None:
        """Args: sender: aiortc's, negotiated; parameters: what was agreed on."""
        codec = parameters.codecs[0]
        self._sender = sender
        self._inside = _inside(sender, _PACKETS, _OCTETS, _NTP, _RTP, _REPORT, _REPORT_S)
        self._transport = sender.transport
        self._counters = _inside(self._transport, _SENT_BYTES, _SENT_PACKETS)
        self._connection = sender.transport.transport._connection
        self._pair: Any = None
        self._way: Way | None = None
        self._ssrc = sender._ssrc
        self._cname = parameters.rtcp.cname
        self._payload_type = codec.payloadType or 0
        self._is_vp8 = codec.mimeType.lower() == "video/vp8"
        self._is_sound = codec.mimeType.lower().startswith("audio/")
        self._rtx_type = next(
            (
                other.payloadType
                for other in parameters.codecs
                if is_rtx(other) and other.parameters.get("apt") == codec.payloadType
            ),
            None,
        )
        self._first_byte, self._before, self._after, self._stamped = _extensions(parameters)
        # In the lower half: a wrap within the first packets would confuse the receiver's decryption.
        self._sequence = random.getrandbits(15)
        self._rtx_sequence = random.getrandbits(15)
        self._origin = random.getrandbits(32)
        self._picture_id = random.getrandbits(15)
        self._timestamp = -1
        self._history: deque[tuple[int, int, tuple[bytes, ...], int]] = deque(maxlen=HISTORY)
        self._report_s = 0.0
        self._again_s = 0.0
        self._again = 0

    def send(self, parcel: Parcel, timestamp: int, late_s: float = 0.0) -> None:
        """Sends a parcel now.

        Args:
            parcel: what.
            timestamp: its time in units of the codec's clock, from the stream's start.
            late_s: how long ago it was due, seconds.

        Raises:
            ConnectionError: there is no connection any more.
        """
        if not self._sender._enabled:
            return
        now_s = time.time()
        way = self._reach()
        # A picture's last packet is marked, and the first of sound after a pause.
        mark = _MARKER
        if self._is_sound and timestamp - self._timestamp == CHUNK_SAMPLES:
            mark = 0
        payloads = self._numbered(parcel.payloads) if self._is_vp8 else parcel.payloads
        self._timestamp = timestamp
        rtp_timestamp = (self._origin + timestamp) & 0xFFFFFFFF
        extension = self._extension(now_s)
        sequence, octets = self._sequence, 0
        packets: list[bytes] = []
        self._history.append((sequence, rtp_timestamp, payloads, mark))
        pack, protect = _HEADER.pack, self._transport._tx_srtp.protect
        first_byte, kind, ssrc = self._first_byte, self._payload_type, self._ssrc
        last = len(payloads) - 1
        for index, payload in enumerate(payloads):
            second_byte = kind | mark if index == last else kind
            header = pack(first_byte, second_byte, sequence, rtp_timestamp, ssrc)
            packets.append(protect(header + extension + payload))
            sequence = (sequence + 1) & 0xFFFF
            octets += len(payload)
        self._sequence = sequence
        if way.is_full:
            # The numbers that are missing tell the viewer that something is; it asks for a key frame.
            return
        way.send(packets)
        self._count(len(packets), octets, sum(map(len, packets)))
        if now_s >= self._report_s:
            self._report(now_s, late_s, rtp_timestamp)

    async def retransmit(self, sequence_number: int) -> None:
        """Sends a packet again that did not arrive; nothing when it is too old or too many are wanted.

        Args:
            sequence_number: of the packet; what is beyond 16 bits does not count.
        """
        now_s = time.time()
        if now_s - self._again_s >= 1.0:
            self._again_s, self._again = now_s, 0
        self._again += 1
        if self._again > RETRANSMISSIONS_PER_S:
            return
        # aiortc adds to the first number of a report without coming round after 65535.
        sequence = sequence_number & 0xFFFF
        found = next((sent for sent in reversed(self._history) if (sequence - sent[0]) & 0xFFFF < len(sent[2])), None)
        if found is None:
            return
        first, rtp_timestamp, payloads, mark = found
        index = (sequence - first) & 0xFFFF
        payload = payloads[index]
        mark = mark if index == len(payloads) - 1 else 0
        if self._rtx_type is None:
            header = _HEADER.pack(self._first_byte, self._payload_type | mark, sequence, rtp_timestamp, self._ssrc)
        else:
            # RFC 4588: a stream of its own, whose payloads begin with the sequence number that was lost.
            header = _HEADER.pack(
                self._first_byte, self._rtx_type | mark, self._rtx_sequence, rtp_timestamp, self._sender._rtx_ssrc
            )
            self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
            payload = sequence.to_bytes(2, "big") + payload
        way = self._reach()
        if not way.is_full:
            packet = self._transport._tx_srtp.protect(header + self._extension(now_s) + payload)
            way.send([packet])
            self._count(0, 0, len(packet))

    def _numbered(self, payloads: tuple[bytes, ...]) -> tuple[bytes, ...]:
        self._picture_id = (self._picture_id + 1) & 0x7FFF
        picture = (self._picture_id | 0x8000).to_bytes(2, "big")
        before, after = VP8_PICTURE_ID.start, VP8_PICTURE_ID.stop
        return tuple(payload[:before] + picture + payload[after:] for payload in payloads)

    def _reach(self) -> Way:
        """Finds the way to the viewer, which may change while ICE still looks for a better one."""
        pair = self._connection._nominated.get(1)
        if pair is None or self._transport._state is not State.CONNECTED:
            raise ConnectionError("the viewer cannot be reached")
        if pair is not self._pair or self._way is None:
            self._pair, self._way = pair, Way(pair.protocol.transport, pair.remote_addr)
        return self._way

    def _count(self, packets: int, octets: int, sent: int) -> None:
        """Counts packets of the stream and their payload, and bytes that left: the other packets are one."""
        inside, counters = self._inside, self._counters
        inside[_PACKETS] += packets
        inside[_OCTETS] += octets
        counters[_SENT_PACKETS] += packets or 1
        counters[_SENT_BYTES] += sent

    def _extension(self, now_s: float) -> bytes:
        if not self._stamped:
            return self._before
        return self._before + (int(now_s * (1 << 18)) & 0xFFFFFF).to_bytes(3, "big") + self._after

    def _report(self, now_s: float, late_s: float, rtp_timestamp: int) -> None:
        self._report_s = now_s + 0.5 + random.random()
        ntp_timestamp = int((now_s - late_s + _NTP_EPOCH_S) * (1 << 32))
        inside = self._inside
        inside[_NTP], inside[_RTP] = ntp_timestamp, rtp_timestamp
        # By these aiortc knows the report that a receiver answers, and so the time there and back.
        inside[_REPORT], inside[_REPORT_S] = (ntp_timestamp >> 16) & 0xFFFFFFFF, now_s
        counts = inside[_PACKETS] & 0xFFFFFFFF, inside[_OCTETS] & 0xFFFFFFFF
        report = bytes(RtcpSrPacket(self._ssrc, RtcpSenderInfo(ntp_timestamp, rtp_timestamp, *counts)))
        if self._cname is not None:
            report += bytes(RtcpSdesPacket([RtcpSourceInfo(self._ssrc, [(1, self._cname.encode())])]))
        packet = self._transport._tx_srtp.protect_rtcp(report)
        self._reach().send([packet])
        self._count(0, 0, len(packet))


def _bear_reports(transport: RTCDtlsTransport) -> None:
    """Has a connection outlive whatever the other side reports; idempotent.

    aiortc lets what goes wrong over a report (a bitrate for more streams than it lists, say) end the transport.
    """
    if "_handle_rtcp_data" in vars(transport):
        return
    handle = transport._handle_rtcp_data

    async def bear(data: bytes) -> None:
        try:
            await handle(data)
        except Exception:
            # No louder: the other side decides how often it happens.
            logger.debug("a report could not be used", exc_info=True)

    transport._handle_rtcp_data = bear  # type: ignore[method-assign]


def _inside(owner: object, *names: str) -> dict[str, Any]:
    """The attributes of an aiortc object, of which it keeps some to itself that have to be read and set here.

    Raises:
        AttributeError: it does not have them.
    """
    values = vars(owner)
    if missing := [name for name in names if name not in values]:
        raise AttributeError(f"this aiortc's {type(owner).__name__} has no {', '.join(missing)}")
    return values


def _extensions(parameters: RTCRtpSendParameters) -> tuple[int, bytes, bytes, bool]:
    """A packet's first byte, and its header extensions (RFC 8285) before and after the time of sending.

    What was agreed on and is known here: the section's name, by which a receiver tells streams apart before it has
    learnt their numbers, and the time of sending, by which it measures the line.
    """
    known = {extension.uri: extension.id for extension in parameters.headerExtensions}
    mid = parameters.muxId.encode()
    before = bytes([known[_MID] << 4 | len(mid) - 1]) + mid if 0 < len(mid) <= 16 and _MID in known else b""
    stamped = _ABS_SEND_TIME in known
    if stamped:
        before += bytes([known[_ABS_SEND_TIME] << 4 | 2])
    size = len(before) + (3 if stamped else 0)
    if not size:
        return _PLAIN, b"", b"", False
    padding = bytes(-size % 4)
    before = _ONE_BYTE_PROFILE + ((size + len(padding)) // 4).to_bytes(2, "big") + before
    return _EXTENDED, before if stamped else before + padding, padding, stamped
