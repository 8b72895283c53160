"""Parcels over a real connection: what arrives, what can be asked for again, what the reports say."""

from __future__ import annotations

import asyncio
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    pack_rtcp_packet,
)

from server.rtp import Parcel, pack
from server.sending import HISTORY, RtpStream, packets_received, send_parcels, take_over
from server.signaling import allow_loopback_only_hosts

PICTURE = b"\0\0\0\1\x41" + b"\xaa" * 3000


class Track(MediaStreamTrack):
    """Parcels put in by the test."""

    def __init__(self, kind: str = "video") -> None:
        super().__init__()
        self.kind = kind
        self.late_s = 0.0
        self.queue: asyncio.Queue[tuple[Parcel, int] | None] = asyncio.Queue()

    async def recv(self):
        raise MediaStreamError

    async def next_parcel(self) -> tuple[Parcel, int]:
        if (item := await self.queue.get()) is None:
            raise MediaStreamError
        return item


@dataclass
class Line:
    """Two connected peers: ``sender`` is ours; ``packets`` and ``reports`` are what the other one got."""

    sender: RTCRtpSender
    connection: RTCPeerConnection
    other: RTCDtlsTransport
    packets: list[RtpPacket] = field(default_factory=list)
    reports: list[tuple[float, RtcpSrPacket]] = field(default_factory=list)

    async def arrived(self, count: int) -> list[RtpPacket]:
        async with asyncio.timeout(20):
            while len(self.packets) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self.packets


@asynccontextmanager
async def line(track: Track, codec: str = "video/H264", take=None):
    allow_loopback_only_hosts()
    ends = [RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2)]
    transceiver = ends[0].addTransceiver(track, "sendonly")
    codecs = RTCRtpSender.getCapabilities(track.kind).codecs
    transceiver.setCodecPreferences([each for each in codecs if each.mimeType in (codec, "video/rtx")])
    if take is None:
        send_parcels(transceiver.sender, track)
    else:
        take_over(transceiver.sender, take)
    await ends[0].setLocalDescription(await ends[0].createOffer())
    await ends[1].setRemoteDescription(ends[0].localDescription)
    await ends[1].setLocalDescription(await ends[1].createAnswer())
    dtls = ends[1].getTransceivers()[0].receiver.transport
    found = Line(transceiver.sender, ends[0], dtls)
    route, handle = dtls._handle_rtp_data, dtls._handle_rtcp_data

    async def rtp(data: bytes, arrival_time_ms: int) -> None:
        found.packets.append(RtpPacket.parse(data, dtls._rtp_header_extensions_map))
        await route(data, arrival_time_ms)

    async def rtcp(data: bytes) -> None:
        if data[1] == 200:
            found.reports.append((time.time(), RtcpSrPacket.parse(data[4:28], 0)))
        await handle(data)

    dtls._handle_rtp_data, dtls._handle_rtcp_data = rtp, rtcp
    await ends[0].setRemoteDescription(ends[1].localDescription)
    async with asyncio.timeout(10):
        while any(end.connectionState != "connected" for end in ends):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    try:
        yield found
    finally:
        for end in ends:
            await end.close()


def nack(sender: RTCRtpSender, *lost: int) -> RtcpRtpfbPacket:
    return RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=sender._ssrc, lost=list(lost))


async def test_packets_are_numbered_marked_and_stamped_without_a_gap_whatever_the_source():
    track = Track()
    async with line(track) as found:
        for index in range(4):
            track.queue.put_nowait((pack("H264", PICTURE), index * 3600))
        size = len(pack("H264", PICTURE).payloads)
        packets = await found.arrived(4 * size)
        first = packets[0]
        assert [packet.sequence_number for packet in packets] == [
            (first.sequence_number + index) & 0xFFFF for index in range(4 * size)
        ]
        assert [packet.marker for packet in packets] == ([0] * (size - 1) + [1]) * 4
        steps = [(packet.timestamp - first.timestamp) & 0xFFFFFFFF for packet in packets[::size]]
        assert steps == [0, 3600, 7200, 10800]
        assert {packet.ssrc for packet in packets} == {found.sender._ssrc}
        assert {packet.extensions.mid for packet in packets} == {"0"}
        now = int(time.time() * (1 << 18)) & 0xFFFFFF
        assert all((now - packet.extensions.abs_send_time) & 0xFFFFFF < 5 << 18 for packet in packets)


async def test_vp8_pictures_are_numbered_for_each_viewer():
    track = Track()
    async with line(track, "video/VP8") as found:
        for index in range(3):
            track.queue.put_nowait((pack("VP8", b"x" * 1500), index * 3600))
        packets = await found.arrived(6)
        ids = [int.from_bytes(packet.payload[2:4], "big") & 0x7FFF for packet in packets]
        assert [(each - ids[0]) & 0x7FFF for each in ids] == [0, 0, 1, 1, 2, 2]


async def test_sound_is_marked_after_a_pause_only():
    track = Track("audio")
    async with line(track, "audio/opus") as found:
        for timestamp in (0, 960, 1920, 48_000, 48_960):
            track.queue.put_nowait((pack("opus", b"sound"), timestamp))
        packets = await found.arrived(5)
        assert [packet.marker for packet in packets] == [1, 0, 0, 1, 0]


async def test_a_lost_packet_is_sent_again_by_rtx():
    track = Track()
    async with line(track) as found:
        track.queue.put_nowait((pack("H264", PICTURE), 0))
        size = len(pack("H264", PICTURE).payloads)
        lost = (await found.arrived(size))[1]
        await found.sender._handle_rtcp_packet(nack(found.sender, lost.sequence_number))
        again = (await found.arrived(size + 1))[-1]
        assert (again.ssrc, again.timestamp) == (found.sender._rtx_ssrc, lost.timestamp)
        assert again.payload == lost.sequence_number.to_bytes(2, "big") + lost.payload


async def test_packets_that_were_lost_where_the_numbers_come_round_are_sent_again():
    streams: list[RtpStream] = []

    async def work(stream: RtpStream) -> None:
        streams.append(stream)
        await asyncio.Event().wait()

    async with line(Track(), take=work) as found:
        streams[0]._sequence = 65534
        streams[0].send(pack("H264", PICTURE), 0)
        size = len(pack("H264", PICTURE).payloads)
        sent = list(await found.arrived(size))[:size]
        assert [packet.sequence_number for packet in sent[:3]] == [65534, 65535, 0]
        # As a browser reports it: the first number that is lost, and a bit for each of those that follow.
        feedback = struct.pack("!LLHH", 1, found.sender._ssrc, 65535, 1)
        await found.other._send_rtp(pack_rtcp_packet(205, RTCP_RTPFB_NACK, feedback))
        again = (await found.arrived(size + 2))[size:]
        assert [packet.payload for packet in again] == [
            lost.sequence_number.to_bytes(2, "big") + lost.payload for lost in sent[1:3]
        ]
        assert found.connection.connectionState == "connected"


async def test_a_lost_packet_beyond_all_numbers_is_taken_for_the_one_it_is():
    track = Track()
    async with line(track) as found:
        track.queue.put_nowait((pack("H264", b"\0\0\1\x41picture"), 0))
        (lost,) = await found.arrived(1)
        await found.sender._handle_rtcp_packet(nack(found.sender, lost.sequence_number + 65536, 1 << 40, -70_000))
        again = (await found.arrived(2))[-1]
        assert again.payload == lost.sequence_number.to_bytes(2, "big") + lost.payload


async def test_a_report_that_nobody_can_read_ends_nothing():
    track = Track()
    async with line(track) as found:
        # A bitrate for nine streams, none of which is named.
        estimate = RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=b"REMB" + bytes([9, 0, 0, 0]))
        await found.other._send_rtp(bytes(estimate))
        before = packets_received(found.connection)
        track.queue.put_nowait((pack("H264", b"\0\0\1\x41picture"), 0))
        (lost,) = await found.arrived(1)
        await found.other._send_rtp(bytes(nack(found.sender, lost.sequence_number)))
        again = (await found.arrived(2))[-1]
        assert again.payload == lost.sequence_number.to_bytes(2, "big") + lost.payload
        assert packets_received(found.connection) > before
        assert found.connection.connectionState == "connected"


async def test_a_loss_that_is_reported_when_the_way_is_gone_is_nothing_to_the_connection():
    streams: list[RtpStream] = []

    async def work(stream: RtpStream) -> None:
        streams.append(stream)
        await asyncio.Event().wait()

    async with line(Track(), take=work) as found:
        streams[0].send(pack("H264", b"\0\0\1\x41picture"), 0)
        (lost,) = await found.arrived(1)
        transport = found.sender.transport
        pairs = transport.transport._connection._nominated
        pair = pairs.pop(1)
        await transport._handle_rtcp_data(bytes(nack(found.sender, lost.sequence_number)))
        pairs[1] = pair
        await transport._handle_rtcp_data(bytes(nack(found.sender, lost.sequence_number)))
        assert len(await found.arrived(2)) == 2


async def test_what_is_long_past_or_was_never_sent_is_not_sent_again():
    track = Track()
    async with line(track) as found:
        for index in range(HISTORY + 1):
            track.queue.put_nowait((pack("H264", b"\0\0\1\x41picture"), index * 3600))
        packets = await found.arrived(HISTORY + 1)
        first = packets[0].sequence_number
        never = [(first - 100) & 0xFFFF, (first + 500) & 0xFFFF]
        await found.sender._handle_rtcp_packet(nack(found.sender, first, *never))
        await asyncio.sleep(0.1)
        assert len(found.packets) == HISTORY + 1


async def test_one_who_asks_without_end_is_not_answered_without_end(monkeypatch):
    monkeypatch.setattr("server.sending.RETRANSMISSIONS_PER_S", 5)
    track = Track()
    async with line(track) as found:
        track.queue.put_nowait((pack("H264", b"\0\0\1\x41picture"), 0))
        (packet,) = await found.arrived(1)
        await found.sender._handle_rtcp_packet(nack(found.sender, *[packet.sequence_number] * 50))
        await asyncio.sleep(0.1)
        assert len(found.packets) == 6


async def test_reports_tell_when_a_picture_was_due_and_how_much_was_sent():
    track = Track()
    track.late_s = 0.25
    async with line(track) as found:
        track.queue.put_nowait((pack("H264", PICTURE), 7200))
        size = len(pack("H264", PICTURE).payloads)
        packets = await found.arrived(size)
        async with asyncio.timeout(3):
            while not found.reports:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        at_s, report = found.reports[0]
        sent_s = report.sender_info.ntp_timestamp / (1 << 32) - 2_208_988_800
        assert at_s - 0.25 - sent_s == pytest.approx(0, abs=0.2)
        assert report.sender_info.rtp_timestamp == packets[0].timestamp
        assert report.sender_info.packet_count == size
        assert report.sender_info.octet_count == sum(len(packet.payload) for packet in packets)
        stats = (await found.sender.getStats())[f"outbound-rtp_{id(found.sender)}"]
        assert (stats.packetsSent, stats.bytesSent) == (size, report.sender_info.octet_count)


async def test_the_other_side_is_counted():
    async with line(Track()) as found:
        assert packets_received(found.connection) > 0


async def test_the_end_of_the_track_ends_the_stream_and_the_sender_still_stops():
    track = Track()
    async with line(track) as found:
        track.queue.put_nowait(None)
        async with asyncio.timeout(2):
            while track.readyState != "ended":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.wait_for(found.sender.stop(), 2)


async def test_a_sender_that_is_switched_off_sends_nothing():
    streams: list[RtpStream] = []

    async def work(stream: RtpStream) -> None:
        streams.append(stream)
        await asyncio.Event().wait()

    async with line(Track(), take=work) as found:
        found.sender._enabled = False
        streams[0].send(pack("H264", PICTURE), 0)
        found.sender._enabled = True
        streams[0].send(pack("H264", b"\0\0\1\x41picture"), 3600)
        assert len(await found.arrived(1)) == 1


async def test_nothing_can_be_sent_when_the_connection_is_gone():
    streams: list[RtpStream] = []

    async def work(stream: RtpStream) -> None:
        streams.append(stream)
        await asyncio.Event().wait()

    async with line(Track(), take=work) as found:
        await found.connection.close()
        with pytest.raises(ConnectionError):
            streams[0].send(pack("H264", PICTURE), 0)
