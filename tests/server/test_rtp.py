"""Parcels: what is cut up can be put together again by whoever follows the RFCs, here aiortc's depacketisers."""

from __future__ import annotations

import random

import pytest
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import VpxPayloadDescriptor, vp8_depayload

from server.encoder import create_video_encoder
from server.rtp import PAYLOAD_LIMIT, VP8_PICTURE_ID, pack
from tests.server.fakes import make_frame


def unit(kind: int, size: int) -> bytes:
    # No zeros, so that nothing looks like a start code.
    return bytes([0x60 | kind]) + random.Random(size).randbytes(size - 1).replace(b"\0", b"\1")


def stream(*units: bytes, start: bytes = b"\0\0\0\1") -> bytes:
    return b"".join(start + unit for unit in units)


@pytest.mark.parametrize(
    "sizes", [(10,), (10, 20), (PAYLOAD_LIMIT,), (PAYLOAD_LIMIT + 1,), (30, 8, 5000), (9000, 10, 10)]
)
@pytest.mark.parametrize("start", [b"\0\0\0\1", b"\0\0\1"])
def test_h264_arrives_as_it_was(sizes, start):
    units = [unit(1 + index % 5, size) for index, size in enumerate(sizes)]
    parcel = pack("H264", stream(*units, start=start))
    assert b"".join(h264_depayload(payload) for payload in parcel.payloads) == stream(*units)
    assert max(map(len, parcel.payloads)) <= PAYLOAD_LIMIT


def test_small_units_travel_together():
    parcel = pack("H264", stream(unit(7, 20), unit(8, 6), unit(6, 200), unit(5, 4000)), key_frame=True)
    assert parcel.key_frame
    assert [payload[0] & 31 for payload in parcel.payloads] == [24, 28, 28, 28, 28]


def test_pieces_of_a_large_unit_are_equally_long_but_for_the_last():
    *most, last = map(len, pack("H264", stream(unit(1, 9000))).payloads)
    assert len(set(most)) == 1
    assert last <= most[0]


@pytest.mark.parametrize("size", [1, 1176, 1177, 9000])
def test_vp8_arrives_as_it_was(size):
    data = random.Random(size).randbytes(size)
    payloads = pack("VP8", data).payloads
    assert b"".join(vp8_depayload(payload) for payload in payloads) == data
    assert max(map(len, payloads)) <= PAYLOAD_LIMIT
    descriptors = [VpxPayloadDescriptor.parse(payload)[0] for payload in payloads]
    assert [found.partition_start for found in descriptors] == [1] + [0] * (len(payloads) - 1)
    assert {found.picture_id for found in descriptors} == {0}


def test_the_picture_id_stands_where_it_is_said_to_stand():
    payload = pack("VP8", b"picture").payloads[0]
    changed = payload[: VP8_PICTURE_ID.start] + (0x8000 | 12345).to_bytes(2, "big") + payload[VP8_PICTURE_ID.stop :]
    descriptor, rest = VpxPayloadDescriptor.parse(changed)
    assert (descriptor.picture_id, rest) == (12345, b"picture")


def test_an_encoded_picture_is_whole():
    encoder = create_video_encoder("H264", 256, 256, 400_000)
    data = bytes(encoder.encode(make_frame(0).image, 0, True))
    parcel = pack("H264", data, True)
    arrived = b"".join(h264_depayload(payload) for payload in parcel.payloads)
    assert arrived == stream(*(part.rstrip(b"\0") for part in data.split(b"\0\0\1")[1:]))


def test_sound_is_one_payload():
    assert pack("opus", b"sound").payloads == (b"sound",)
