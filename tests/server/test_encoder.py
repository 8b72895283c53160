"""Our encoders: what aiortc would have to unpack is what we meant to send."""

from __future__ import annotations

import asyncio
import threading
import time

import av
import cv2
import numpy as np
import pytest
from av.video.frame import PictureType

from engine.marking import STATEMENT
from engine.types import CHUNK_SAMPLES
from server import encoder_pool as encoder_module
from server.encoder import OpusEncoder, create_video_encoder
from server.encoder_pool import EncoderPool

CODECS = ("H264", "VP8")
DECODERS = {"H264": "h264", "VP8": "vp8"}


def picture(index: int, size: int = 256) -> np.ndarray:
    """A smooth coloured picture with something that moves."""
    y, x = np.mgrid[0:size, 0:size]
    image = np.stack([60 + x // 4, 90 + y // 4, 160 - x // 8], axis=-1).astype(np.uint8)
    image[:, (index * 5) % size :][:, :12] = (200, 40, 90)
    return image


def encode(codec: str, count: int, keys: tuple[int, ...] = ()) -> list[av.Packet]:
    encoder = create_video_encoder(codec, 256, 256, 800_000)
    return [encoder.encode(picture(i), i, i in keys) for i in range(count)]


@pytest.mark.parametrize("codec", CODECS)
def test_every_picture_gives_one_packet_with_its_position_in_90_khz_ticks(codec):
    packets = encode(codec, 30)
    assert [packet.pts for packet in packets] == [i * 3600 for i in range(30)]
    assert all(packet.size for packet in packets)


@pytest.mark.parametrize("codec", CODECS)
def test_a_key_frame_comes_first_and_when_asked_for_and_at_no_other_time(codec):
    packets = encode(codec, 60, keys=(40,))
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 40]


@pytest.mark.parametrize("codec", CODECS)
def test_a_key_frame_comes_by_itself_every_ten_seconds(codec):
    encoder = create_video_encoder(codec, 64, 64, 200_000)
    packets = [encoder.encode(picture(i, 64), i, False) for i in range(260)]
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 250]


def test_without_an_encoder_on_the_graphics_card_x264_encodes():
    encoder = create_video_encoder("H264", 256, 256, 800_000, h264="nvenc")
    packets = [encoder.encode(picture(i), i, False) for i in range(10)]
    assert [packet.pts for packet in packets] == [i * 3600 for i in range(10)]
    assert STATEMENT.encode() in bytes(packets[0])
    decoder = av.CodecContext.create("h264", "r")
    seen = [frame for packet in packets for frame in decoder.decode(av.Packet(bytes(packet)))] + decoder.decode(None)
    assert len(seen) == 10
    assert cv2.PSNR(seen[9].to_ndarray(format="bgr24"), picture(9)) > 25


@pytest.mark.parametrize("codec", CODECS)
def test_a_decoder_that_starts_at_a_requested_key_frame_sees_the_picture(codec):
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    packets = encode(codec, 45, keys=(40,))
    decoded = [frame for packet in packets[40:] for frame in decoder.decode(av.Packet(bytes(packet)))]
    image = decoded[0].to_ndarray(format="bgr24")
    error = np.abs(image.astype(int) - picture(40)).mean()
    assert error < 4


@pytest.mark.parametrize("codec", CODECS)
def test_colours_survive_within_two_grey_levels(codec):
    encoder = create_video_encoder(codec, 256, 256, 1_500_000)
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    colour = np.array([150, 170, 220], np.uint8)
    image = np.empty((256, 256, 3), np.uint8)
    image[:] = colour
    for index in range(5):
        frames = decoder.decode(av.Packet(bytes(encoder.encode(image, index, False))))
    # As a decoder that knows no better than the standard: BT.601, studio range.
    seen = frames[-1].reformat(format="bgr24", src_colorspace=5, src_color_range=1).to_ndarray().mean(axis=(0, 1))
    assert np.abs(seen - colour).max() <= 2


@pytest.mark.parametrize("codec", CODECS)
def test_the_bitrate_is_held(codec):
    encoder = create_video_encoder(codec, 256, 256, 400_000)
    noise = np.random.default_rng(1)
    pictures = [np.clip(picture(i) + noise.normal(0, 6, (256, 256, 1)), 0, 255).astype(np.uint8) for i in range(20)]
    size = sum(encoder.encode(pictures[i % 20], i, False).size for i in range(125))
    assert 0.6 * 400_000 < size * 8 / 5 < 1.2 * 400_000


def test_h264_is_constrained_baseline_with_its_parameters_before_every_key_frame():
    for packet in (packet for packet in encode("H264", 30, keys=(20,)) if packet.is_keyframe):
        data = bytes(packet)
        at = data.index(b"\x00\x00\x01\x67")
        profile, constraints = data[at + 4], data[at + 5]
        assert profile == 66, "baseline"
        assert constraints & 0xC0 == 0xC0, "constrained, so that 42e01f and 42001f both accept it"


def test_h264_has_no_b_frames_and_no_delay():
    decoder = av.CodecContext.create("h264", "r")
    kinds = [
        PictureType(frame.pict_type)
        for packet in encode("H264", 20)
        for frame in decoder.decode(av.Packet(bytes(packet)))
    ]
    assert set(kinds) == {PictureType.I, PictureType.P}


def test_odd_sizes_lose_their_last_row_and_column():
    encoder = create_video_encoder("H264", 65, 67, 200_000)
    packet = encoder.encode(np.zeros((67, 65, 3), np.uint8), 0, True)
    decoder = av.CodecContext.create("h264", "r")
    frame = [*decoder.decode(av.Packet(bytes(packet))), *decoder.decode(None)][0]
    assert (frame.width, frame.height) == (64, 66)


def test_opus_gives_one_packet_per_20_ms_at_its_position():
    encoder = OpusEncoder()
    sound = (np.sin(np.arange(CHUNK_SAMPLES) / 7) * 8000).astype(np.int16)
    packets = [encoder.encode(sound, 4800 + i * CHUNK_SAMPLES) for i in range(10)]
    assert [packet.pts for packet in packets] == [4800 + i * CHUNK_SAMPLES for i in range(10)]


def test_opus_refuses_other_lengths():
    with pytest.raises(ValueError, match="960"):
        OpusEncoder().encode(np.zeros(480, np.int16), 0)


def test_opus_keeps_pitch_and_level():
    encoder, decoder = OpusEncoder(), av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = 48_000, "mono", "s16"
    t = np.arange(CHUNK_SAMPLES * 50)
    sound = (np.sin(2 * np.pi * 440 * t / 48_000) * 8000).astype(np.int16)
    heard = []
    for i in range(50):
        packet = encoder.encode(sound[i * 960 : (i + 1) * 960], i * 960)
        heard += [frame.to_ndarray().reshape(-1) for frame in decoder.decode(av.Packet(bytes(packet)))]
    heard = np.concatenate(heard)[9600:].astype(float)
    spectrum = np.abs(np.fft.rfft(heard))
    assert abs(np.argmax(spectrum) * 48_000 / len(heard) - 440) < 2
    assert 0.7 < heard.std() / sound.std() < 1.3


async def test_encoding_happens_on_threads_of_its_own():
    pool = EncoderPool(video_threads=1)
    try:
        names = {await pool.video(lambda: threading.current_thread().name)}
        names.add(await pool.audio(lambda: threading.current_thread().name))
    finally:
        await pool.aclose()
    assert sorted(name.rsplit("_", 1)[0] for name in names) == ["audio-encoder", "video-encoder"]


async def test_closing_waits_for_the_picture_that_is_being_encoded_and_drops_the_rest():
    pool = EncoderPool(video_threads=1)
    done = []
    running = asyncio.create_task(pool.video(lambda: (time.sleep(0.2), done.append(1))))
    waiting = asyncio.create_task(pool.video(lambda: done.append(2)))
    await asyncio.sleep(0.05)
    await pool.aclose()
    assert done == [1]
    await asyncio.wait({running, waiting})
    assert waiting.cancelled()
    await pool.aclose()


@pytest.mark.alone
async def test_closing_does_not_wait_for_ever_nor_block_the_loop(monkeypatch):
    monkeypatch.setattr(encoder_module, "CLOSE_TIMEOUT_S", 0.2)
    pool = EncoderPool(video_threads=1)
    release = threading.Event()
    running = asyncio.create_task(pool.video(lambda: release.wait(10)))
    await asyncio.sleep(0.05)
    started_s = time.monotonic()
    closing = asyncio.create_task(pool.aclose())
    await asyncio.sleep(0.01)
    assert time.monotonic() - started_s < 0.15, "the loop goes on"
    await closing
    assert 0.15 < time.monotonic() - started_s < 2
    release.set()
    assert await running


def test_every_h264_picture_a_decoder_can_start_at_says_that_it_was_generated():
    packets = encode("H264", 60, keys=(40,))
    marked = [i for i, packet in enumerate(packets) if STATEMENT.encode() in bytes(packet)]
    assert marked == [0, 40] == [i for i, packet in enumerate(packets) if packet.is_keyframe]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("hurried", [False, True])
def test_the_first_picture_of_an_encoder_is_as_good_as_what_follows(codec, hurried):
    noise = np.random.default_rng(2)
    pictures = [np.clip(picture(i) + noise.normal(0, 2, (256, 256, 1)), 0, 255).astype(np.uint8) for i in range(30)]
    encoder = create_video_encoder(codec, 256, 256, 1_500_000, hurried=hurried)
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    errors = []
    for pts, image in enumerate(pictures):
        wanted = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)[:256].astype(float)
        (frame,) = decoder.decode(av.Packet(bytes(encoder.encode(image, pts, False))))
        errors.append(10 * np.log10(255**2 / np.mean((frame.to_ndarray(format="yuv420p")[:256] - wanted) ** 2)))
    assert errors[0] > np.mean(errors[15:]) - 1.5


async def test_what_is_due_first_is_encoded_first():
    pool = EncoderPool(video_threads=1)
    order = []
    try:
        blocker = asyncio.create_task(pool.video(lambda: time.sleep(0.1)))
        await asyncio.sleep(0.02)
        works = [asyncio.create_task(pool.video(lambda at=at: order.append(at), due_s=at)) for at in (5.0, 2.0, 9.0)]
        works.append(asyncio.create_task(pool.video(lambda: order.append(2.5), due_s=2.0)))
        await asyncio.gather(blocker, *works)
    finally:
        await pool.aclose()
    assert order == [2.0, 2.5, 5.0, 9.0], "and who came first of those that are due together"


async def test_work_that_nobody_waits_for_any_more_is_not_begun():
    pool = EncoderPool(video_threads=1)
    done = []
    try:
        blocker = asyncio.create_task(pool.video(lambda: time.sleep(0.1)))
        await asyncio.sleep(0.02)
        given_up = asyncio.create_task(pool.video(lambda: done.append(1)))
        await asyncio.sleep(0)
        given_up.cancel()
        await pool.video(lambda: done.append(2), due_s=1.0)
        await blocker
    finally:
        await pool.aclose()
    assert done == [2]
