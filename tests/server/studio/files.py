"""Files people might upload, good and evil, made byte by byte."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np


def png(width: int = 64, height: int = 64, *, claims: tuple[int, int] | None = None, after: bytes = b"") -> bytes:
    """A grey PNG; ``claims`` are the width and height its header tells instead of the true ones."""
    wide, high = claims or (width, height)
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    header = struct.pack(">IIBBBBB", wide, high, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body + after


def jpeg(width: int = 64, height: int = 48) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), 120, np.uint8))[1].tobytes()


def jpeg_that_claims(width: int, height: int) -> bytes:
    """A small JPEG whose header says it is larger."""
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(width: int = 64, height: int = 48) -> bytes:
    return cv2.imencode(".webp", np.full((height, width, 3), 120, np.uint8))[1].tobytes()


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def mp4(*boxes: bytes) -> bytes:
    """Something with the outline of an mp4."""
    return box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + b"".join(boxes or (box(b"moov", b"\0" * 8), box(b"mdat", b"\0")))


def webm(segment: bytes = b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff", after: bytes = b"\0" * 64) -> bytes:
    """Something with the outline of a recording; its segment's length is unknown unless said."""
    head = b"\x42\x82\x84webm"
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 | len(head)]) + head + segment + after
