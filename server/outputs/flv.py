"""The bodies of RTMP's messages: H.264 and AAC as FLV files hold them (Adobe's FLV specification 10.1, ISO 14496-15).

Place in the flow: Parcel -> ``nal_units`` -> ``picture``; AAC packet -> ``sound`` -> ``RtmpConnection.send``.

Invariants: nothing is encoded or changed here, so what says in our H.264 that it was generated stays in it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from engine.marking import STATEMENT
from engine.types import FPS, PLAYOUT_RATE
from server.outputs import amf

AUDIO_KBPS = 128

_AVC, _AAC_STEREO = 7, 0xAF
_SEQUENCE_HEADER, _MEDIA = 0, 1
_STAP_A, _FU_A = 24, 28
SPS, PPS = 7, 8
_DELIMITER = 9


def nal_units(payloads: Sequence[bytes]) -> list[bytes]:
    """RTP payloads of one picture (RFC 6184) -> its NAL units, without start codes.

    Raises:
        ValueError: a payload of a kind that our sender does not make.
    """
    units: list[bytes] = []
    parts: list[bytes] = []
    for payload in payloads:
        kind = payload[0] & 0x1F
        if 0 < kind < _STAP_A:
            units.append(payload)
        elif kind == _STAP_A:
            at = 1
            while at < len(payload):
                (length,) = struct.unpack_from(">H", payload, at)
                units.append(payload[at + 2 : at + 2 + length])
                at += 2 + length
        elif kind == _FU_A:
            if payload[1] & 0x80:
                parts = [bytes([payload[0] & 0xE0 | payload[1] & 0x1F])]
            parts.append(payload[2:])
            if payload[1] & 0x40:
                units.append(b"".join(parts))
        else:
            raise ValueError(f"an RTP payload of kind {kind}")
    return units


def picture_header(units: Sequence[bytes]) -> bytes | None:
    """What a decoder must know before a key frame (AVCDecoderConfigurationRecord); None without parameter sets."""
    sps = next((unit for unit in units if unit[0] & 0x1F == SPS), None)
    pps = next((unit for unit in units if unit[0] & 0x1F == PPS), None)
    if sps is None or pps is None:
        return None
    # Lengths of four bytes; one set of each.
    record = b"\x01" + sps[1:4] + b"\xff\xe1" + struct.pack(">H", len(sps)) + sps
    record += b"\x01" + struct.pack(">H", len(pps)) + pps
    return bytes([1 << 4 | _AVC, _SEQUENCE_HEADER, 0, 0, 0]) + record


def picture(units: Sequence[bytes], key_frame: bool) -> bytes:
    """One picture; its parameter sets stand in its header."""
    kept = (unit for unit in units if unit[0] & 0x1F not in (SPS, PPS, _DELIMITER))
    body = b"".join(struct.pack(">I", len(unit)) + unit for unit in kept)
    return bytes([(1 if key_frame else 2) << 4 | _AVC, _MEDIA, 0, 0, 0]) + body


def sound_header(config: bytes) -> bytes:
    """What a decoder must know before sound. Args: config: AAC's AudioSpecificConfig, an encoder's extradata."""
    return bytes([_AAC_STEREO, _SEQUENCE_HEADER]) + config


def sound(packet: bytes) -> bytes:
    """One AAC frame."""
    # The first byte's rate and channels are fixed for AAC; the true ones stand in the header.
    return bytes([_AAC_STEREO, _MEDIA]) + packet


def about(width: int, height: int, video_bitrate: int) -> bytes:
    """What the stream is, for servers and players, and that it was generated."""
    told: Mapping[str, float | bool | str] = {
        "width": width,
        "height": height,
        "framerate": FPS,
        "videocodecid": _AVC,
        "videodatarate": video_bitrate / 1000,
        "audiocodecid": 10,
        "audiodatarate": AUDIO_KBPS,
        "audiosamplerate": PLAYOUT_RATE,
        "audiosamplesize": 16,
        "stereo": True,
        "encoder": "Visavis",
        "comment": STATEMENT,
    }
    return amf.encode("@setDataFrame", "onMetaData", told)
