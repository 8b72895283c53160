"""The statement that a video was generated: where it stands, and that decoders are not troubled by it."""

from __future__ import annotations

from engine.marking import DIGITAL_SOURCE_TYPE, SEI, SEI_UUID, mark_h264

SPS, PPS = b"\x00\x00\x00\x01\x67\x42", b"\x00\x00\x00\x01\x68\xce"


def test_the_statement_stands_right_before_the_picture():
    for start in (b"\x00\x00\x01", b"\x00\x00\x00\x01"):
        idr = start + b"\x65\x88\x84"
        assert mark_h264(SPS + PPS + idr) == SPS + PPS + SEI + idr


def test_pictures_that_need_others_are_left_alone():
    picture = b"\x00\x00\x00\x01\x41\x9a\x65\x00\x00\x01"
    assert mark_h264(picture) == picture


def test_the_message_is_whole_and_holds_nothing_like_a_start_code():
    assert SEI[4:6] == b"\x06\x05" and SEI[-1] == 0x80
    payload = SEI[7:-1]
    assert len(payload) == SEI[6] and 0 not in payload
    assert payload[:16] == SEI_UUID.bytes and payload.decode("latin-1").endswith(DIGITAL_SOURCE_TYPE)
