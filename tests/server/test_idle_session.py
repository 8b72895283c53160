"""A session at rest: its pictures come out of the shared loop, its silence is next to nothing, and nobody can tell."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from engine.clock import FrameClock
from engine.planner import SILENCE
from engine.types import FRAME_SAMPLES, AvatarFrame
from server.encoder_pool import EncoderPool
from server.loop_follower import SETTLED_FRAMES
from server.silence import HANGOVER_FRAMES, NOTHING, REFRESH_FRAMES
from server.tracks import AvatarAudioTrack, AvatarVideoTrack
from tests.server.idle import Decoder, avatar, loop_of, picture, psnr, still

RATE = 400_000


@pytest.fixture
async def pool():
    pool = EncoderPool(1)
    yield pool
    await pool.aclose()


def spoken(pts: int) -> AvatarFrame:
    """A frame that is none of the avatar's pictures."""
    return AvatarFrame(picture(pts * 3 + 1, 64), SILENCE, pts)


class Viewer:
    """Shows frames at once, one after the other, and remembers what came."""

    def __init__(self, pool: EncoderPool, codec: str = "H264") -> None:
        self.pool = pool
        self.encoded = 0
        self.track = AvatarVideoTrack(
            FrameClock(time.monotonic() - 1000), pool, codec, RATE, on_encoded=lambda _: self._encoded()
        )
        self.decoder = Decoder(codec)
        self.looped: list[int] = []
        self.keys: list[int] = []
        self.psnr: list[float] = []

    def _encoded(self) -> None:
        self.encoded += 1

    async def show(self, *frames: AvatarFrame) -> None:
        for frame in frames:
            before = self.encoded
            reader = asyncio.create_task(self.track.next_parcel())
            await asyncio.sleep(0)
            self.track.offer(frame)
            parcel, timestamp = await asyncio.wait_for(reader, 5)
            assert timestamp == frame.pts * 3600, "time goes on whatever the source"
            if self.encoded == before:
                self.looped.append(frame.pts)
            if parcel.key_frame:
                self.keys.append(frame.pts)
            self.psnr.append(psnr(self.decoder.luma(parcel), frame.image))


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_a_session_goes_over_at_a_key_frame_and_leaves_with_one_and_nothing_is_seen(pool, codec):
    face = avatar()
    await loop_of(pool, face, 0, codec, RATE)
    viewer = Viewer(pool, codec)
    await viewer.show(*(still(face, (pts + 8) % 60, pts) for pts in range(40)))
    # The first piece that begins after it had settled begins at picture 25.
    assert viewer.looped == [*range(17, 40)] and viewer.keys == [0, 17]
    await viewer.show(*(spoken(pts) for pts in range(40, 50)))
    assert viewer.looped[-1] == 39 and viewer.keys[-1] == 40
    await viewer.show(*(still(face, pts % 60, pts) for pts in range(50, 90)))
    assert viewer.looped[-1] == 89 and 60 <= viewer.keys[3] <= 75
    assert min(viewer.psnr) > 34
    assert pool.metrics.looped_viewers._value.get() == 1
    await viewer.track.aclose()
    assert pool.metrics.looped_viewers._value.get() == 0


async def test_a_short_pause_is_not_worth_a_key_frame(pool):
    face = avatar()
    await loop_of(pool, face, 0, "H264", RATE)
    viewer = Viewer(pool)
    await viewer.show(*(spoken(pts) for pts in range(5)))
    await viewer.show(*(still(face, 22 + pts, 5 + pts) for pts in range(SETTLED_FRAMES)))
    await viewer.show(*(spoken(pts) for pts in range(15, 20)))
    assert viewer.looped == [] and viewer.keys == [0]
    await viewer.track.aclose()


async def test_a_lost_picture_is_repaired_by_the_sessions_own_encoder_at_once(pool, monkeypatch):
    monkeypatch.setattr("server.tracks.KEY_FRAME_GAP_S", 0.0)
    face = avatar()
    await loop_of(pool, face, 0, "H264", RATE)
    viewer = Viewer(pool)
    await viewer.show(*(still(face, (14 + pts) % 60, pts) for pts in range(20)))
    assert viewer.looped[-1] == 19
    viewer.track.request_key_frame()
    await viewer.show(*(still(face, (14 + pts) % 60, pts) for pts in range(20, 40)))
    assert viewer.keys[-2:] == [20, 36], "and back where the next piece begins"
    assert [pts for pts in viewer.looped if pts >= 20] == [*range(36, 40)]
    await viewer.track.aclose()


async def test_a_gap_in_the_pictures_leaves_the_loop(pool):
    face = avatar()
    await loop_of(pool, face, 0, "H264", RATE)
    viewer = Viewer(pool)
    await viewer.show(*(still(face, (14 + pts) % 60, pts) for pts in range(20)))
    await viewer.show(still(face, 40, 23))
    assert viewer.looped[-1] == 19 and viewer.keys[-1] == 23
    assert min(viewer.psnr) > 34
    await viewer.track.aclose()


async def test_a_reader_that_stands_still_breaks_no_chain(pool):
    face = avatar()
    await loop_of(pool, face, 0, "H264", RATE)
    viewer = Viewer(pool)
    await viewer.show(*(still(face, (14 + pts) % 60, pts) for pts in range(15)))
    for pts in range(15, 40):
        viewer.track.offer(still(face, (14 + pts) % 60, pts))
        await asyncio.sleep(0.002)
    positions = []
    while not positions or positions[-1] != 39:
        parcel, timestamp = await asyncio.wait_for(viewer.track.next_parcel(), 5)
        pts = timestamp // 3600
        assert not positions or pts == positions[-1] + 1 or parcel.key_frame
        viewer.decoder.luma(parcel)
        positions.append(pts)
    await viewer.track.aclose()


async def test_another_dress_is_not_in_the_loop(pool):
    face = avatar()
    await loop_of(pool, face, 0, "H264", RATE)
    viewer = Viewer(pool)
    viewer.track.dress = lambda frame: frame.image[::-1].copy()
    viewer.psnr = []
    track, frames = viewer.track, [still(face, pts, pts) for pts in range(40)]
    for frame in frames:
        reader = asyncio.create_task(track.next_parcel())
        await asyncio.sleep(0)
        track.offer(frame)
        await reader
    assert viewer.encoded == 40
    await track.aclose()


async def test_encoders_begin_in_a_hurry_while_pictures_are_late_and_that_is_told(pool):
    told: list[bool] = []
    track = AvatarVideoTrack(FrameClock(time.monotonic() - 1000), pool, "H264", RATE, on_hurried=told.append)
    pool.pressure.hurried = True
    for pts in range(3):
        reader = asyncio.create_task(track.next_parcel())
        await asyncio.sleep(0)
        track.offer(spoken(pts))
        await reader
    assert told == [True]
    pool.pressure.hurried = False
    track.offer(spoken(3))
    await track.next_parcel()
    assert told == [True], "not before the next key frame"
    await asyncio.sleep(0.31)
    track.request_key_frame()
    track.offer(spoken(4))
    await track.next_parcel()
    assert told == [True, False]
    await track.aclose()


async def test_silence_is_a_packet_now_and_then_and_sound_comes_at_its_time(pool):
    clock = FrameClock(time.monotonic() - 1000)
    track = AvatarAudioTrack(clock, pool)
    got: list[tuple[int, bytes]] = []

    async def read() -> None:
        while True:
            parcel, timestamp = await track.next_parcel()
            got.append((timestamp // 960, parcel.payloads[0]))

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    tone = (np.sin(np.arange(FRAME_SAMPLES) / 7) * 8000).astype(np.int16)
    image = picture(0, 10)
    loud = {*range(5), *range(50, 55)}
    for pts in range(60):
        await track.offer(AvatarFrame(image, tone if pts in loud else np.zeros(FRAME_SAMPLES, np.int16), pts))
    await asyncio.sleep(0.02)
    track.stop()
    await asyncio.wait([reader])
    reader.exception()
    chunks = [chunk for chunk, _ in got]
    heard = [*range(2 * (5 + HANGOVER_FRAMES))]
    assert chunks[: len(heard)] == heard
    nothing = [chunk for chunk, data in got if data == NOTHING]
    assert nothing == [2 * pts for pts in range(5 + HANGOVER_FRAMES, 50, REFRESH_FRAMES)]
    assert [chunk for chunk in chunks if chunk >= 100] == [*range(100, 120)], "from the first 20 ms on"
    assert pool.metrics.sound_spared._value.get() == len(nothing) * (2 * REFRESH_FRAMES - 1)


async def test_an_idle_picture_costs_no_task_and_no_thread(pool, monkeypatch):
    face = avatar()
    await loop_of(pool, face, 0, "H264", RATE)
    viewer = Viewer(pool)
    await viewer.show(*(still(face, (14 + pts) % 60, pts) for pts in range(20)))
    monkeypatch.setattr(pool, "video", None)
    viewer.track._work.clear()
    await viewer.show(*(still(face, (14 + pts) % 60, pts) for pts in range(20, 100)))
    assert not viewer.track._work.is_set() and viewer.looped[-1] == 99
    await viewer.track.aclose()
