"""Idle loops: what is encoded once, whether it can be entered, and when it goes."""

from __future__ import annotations

import asyncio
import gc
import time

import numpy as np
import pytest

from engine.errors import NotFound
from engine.marking import STATEMENT
from server import idle_loops as module
from server.encoder import create_video_encoder
from server.encoder_pool import EncoderPool
from server.idle_loops import PIECE_FRAMES, IdleLoops
from server.packing import Packed
from tests.server.idle import SIZE, Decoder, avatar, loop_of, picture, psnr

RATE = 400_000


@pytest.fixture
async def pool():
    pool = EncoderPool(1)
    yield pool
    await pool.aclose()


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_a_decoder_can_start_at_each_piece_and_sees_the_avatar(pool, codec):
    face = avatar()
    loop = await loop_of(pool, face, 17, codec, RATE)
    assert len(loop.parcels) == 60 and loop.start == 0
    assert [index for index in range(60) if loop.at(index).key_frame] == [0, PIECE_FRAMES, 2 * PIECE_FRAMES]
    for start in (0, PIECE_FRAMES, 2 * PIECE_FRAMES):
        decoder = Decoder(codec)
        for index in range(start, min(start + 8, 60)):
            assert psnr(decoder.luma(loop.at(index)), face.picture(index)) > 36


async def test_it_goes_round_without_a_seam(pool):
    face = avatar()
    loop = await loop_of(pool, face, 0, "H264", RATE)
    decoder, index, errors = Decoder("H264"), 25, []
    for _ in range(90):
        errors.append(psnr(decoder.luma(loop.at(index)), face.picture(index)))
        index = loop.after(index)
    assert index == (25 + 90) % 60
    assert max(errors) - min(errors) < 8


async def test_each_piece_says_that_it_was_generated(pool):
    loop = await loop_of(pool, avatar(), 0, "H264", RATE)
    data = [Decoder("H264").data(parcel) for parcel in loop.parcels]
    assert [STATEMENT.encode() in one for one in data] == [parcel.key_frame for parcel in loop.parcels]


def headers(data: bytes) -> set[bytes]:
    return {unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:] if unit[0] & 0x1F in (7, 8)}


@pytest.mark.parametrize("hurried", [False, True])
async def test_its_headers_are_those_of_a_sessions_own_encoder(pool, hurried):
    loop = await loop_of(pool, avatar(), 0, "H264", RATE)
    own = create_video_encoder("H264", SIZE, SIZE, RATE, hurried=hurried)
    mine = headers(bytes(own.encode(picture(0, 60), 0, False)))
    assert len(mine) == 2 and mine == headers(Decoder("H264").data(loop.at(0)))


@pytest.mark.alone
async def test_it_is_made_once_for_all_and_the_caller_never_waits(pool, monkeypatch):
    made = []
    make = IdleLoops._make
    monkeypatch.setattr(IdleLoops, "_make", lambda self, order: (made.append(order), make(self, order))[1])
    face = avatar()
    started_s = time.monotonic()
    assert all(pool.loops.find(face, index, "H264", RATE) is None for index in range(50))
    assert time.monotonic() - started_s < 0.05
    loop = await loop_of(pool, face, 0, "H264", RATE)
    assert await loop_of(pool, face, 59, "H264", RATE) is loop
    assert len(made) == 1
    assert await loop_of(pool, face, 0, "H264", RATE + 1) is not loop


async def test_clips_that_loop_have_one_too_and_others_have_none(pool):
    loop = await loop_of(pool, face := avatar(), 75, "H264", RATE)
    assert (loop.start, len(loop.parcels)) == (60, 30)
    assert loop.at(59) is None and loop.at(60).key_frame and loop.after(89) == 60
    once = avatar(loop=False)
    assert pool.loops.find(once, 75, "H264", RATE) is None and not pool.loops._kept.get(once)
    assert pool.loops.find(face, 1000, "H264", RATE) is None


class HalfMatte:
    """A matte that calls everything person."""

    def at(self, pose):
        return np.full((SIZE, SIZE), 255, np.uint8)


async def test_whoever_packs_the_same_matte_shares_a_loop(pool):
    face, matte = avatar(), HalfMatte()
    loop = await loop_of(pool, face, 0, "H264", RATE, Packed(matte))
    assert await loop_of(pool, face, 0, "H264", RATE, Packed(matte)) is loop
    luma = Decoder("H264").luma(loop.at(0))
    assert luma.shape == (2 * SIZE, SIZE) and luma[SIZE + 8 :].min() > 225


async def test_loops_go_with_their_avatar_and_the_least_used_make_room():
    kept = []
    loops = IdleLoops(kept.append)
    pool = EncoderPool(1)
    pool.loops.close()
    pool.loops = loops
    first, second = avatar(count=26), avatar(count=26)
    one = await loop_of(pool, first, 0, "H264", RATE)
    await loop_of(pool, second, 0, "H264", RATE)
    assert kept[-1] == 2
    loops._limit_bytes = int(2.5 * one.size_bytes)
    pool.loops.find(first, 0, "H264", RATE)
    await loop_of(pool, avatar(count=26), 0, "H264", RATE)
    assert kept[-1] == 2
    assert pool.loops.find(first, 0, "H264", RATE) is one, "used since the second was"
    assert not loops._kept.get(second)
    del first, second, one
    gc.collect()
    assert loops.size_bytes == 0
    await pool.aclose()


async def test_what_cannot_be_encoded_is_tried_once(pool, monkeypatch, caplog):
    tried = []

    def fail(*args):
        tried.append(1)
        raise ValueError("no such encoder")

    monkeypatch.setattr(module, "_encoder", fail)
    face = avatar(count=26)
    for _ in range(20):
        assert pool.loops.find(face, 3, "H264", RATE) is None
        await asyncio.sleep(0.01)
    assert tried == [1] and "encode themselves" in caplog.text


@pytest.mark.parametrize(
    "error", [NotFound("avatar_not_found", "It was deleted."), MemoryError(), AssertionError("no picture")]
)
async def test_whatever_goes_wrong_over_one_avatar_the_others_get_their_loops(pool, caplog, error):
    gone, stays = avatar(count=26), avatar(count=27)

    def folder_of(face):
        if face is gone:
            raise error

    pool.loops.folder_of = folder_of
    assert pool.loops.find(gone, 3, "H264", RATE) is None
    assert len((await loop_of(pool, stays, 3, "H264", RATE)).parcels) == 27
    assert pool.loops.find(gone, 3, "H264", RATE) is None and "encode themselves" in caplog.text


async def test_closing_stops_the_work_at_the_next_picture(pool):
    pool.loops.find(avatar(count=300), 0, "VP8", RATE)
    await asyncio.sleep(0.05)
    pool.loops.close()
    pool.loops._thread.join(1.0)
    assert not pool.loops._thread.is_alive()


async def made_of(tmp_path, monkeypatch, face) -> tuple[tuple, bool]:
    """The loop's parcels by a process of its own, and whether it had to encode."""
    encoded = []
    encoder = module._encoder
    with monkeypatch.context() as patched:
        patched.setattr(module, "_encoder", lambda *args: (encoded.append(1), encoder(*args))[1])
        pool = EncoderPool(1)
        pool.loops.folder_of = lambda _: tmp_path / "loops"
        loop = await loop_of(pool, face, 0, "H264", RATE)
        await pool.aclose()
    return loop.parcels, bool(encoded)


async def test_the_next_start_has_it_from_disk_and_a_broken_file_is_as_good_as_none(tmp_path, monkeypatch, caplog):
    face = avatar(count=30)
    first, encoded = await made_of(tmp_path, monkeypatch, face)
    assert encoded
    (file,) = (tmp_path / "loops").iterdir()
    assert await made_of(tmp_path, monkeypatch, avatar(count=30)) == (first, False)
    _, encoded = await made_of(tmp_path, monkeypatch, avatar(count=31))
    assert encoded, "another avatar"
    for broken in (b"", b"VLP1", file.read_bytes()[:-7], file.read_bytes() + b"x", b"other" * 100):
        file.write_bytes(broken)
        again, encoded = await made_of(tmp_path, monkeypatch, face)
        assert encoded and [parcel.key_frame for parcel in again] == [parcel.key_frame for parcel in first]
    assert "made again" in caplog.text


async def test_a_deleted_avatar_leaves_nothing_behind(tmp_path):
    pool = EncoderPool(1)
    pool.loops.folder_of = lambda _: tmp_path / "gone" / "loops"
    await loop_of(pool, avatar(count=26), 0, "H264", RATE)
    await pool.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_what_is_prepared_takes_its_time_until_somebody_waits(pool):
    face = avatar(count=200)
    pool.loops.prepare(face, "H264", RATE)
    ((order,),) = [kept.values() for kept in pool.loops._kept.values()]
    assert not order.urgent
    assert pool.loops.find(face, 3, "H264", RATE) is None and order.urgent
    assert len((await loop_of(pool, face, 3, "H264", RATE)).parcels) == 200
