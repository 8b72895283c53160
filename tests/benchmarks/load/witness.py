"""What a viewer that decodes has seen: pictures decoded, their age, and picture against sound by flash and beep.

Place in the flow: decrypted packets of a witness -> here, after the measurement, so that decoding disturbs nothing.

Invariants: a picture counts when the decoder gave it out whole; nothing is decoded twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
from aiortc.codecs.h264 import H264PayloadDescriptor
from aiortc.rtp import RtpPacket

from tests.benchmarks import strip
from tests.benchmarks.load.figures import VIDEO_RATE, unwrap

Arrived = Sequence[tuple[int, bytes]]
BEEP_LEVEL = 0.1
"""Of full scale; the beep is at half of it."""
PAIR_MS = 400.0
"""A flash and a beep further apart than this belong to different beats."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pictures in the order in which they were decoded.

    Attributes:
        times_ns: (n,) arrival of the last packet of each.
        media: (n,) RTP position, clock units.
        grids: (n, 1, strip.CELLS * 4) uint8, each picture's strip, see ``strip``.
        corrupt: pictures the decoder marked as damaged.
        first_key: pictures thrown away before the first that could be decoded.
    """

    times_ns: np.ndarray
    media: np.ndarray
    grids: np.ndarray
    corrupt: int
    first_key: int


def decode(packets: Arrived) -> Decoded:
    """Decodes H.264 from its first key frame on."""
    decoder = av.CodecContext.create("h264", "r")
    times: list[int] = []
    stamps: list[int] = []
    grids: list[np.ndarray] = []
    corrupt = skipped = 0
    started = False
    for at_ns, stamp, data in _access_units(packets):
        if not started and not _has_key(data):
            skipped += 1
            continue
        started = True
        packet = av.Packet(data)
        packet.pts = len(stamps)
        stamps.append(stamp)
        times.append(at_ns)
        for frame in decoder.decode(packet):
            corrupt += bool(frame.is_corrupt)
            grids.append(_strip_of(frame.to_ndarray(format="gray")))
    for frame in decoder.decode(None):
        grids.append(_strip_of(frame.to_ndarray(format="gray")))
    count = len(grids)
    media = unwrap(np.array(stamps[:count], np.int64), 32)
    return Decoded(
        np.array(times[:count], np.int64), media, np.array(grids, np.uint8).reshape(-1, 1, strip.CELLS * 4), corrupt,
        skipped,
    )  # fmt: skip


def _access_units(packets: Arrived) -> list[tuple[int, int, bytes]]:
    """(arrival of the last packet, time stamp, Annex B bytes) of each picture, packets in the order of sending."""
    parsed = [(at_ns, RtpPacket.parse(data)) for at_ns, data in packets]
    order = np.argsort(unwrap(np.array([packet.sequence_number for _, packet in parsed]), 16), kind="stable")
    units: list[tuple[int, int, bytes]] = []
    for at_ns, packet in (parsed[index] for index in order):
        if not packet.payload:
            continue
        data = H264PayloadDescriptor.parse(packet.payload)[1]
        if units and units[-1][1] == packet.timestamp:
            units[-1] = (max(units[-1][0], at_ns), packet.timestamp, units[-1][2] + data)
        else:
            units.append((at_ns, packet.timestamp, data))
    return units


def _has_key(data: bytes) -> bool:
    return any(unit and unit[0] & 0x1F == 5 for unit in data.split(b"\0\0\0\1"))


def _strip_of(grey: np.ndarray) -> np.ndarray:
    """(strip.CELLS * 4,) uint8: the middle of the strip, four values to a block."""
    height, width = grey.shape
    band = grey[int(height * strip.STRIP_SHARE / 4) : int(height * strip.STRIP_SHARE * 3 / 4)].mean(0)
    edges = np.linspace(0, width, strip.CELLS * 4 + 1).astype(int)
    return np.add.reduceat(band, edges[:-1]) / np.diff(edges)


@dataclass(frozen=True, slots=True)
class Beats:
    """Picture and sound of a stamped stream.

    Attributes:
        av_played_ms: beep less flash by the time stamps of both streams, as a browser plays them: median.
        av_arrival_ms: the same by arrival.
        pairs: flashes that had their beep.
        unread: pictures whose number could not be read.
        out_of_step: pictures whose number is not one more than that of the picture before.
    """

    av_played_ms: float | None
    av_arrival_ms: float | None
    pairs: int
    unread: int
    out_of_step: int


def beats(seen: Decoded, sound: Arrived, due: dict[str, tuple[float, int]]) -> Beats:
    """Pairs flashes with beeps.

    Args:
        seen: decoded pictures with a strip.
        sound: packets of sound.
        due: (Unix seconds, RTP time stamp) of a sender report of ``video`` and of ``audio``.
    """
    numbers = strip.read_numbers(seen.grids)
    known = numbers >= 0
    flashes = known & np.isin(numbers % strip.CYCLE_FRAMES, list(strip.BEATS))
    steps = np.diff(numbers[known])
    begins = _beeps(sound)
    played, arrived = [], []
    for at_ns, stamp in zip(seen.times_ns[flashes], seen.media[flashes], strict=True):
        if not begins:
            break
        flash_s = _moment(int(stamp), due.get("video"), VIDEO_RATE)
        beep_ns, beep_stamp = min(begins, key=lambda beep: abs(beep[0] - at_ns))
        if abs(beep_ns - at_ns) / 1e6 > PAIR_MS:
            continue
        arrived.append((beep_ns - at_ns) / 1e6)
        beep_s = _moment(beep_stamp, due.get("audio"), 48_000)
        if flash_s is not None and beep_s is not None:
            played.append((beep_s - flash_s) * 1000)
    return Beats(_median(played), _median(arrived), len(arrived), int((~known).sum()), int((steps != 1).sum()))


def _beeps(sound: Arrived) -> list[tuple[int, int]]:
    """(arrival, RTP time stamp) of each 20 ms in which a beep begins; the stamp is that of the beep's first sample."""
    decoder = av.CodecContext.create("opus", "r")
    found: list[tuple[int, int]] = []
    loud_before = False
    for at_ns, data in sound:
        packet = RtpPacket.parse(data)
        if not packet.payload:
            continue
        for frame in decoder.decode(av.Packet(packet.payload)):
            samples = np.abs(frame.to_ndarray().reshape(-1)) / (32768 if frame.format.name.startswith("s16") else 1)
            loud = samples > BEEP_LEVEL
            if loud.any() and not loud_before:
                channels = frame.layout.nb_channels if not frame.format.is_planar else 1
                found.append((at_ns, packet.timestamp + int(np.argmax(loud)) // channels))
            loud_before = bool(loud.any())
    return found


def _moment(stamp: int, due: tuple[float, int] | None, rate: int) -> float | None:
    """When a time stamp is due by a sender report, Unix seconds."""
    if due is None:
        return None
    at_s, reported = due
    ahead = ((stamp - reported + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
    return at_s + ahead / rate


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 1) if values else None


def decoded_fps(seen: Decoded, start_ns: int, end_ns: int) -> float:
    """Pictures decoded a second, of those that came within a time; from the first that could be decoded on."""
    if not len(seen.times_ns) or seen.times_ns[0] >= end_ns:
        return 0.0
    start_ns = max(start_ns, int(seen.times_ns[0]))
    inside = (seen.times_ns >= start_ns) & (seen.times_ns < end_ns)
    return round(float(inside.sum()) / ((end_ns - start_ns) / 1e9), 2)
