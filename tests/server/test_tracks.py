"""The tracks alone: pacing, order, key frames, and what happens when the encoder is slow."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiortc import RTCPeerConnection
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RTCP_PSFB_FIR, RTCP_PSFB_PLI, RtcpPsfbPacket

from engine.clock import FrameClock
from server import tracks
from server.encoder import create_video_encoder
from server.encoder_pool import EncoderPool
from server.rtp import Parcel
from server.tracks import (
    AvatarAudioTrack,
    AvatarVideoTrack,
    MediaPump,
    route_key_frame_requests,
)
from tests.server.fakes import FakeSession, make_frame


@pytest.fixture
async def pool():
    pool = EncoderPool(video_threads=1)
    yield pool
    await pool.aclose()


def video_track(clock, pool, **options) -> AvatarVideoTrack:
    return AvatarVideoTrack(clock, pool, "VP8", 400_000, **options)


async def receive(track, count: int) -> list[tuple[Parcel, int]]:
    """Parcels and their positions in frames."""
    return [(parcel, timestamp // 3600) for parcel, timestamp in [await track.next_parcel() for _ in range(count)]]


async def feed(track: AvatarVideoTrack, frames: range) -> None:
    for pts in frames:
        track.offer(make_frame(pts))
        await asyncio.sleep(0.02)


async def test_nothing_is_encoded_until_somebody_receives(pool):
    encoded = []
    track = video_track(FrameClock(), pool, on_encoded=encoded.append)
    await feed(track, range(10))
    assert encoded == []
    reader = asyncio.create_task(receive(track, 1))
    ((parcel, position),) = await reader
    assert position == 9, "the newest"
    assert parcel.key_frame
    await track.aclose()


async def test_pictures_keep_their_positions(pool):
    track = video_track(FrameClock(), pool)
    reader = asyncio.create_task(receive(track, 8))
    await asyncio.sleep(0)
    await feed(track, range(3, 11))
    assert [position for _, position in await reader] == [*range(3, 11)]
    await track.aclose()


async def test_a_slow_encoder_costs_pictures_and_never_a_packet(pool):
    dropped = []
    track = video_track(FrameClock(), pool, on_dropped=lambda: dropped.append(1))
    reader = asyncio.create_task(receive(track, 3))
    await asyncio.sleep(0)
    blocker = asyncio.create_task(pool.video(lambda: time.sleep(0.3)))
    await asyncio.sleep(0.02)
    await feed(track, range(10))
    await blocker
    track.offer(make_frame(10))
    got = [position for _, position in await reader]
    assert got == sorted(got) and got[-1] >= 8, "the newest were kept"
    assert len(dropped) >= 6
    await track.aclose()


async def test_an_encoder_that_cannot_be_made_costs_a_picture_and_the_next_one_comes(pool, monkeypatch):
    failures = iter([True, True])

    def create(*args, **options):
        if next(failures, False):
            raise ValueError("no such codec today")
        return create_video_encoder(*args, **options)

    monkeypatch.setattr(tracks, "create_video_encoder", create)
    dropped, failed = [], []
    track = video_track(
        FrameClock(), pool, on_dropped=lambda: dropped.append(1), on_failed=lambda: failed.append(1)
    )
    reader = asyncio.create_task(receive(track, 1))
    await asyncio.sleep(0)
    await feed(track, range(4))
    ((parcel, _),) = await reader
    assert parcel.key_frame and len(dropped) >= 2 and not failed
    await track.aclose()


@pytest.mark.parametrize(
    ("error", "pictures"), [(ValueError("never works"), tracks.FAILURES_LIMIT), (MemoryError("of another kind"), 1)]
)
async def test_encoding_that_has_failed_for_good_is_told_once_and_ends_the_track(pool, monkeypatch, error, pictures):
    tried, failed = [], []

    def create(*_, **__):
        tried.append(1)
        raise error

    monkeypatch.setattr(tracks, "create_video_encoder", create)
    track = video_track(FrameClock(), pool, on_failed=lambda: failed.append(1))
    reader = asyncio.create_task(receive(track, 1))
    await asyncio.sleep(0)
    for pts in range(40):
        track.offer(make_frame(pts))
        await asyncio.sleep(0.001)
    with pytest.raises(MediaStreamError):
        await reader
    assert len(tried) == pictures and failed == [1]
    await track.aclose()
    assert failed == [1]


async def test_stopping_a_track_is_no_failure(pool):
    failed = []
    track = video_track(FrameClock(), pool, on_failed=lambda: failed.append(1))
    await track.aclose()
    assert failed == []


async def test_requests_for_a_key_frame_close_together_count_once(pool):
    track = video_track(FrameClock(), pool)
    reader = asyncio.create_task(receive(track, 30))
    await asyncio.sleep(0)
    for pts in range(30):
        if pts in (15, 16, 17):
            track.request_key_frame()
        track.offer(make_frame(pts))
        await asyncio.sleep(0.03)
    keys = [position for parcel, position in await reader if parcel.key_frame]
    assert keys == [0, 15]
    await track.aclose()


async def test_a_picture_that_cannot_be_encoded_is_lost_alone(pool, caplog):
    track = video_track(FrameClock(), pool)
    reader = asyncio.create_task(receive(track, 4))
    await asyncio.sleep(0)
    await feed(track, range(2))
    broken = make_frame(2)
    track.offer(type(broken)(broken.image[..., 0], broken.audio, 2))
    await asyncio.sleep(0.05)
    await feed(track, range(3, 5))
    got = await reader
    assert [position for _, position in got] == [0, 1, 3, 4]
    assert got[2][0].key_frame, "a fresh encoder starts with one"
    await track.aclose()


async def test_a_change_of_size_starts_a_new_encoder_with_a_key_frame(pool):
    track = video_track(FrameClock(), pool)
    reader = asyncio.create_task(receive(track, 3))
    await asyncio.sleep(0)
    await feed(track, range(2))
    frame = make_frame(2)
    track.offer(type(frame)(frame.image[:128, :128].copy(), frame.audio, 2))
    got = await reader
    assert [parcel.key_frame for parcel, _ in got] == [True, False, True]
    await track.aclose()


@pytest.mark.alone
async def test_sound_and_picture_of_one_frame_leave_together(pool):
    session = FakeSession()
    await session.start()
    video, audio = video_track(session.clock, pool), AvatarAudioTrack(session.clock, pool)
    pump = asyncio.create_task(MediaPump(session, video, audio).run())
    pictures, sounds = await asyncio.gather(_stamped(video, 15), _stamped(audio, 30))
    starts = {pts // 960 // 2: at for at, pts in sounds if (pts // 960) % 2 == 0}
    skews = [at - starts[pts // 3600] for at, pts in pictures if pts // 3600 in starts]
    assert len(skews) > 8 and sorted(skews)[len(skews) // 2] < 0.03
    await session.aclose()
    await pump
    audio.stop()
    await video.aclose()


async def _stamped(track, count: int) -> list[tuple[float, int]]:
    got = []
    for _ in range(count):
        _, timestamp = await track.next_parcel()
        got.append((time.monotonic(), timestamp))
    return got


async def test_a_stopped_track_raises_only_what_aiortc_expects(pool):
    session = FakeSession()
    video, audio = video_track(session.clock, pool), AvatarAudioTrack(session.clock, pool)
    readers = [asyncio.create_task(video.next_parcel()), asyncio.create_task(audio.next_parcel())]
    await asyncio.sleep(0.01)
    video.stop()
    audio.stop()
    for reader in readers:
        with pytest.raises(MediaStreamError):
            await reader
    for track in (video, audio):
        with pytest.raises(MediaStreamError):
            await track.next_parcel()
    await video.aclose()


async def test_aiortc_still_asks_its_sender_for_key_frames_where_we_listen(pool):
    connection = RTCPeerConnection()
    track = video_track(FrameClock(), pool)
    sender = connection.addTransceiver(track, direction="sendonly").sender
    asked = []
    track.request_key_frame = lambda: asked.append(1)
    route_key_frame_requests(sender, track)
    for fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
        await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=fmt, ssrc=1, media_ssrc=sender._ssrc))
    assert len(asked) == 2
    await connection.close()
    await track.aclose()
