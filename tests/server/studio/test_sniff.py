"""Files are known by their bytes; bombs, polyglots and fragments are refused without decoding anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import PortraitInvalid
from server.studio.sniff import Upload, sniff
from tests.server.studio import files

MEGA = 1_000_000


@pytest.fixture
def look(tmp_path: Path):
    def look(data: bytes, max_pixels: int = 50 * MEGA) -> Upload:
        path = tmp_path / "upload"
        path.write_bytes(data)
        return sniff(path, max_pixels)

    return look


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (files.png(70, 50), Upload(".png", True, 70, 50)),
        (files.jpeg(70, 50), Upload(".jpg", True, 70, 50)),
        (files.webp(70, 50), Upload(".webp", True, 70, 50)),
        (files.mp4(), Upload(".mp4", False)),
        (files.mp4(files.box(b"moov"), files.box(b"moof"), files.box(b"mdat")), Upload(".mp4", False)),
        (files.webm(), Upload(".webm", False)),
    ],
)
def test_photos_and_clips_are_told_by_their_bytes(look, data, found):
    assert look(data) == found


def test_real_photos_pass(shared_data, look):
    for path in sorted((shared_data / "faces" / "stills").iterdir()):
        assert look(path.read_bytes()).photo


@pytest.mark.parametrize("data", [files.png(claims=(60_000, 60_000)), files.jpeg_that_claims(60_000, 60_000)])
def test_a_decompression_bomb_is_refused_by_its_header(look, data):
    assert len(data) < 2000
    with pytest.raises(PortraitInvalid, match="3600 megapixels") as caught:
        look(data)
    assert caught.value.code == "source_too_large"


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\nhttp://169.254.169.254/latest/meta-data/\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<html><script>alert(1)</script>",
        b"%PDF-1.7\n", b"PK\3\4" + b"\0" * 64, b"GIF89a" + b"\0" * 64, b"RIFF\x24\0\0\0WAVEfmt ",
        files.box(b"ftyp", b"heic\0\0\0\0mif1heic") + files.box(b"meta"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_type(look, data):
    with pytest.raises(PortraitInvalid) as caught:
        look(data)
    assert caught.value.code == "source_type"


@pytest.mark.parametrize(
    "data",
    [
        files.png(after=b"PK\3\4 a zip archive behind the picture"),
        files.jpeg() + b"<script>alert(document.domain)</script>",
        files.jpeg() + b"PK\3\4" + b"\0" * 100,
        files.webp() + b"%PDF-1.7 ",
        files.mp4() + b"PK\3\4" + b"\0" * 100,
        files.webm(b"\x18\x53\x80\x67\x84", b"\0" * 4 + b"#!/bin/sh\n"),
    ],
)
def test_a_polyglot_is_refused(look, data):
    with pytest.raises(PortraitInvalid) as caught:
        look(data)
    assert caught.value.code == "source_appended"


@pytest.mark.parametrize(
    "after", [b"\0" * 20, files.jpeg(), b"\0\0\0\x18ftypmp42" + b"\0" * 50, b"notes" * 40 + b"SEFT"]
)
def test_what_phones_append_to_their_photos_is_no_reason_to_refuse_them(look, after):
    assert look(files.jpeg() + after).ending == ".jpg"


@pytest.mark.parametrize("whole", [files.png(), files.jpeg(), files.webp(), files.mp4(), files.webm(after=b"")])
def test_no_file_that_is_cut_off_anywhere_does_more_than_raise(look, whole):
    for length in range(1, len(whole)):
        with pytest.raises(PortraitInvalid):
            look(whole[:length])


def test_an_empty_file_is_refused(look):
    with pytest.raises(PortraitInvalid) as caught:
        look(b"")
    assert caught.value.code == "source_empty"


@pytest.mark.parametrize(
    "data",
    [
        files.mp4(b"\0\0\0\1mdat" + b"\xff" * 8, files.box(b"moov")),
        files.mp4(files.box(b"moov")),
        files.mp4(*[files.box(b"free")] * 5000),
        b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7 + files.webm(),
        files.png(claims=(0, 5)),
    ],
)
def test_sizes_that_cannot_be_are_damage(look, data):
    with pytest.raises(PortraitInvalid) as caught:
        look(data)
    assert caught.value.code == "source_damaged"
