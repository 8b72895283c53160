"""Tells what an uploaded file is by its own bytes, and refuses what is no plain photo or clip, without decoding it.

Place in the flow: upload on disk -> ``sniff`` -> ``Upload`` -> job. What passes is opened by the worker only.

Invariants:
    * neither a name nor a type that the sender claims is looked at;
    * no length or size in a file is believed beyond the file's own end; only headers are read, at most a megabyte of
      markers;
    * a file is one thing from its first byte to its last: what is appended to it is refused, save for what phones
      append to their photos.

Formats, from their specifications: JPEG (ITU-T T.81), PNG (W3C PNG 3), WebP (RFC 9649), ISO media (ISO/IEC 14496-12),
Matroska and WebM (RFC 9559, RFC 8794).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import PortraitInvalid

_PNG = b"\x89PNG\r\n\x1a\n"
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_JPEG_END = b"\xff\xd9"
# Start of frame: every kind of JPEG that has a size (C4, C8 and CC are tables and an extension).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD8)])
_MAX_PARTS = 4096
"""Markers, chunks or boxes of one file; a long clip recorded in fragments has some hundred."""
_MAX_CHUNKS = 100_000
"""Of a PNG; software that writes photos cuts them into chunks of a few kilobytes."""
_MAX_EBML_TYPE_BYTES = 4096
_MAX_PADDING_BYTES = 1 << 16
_BOXES = frozenset(
    [b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"ssix", b"styp", b"prft", b"emsg", b"free", b"skip",
     b"wide", b"uuid", b"meta", b"udta", b"pdin", b"meco", b"pnot", b"PICT"]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Upload:
    """What a file is.

    Attributes:
        ending: the one its kind has, with a dot.
        photo: a still picture, or a clip.
        width, height: pixels, from its header; 0 for clips, whose sizes only a demuxer can tell.
    """

    ending: str
    photo: bool
    width: int = 0
    height: int = 0


def sniff(path: Path, max_pixels: int) -> Upload:
    """Looks at a file.

    Args:
        path: the file; it must not change meanwhile.
        max_pixels: of a photo.

    Raises:
        PortraitInvalid: ``source_empty``, ``source_type`` (something else), ``source_damaged`` (cut off, or sizes that
            cannot be), ``source_appended`` (more than one thing), ``source_too_large`` (pixels).
    """
    if path.stat().st_size == 0:
        raise PortraitInvalid("source_empty", "The file is empty.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        upload = _kind(data)
    if upload.width * upload.height > max_pixels:
        raise PortraitInvalid(
            "source_too_large",
            f"The photo has {upload.width * upload.height / 1e6:.0f} megapixels; at most {max_pixels / 1e6:.0f}. "
            "Scale it down.",
        )
    return upload


def _kind(data: mmap.mmap) -> Upload:
    head = data[:16]
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if head.startswith(_PNG):
        return _png(data)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(data)
    if head[4:8] == b"ftyp":
        return _iso_media(data)
    if head.startswith(_EBML):
        return _matroska(data)
    raise PortraitInvalid(
        "source_type",
        "This is neither a photo nor a clip that is understood here. Use jpg, png, webp, mp4, mov or webm.",
    )


def _jpeg(data: mmap.mmap) -> Upload:
    size = (0, 0)
    place = 2
    for _ in range(_MAX_PARTS):
        if place + 4 > len(data) or data[place] != 0xFF:
            raise _damaged()
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _JPEG_BARE:
            place += 2
            continue
        if marker == 0xD9:
            raise _damaged()
        length = int.from_bytes(data[place + 2 : place + 4])
        if length < 2 or place + 2 + length > len(data):
            raise _damaged()
        if marker in _JPEG_FRAMES:
            if length < 8:
                raise _damaged()
            height, width = (int.from_bytes(data[place + at : place + at + 2]) for at in (5, 7))
            size = (max(size[0], width), max(size[1], height))
        place += 2 + length
        if marker == 0xDA:
            break
    if not all(size):
        raise _damaged()
    # In coded data FF is always followed by 00 or a restart marker, so this is the end and nothing else.
    end = data.find(_JPEG_END, place)
    if end < 0:
        raise _damaged()
    _check_after_jpeg(data, end + 2)
    return Upload(".jpg", True, *size)


def _check_after_jpeg(data: mmap.mmap, end: int) -> None:
    """Phones append a second picture, a second of film, or notes of their own; anything else is no photo."""
    rest = data[end : end + _MAX_PADDING_BYTES].lstrip(b"\0\r\n")
    padding = not rest and len(data) - end <= _MAX_PADDING_BYTES
    if not (padding or rest.startswith(b"\xff\xd8\xff") or data[end + 4 : end + 8] == b"ftyp" or data[-4:] == b"SEFT"):
        raise _appended()


def _png(data: mmap.mmap) -> Upload:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise _damaged()
    width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise _damaged()
    place = len(_PNG)
    for _ in range(_MAX_CHUNKS):
        if place + 12 > len(data):
            raise _damaged()
        kind = data[place + 4 : place + 8]
        place += 12 + int.from_bytes(data[place : place + 4])
        if kind == b"IEND":
            break
        if kind == b"acTL":
            raise PortraitInvalid("source_type", "Animated pictures cannot be used; upload a photo, or a clip as mp4.")
    else:
        raise _damaged()
    if place > len(data):
        raise _damaged()
    if place < len(data):
        raise _appended()
    return Upload(".png", True, width, height)


def _webp(data: mmap.mmap) -> Upload:
    length = int.from_bytes(data[4:8], "little") + 8
    length += length % 2
    if length > len(data) or len(data) < 30:
        raise _damaged()
    if length < len(data):
        raise _appended()
    kind, chunk = data[12:16], data[20:30]
    if kind == b"VP8X":
        if chunk[0] & 2:
            raise PortraitInvalid("source_type", "Animated pictures cannot be used; upload a photo, or a clip as mp4.")
        width, height = (int.from_bytes(chunk[at : at + 3], "little") + 1 for at in (4, 7))
    elif kind == b"VP8L" and chunk[0] == 0x2F:
        bits = int.from_bytes(chunk[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 " and chunk[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(chunk[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        raise _damaged()
    if not width or not height:
        raise _damaged()
    return Upload(".webp", True, width, height)


def _iso_media(data: mmap.mmap) -> Upload:
    if data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis", b"hevc"):
        raise PortraitInvalid("source_type", "HEIC and AVIF photos cannot be read here; save the photo as jpg.")
    kinds = set(_boxes(data))
    if b"moov" not in kinds or not kinds & {b"mdat", b"moof"}:
        raise _damaged()
    return Upload(".mp4", False)


def _boxes(data: mmap.mmap) -> Iterator[bytes]:
    """Types of the boxes at the top, which follow each other without a gap up to the end."""
    place = 0
    for _ in range(_MAX_PARTS):
        if place == len(data):
            return
        if place + 8 > len(data):
            raise _appended()
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        if kind not in _BOXES:
            raise _appended() if place else _damaged()
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16])
        elif length == 0:
            length = len(data) - place
        if length < 8 or length > len(data) - place:
            raise _damaged()
        yield kind
        place += length
    raise _damaged()


def _matroska(data: mmap.mmap) -> Upload:
    length, start = _ebml_length(data, 4)
    if length is None or length > _MAX_EBML_TYPE_BYTES or not any(
        kind in data[start : start + length] for kind in (b"webm", b"matroska")
    ):
        raise _damaged()
    place = start + length
    if data[place : place + 4] != _SEGMENT:
        raise _damaged()
    length, start = _ebml_length(data, place + 4)
    # A browser that records does not know the length beforehand and says so; such a segment reaches to the end.
    if length is not None and start + length > len(data):
        raise _damaged()
    if length is not None and start + length < len(data):
        raise _appended()
    return Upload(".webm", False)


def _ebml_length(data: mmap.mmap, place: int) -> tuple[int | None, int]:
    """A length (None: unknown) and where what it measures begins."""
    first = data[place] if place < len(data) else 0
    if not first:
        raise _damaged()
    width = 9 - first.bit_length()
    value = int.from_bytes(data[place : place + width]) & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), place + width


def _damaged() -> PortraitInvalid:
    return PortraitInvalid("source_damaged", "The file is damaged or cut off. Save or record it again.")


def _appended() -> PortraitInvalid:
    return PortraitInvalid(
        "source_appended",
        "Something is appended to the picture or clip. Open it in a photo or video program and save it again.",
    )
