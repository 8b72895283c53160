"""What a packet costs: aiortc's own sending loop and ours, over the same connection, in the same run.

``python -m tests.benchmarks.sending`` connects two peers over loopback (real ICE, DTLS and SRTP), stops the receiving
one from reading, so that only sending is measured, and sends the same pictures both ways. Time is processor time of
the thread, the event loop and the system calls included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from fractions import Fraction

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender
from aiortc.mediastreams import MediaStreamError

from server.rtp import Parcel, pack
from server.sending import RtpStream, send_parcels, take_over
from server.signaling import allow_loopback_only_hosts

PICTURE_BYTES = 6_000
"""1.2 Mbit/s at 25 pictures a second."""


class Stock(MediaStreamTrack):
    """Pictures as aiortc takes encoded ones."""

    kind = "video"

    def __init__(self, count: int, begin: asyncio.Event) -> None:
        super().__init__()
        self._left, self._begin = count, begin

    async def recv(self) -> av.Packet:
        await self._begin.wait()
        if not self._left:
            raise MediaStreamError
        self._left -= 1
        packet = av.Packet(PICTURE)
        packet.pts, packet.time_base = self._left * 3600, Fraction(1, 90_000)
        return packet


class Ours(MediaStreamTrack):
    """The same pictures as parcels, cut up for each one as for a viewer of one's own."""

    kind = "video"
    late_s = 0.0

    def __init__(self, count: int, begin: asyncio.Event) -> None:
        super().__init__()
        self._left, self._begin = count, begin

    async def recv(self) -> av.Packet:
        raise MediaStreamError

    async def next_parcel(self) -> tuple[Parcel, int]:
        await self._begin.wait()
        if not self._left:
            raise MediaStreamError
        self._left -= 1
        return pack("H264", PICTURE), self._left * 3600


def _picture() -> bytes:
    noise = np.random.default_rng(1).integers(1, 256, PICTURE_BYTES, dtype=np.uint8).tobytes()
    return b"\0\0\0\1\x41" + noise


PICTURE = _picture()


class Pair:
    """Two peers, connected, of which the one that receives no longer reads."""

    def __init__(self, track: MediaStreamTrack) -> None:
        self._ends = [RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2)]
        self._connected = asyncio.Event()
        for end in self._ends:
            end.on("connectionstatechange", self._changed)
        self.sender: RTCRtpSender = self._ends[0].addTransceiver(track, "sendonly").sender
        codecs = [codec for codec in RTCRtpSender.getCapabilities("video").codecs if codec.mimeType != "video/VP8"]
        self._ends[0].getTransceivers()[0].setCodecPreferences(codecs)

    async def connect(self) -> None:
        """Connects, then makes the receiver deaf."""
        allow_loopback_only_hosts()
        ours, theirs = self._ends
        await ours.setLocalDescription(await ours.createOffer())
        await theirs.setRemoteDescription(ours.localDescription)
        await theirs.setLocalDescription(await theirs.createAnswer())
        await ours.setRemoteDescription(theirs.localDescription)
        async with asyncio.timeout(10):
            await self._connected.wait()
        receiver = theirs.getReceivers()[0]
        for protocol in receiver.transport.transport._connection._protocols:
            # Not asyncio's pause_reading, which datagram transports lack.
            protocol.transport._loop._remove_reader(protocol.transport._sock_fd)

    def _changed(self) -> None:
        if all(end.connectionState == "connected" for end in self._ends):
            self._connected.set()

    async def close(self) -> None:
        """Ends both."""
        for end in self._ends:
            await end.close()


async def _loop(kind: type[Stock] | type[Ours], pictures: int) -> float:
    """Microseconds of processor time per packet, through a sending loop."""
    begin = asyncio.Event()
    track = kind(pictures, begin)
    pair = Pair(track)
    if isinstance(track, Ours):
        send_parcels(pair.sender, track)
    await pair.connect()
    ended = asyncio.Event()
    track.on("ended", ended.set)
    before = (await _sent(pair.sender)), time.thread_time()
    begin.set()
    await ended.wait()
    used_s = time.thread_time() - before[1]
    packets = await _sent(pair.sender) - before[0]
    await pair.close()
    return used_s / packets * 1e6


async def _fan(pictures: int) -> float:
    """The same for parcels made once and sent to many, per viewer."""
    streams: list[RtpStream] = []
    ended = asyncio.Event()

    async def work(stream: RtpStream) -> None:
        streams.append(stream)
        await ended.wait()

    pair = Pair(Ours(0, asyncio.Event()))
    take_over(pair.sender, work)
    await pair.connect()
    parcel = pack("H264", PICTURE)
    started_s = time.thread_time()
    for index in range(pictures):
        streams[0].send(parcel, index * 3600)
    used_s = time.thread_time() - started_s
    await pair.close()
    return used_s / pictures / len(parcel.payloads) * 1e6


async def _sent(sender: RTCRtpSender) -> int:
    report = await sender.getStats()
    return next(stats.packetsSent for stats in report.values() if stats.type == "transport")


async def _measure(pictures: int, rounds: int) -> dict[str, float]:
    figures: dict[str, list[float]] = {"aiortc_us": [], "parcels_us": [], "fan_out_us": []}
    for _ in range(rounds):
        figures["aiortc_us"].append(await _loop(Stock, pictures))
        figures["parcels_us"].append(await _loop(Ours, pictures))
        figures["fan_out_us"].append(await _fan(pictures))
    result = {name: round(statistics.median(values), 2) for name, values in figures.items()}
    result["ratio"] = round(result["aiortc_us"] / result["parcels_us"], 2)
    result["ratio_fan_out"] = round(result["aiortc_us"] / result["fan_out_us"], 2)
    return result


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000, help="sent each way and round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(_measure(arguments.pictures, arguments.rounds)), indent=1))


if __name__ == "__main__":
    main()
