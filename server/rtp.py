"""Encoded pictures and sound as RTP payloads, cut up once however many viewers they go to.

Place in the flow: encoder -> ``pack`` -> Parcel -> track -> ``sending.RtpStream``, one for each viewer, which puts the
header before each payload.

Invariants:
    * a parcel is immutable and knows no viewer: nothing in it counts on from parcel to parcel (a VP8 picture id is zero
      here, the stream writes its own over it), so a stream may go over from one source of parcels to another;
    * no payload is longer than ``PAYLOAD_LIMIT``;
    * the payloads of a picture are equally long but for the last of each unit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Codec = Literal["H264", "VP8", "opus"]

PAYLOAD_LIMIT = 1180
"""Bytes; what IPv6's smallest MTU of 1,280 leaves after IP, UDP, RTP, extensions, SRTP, RTX and a relay's channel."""

_STAP_A = 24
_FU_A = 28
_NRI = 0x60
_LENGTH = struct.Struct("!H")
_VP8_FIRST = b"\x90\x80\x80\x00"
_VP8_NEXT = b"\x80\x80\x80\x00"
"""RFC 7741, 4.2: X and S (a partition starts), then I, then a picture id of 15 bits."""
VP8_PICTURE_ID = slice(2, 4)
"""Where the picture id stands in every VP8 payload; its first bit says that it has two bytes."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One picture, or 20 ms of sound, ready to be sent to anybody.

    Attributes:
        payloads: RTP payloads without their headers: H.264 by RFC 6184 (single units, STAP-A, FU-A), VP8 by RFC 7741
            with picture id zero, Opus as it is.
        key_frame: a decoder can start here.
    """

    payloads: tuple[bytes, ...]
    key_frame: bool = False


def pack(codec: Codec, data: bytes, key_frame: bool = False) -> Parcel:
    """Cuts up what an encoder returned.

    Args:
        codec: what made it.
        data: one access unit; H.264 with start codes (Annex B).
        key_frame: a decoder can start here.
    """
    if codec == "H264":
        return Parcel(tuple(_h264(data)), key_frame)
    if codec == "VP8":
        return Parcel(tuple(_vp8(data)), key_frame)
    return Parcel((data,), key_frame)


def _h264(data: bytes) -> Iterator[bytes]:
    small: list[bytes] = []
    size = 1
    # A unit ends with a one bit, so the zeros before a start code (the fourth byte of a long one, too) belong to none.
    for unit in (part.rstrip(b"\0") for part in data.split(b"\0\0\1")[1:]):
        if small and size + 2 + len(unit) > PAYLOAD_LIMIT:
            yield _together(small)
            small, size = [], 1
        if len(unit) > PAYLOAD_LIMIT:
            yield from _fragments(unit)
        elif unit:
            small.append(unit)
            size += 2 + len(unit)
    if small:
        yield _together(small)


def _together(units: list[bytes]) -> bytes:
    if len(units) == 1:
        return units[0]
    # The aggregate is as important as the most important unit in it.
    header = max(unit[0] & _NRI for unit in units) | _STAP_A
    return bytes([header]) + b"".join(_LENGTH.pack(len(unit)) + unit for unit in units)


def _fragments(unit: bytes) -> Iterator[bytes]:
    indicator, kind = unit[0] & ~0x1F | _FU_A, unit[0] & 0x1F
    pieces = list(_equal(unit[1:], PAYLOAD_LIMIT - 2))
    for index, piece in enumerate(pieces):
        start, end = (index == 0) << 7, (index == len(pieces) - 1) << 6
        yield bytes([indicator, start | end | kind]) + piece


def _vp8(data: bytes) -> Iterator[bytes]:
    for index, piece in enumerate(_equal(data, PAYLOAD_LIMIT - len(_VP8_FIRST))):
        yield (_VP8_NEXT if index else _VP8_FIRST) + piece


def _equal(data: bytes, limit: int) -> Iterator[bytes]:
    """Pieces of at most ``limit`` bytes, as few as can be and equally long but for the last."""
    pieces = -(-len(data) // limit)
    size = -(-len(data) // max(pieces, 1))
    return (data[at : at + size] for at in range(0, len(data), size or 1))
