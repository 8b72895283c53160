"""The microphone: drained, mono, in time, and without aiortc's 80 ms."""

from __future__ import annotations

import asyncio

import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCPeerConnection
from aiortc.codecs.opus import OpusDecoder
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket

from server.encoder import OpusEncoder
from server.microphone import LatestFirst, Microphone, skip_jitter_buffer, to_mono


def stereo(left: np.ndarray, right: np.ndarray, pts: int = 0, rate: int = 48_000) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.stack([left, right], 1).reshape(1, -1), format="s16", layout="stereo")
    frame.sample_rate, frame.pts = rate, pts
    return frame


class Recorded(MediaStreamTrack):
    """An inbound track that plays given frames and ends."""

    kind = "audio"

    def __init__(self, frames) -> None:
        super().__init__()
        self.frames = list(frames)

    async def recv(self):
        await asyncio.sleep(0)
        if not self.frames:
            raise MediaStreamError
        return self.frames.pop(0)


def packet(sequence_number: int, timestamp: int = 0) -> RtpPacket:
    packet = RtpPacket(sequence_number=sequence_number % 65536, timestamp=timestamp)
    packet._data = bytes([sequence_number % 256])
    return packet


def test_two_channels_are_averaged_exactly():
    rng = np.random.default_rng(0)
    left, right = rng.integers(-32768, 32768, (2, 960)).astype(np.int16)
    assert np.array_equal(to_mono(stereo(left, right)), (left.astype(int) + right) // 2)


@pytest.mark.parametrize("extreme", [-32768, 32767])
def test_the_loudest_sound_does_not_wrap(extreme):
    channel = np.full(960, extreme, np.int16)
    assert np.all(to_mono(stereo(channel, channel)) == extreme)


def test_sound_of_another_rate_is_refused():
    with pytest.raises(ValueError, match="44100"):
        to_mono(stereo(np.zeros(960, np.int16), np.zeros(960, np.int16), rate=44_100))


async def test_every_frame_is_handed_on_until_the_track_ends():
    ramp = np.arange(960, dtype=np.int16)
    heard = []
    track = Recorded(stereo(ramp, ramp, pts=960 * i) for i in range(5))
    await Microphone(track, heard.append).run()
    assert [len(part) for part in heard] == [960] * 5


async def test_a_lost_packet_becomes_silence_of_its_length():
    ramp = np.arange(960, dtype=np.int16)
    heard = []
    await Microphone(Recorded(stereo(ramp, ramp, pts) for pts in (0, 960, 2880)), heard.append).run()
    assert [len(part) for part in heard] == [960, 960, 960, 960]
    assert not heard[2].any()


async def test_a_long_pause_is_not_filled():
    ramp = np.arange(960, dtype=np.int16)
    heard = []
    await Microphone(Recorded(stereo(ramp, ramp, pts) for pts in (0, 480_000)), heard.append).run()
    assert len(heard) == 2


async def test_an_unusable_frame_does_not_stop_the_reading(caplog):
    ramp = np.arange(960, dtype=np.int16)
    heard = []
    await Microphone(Recorded([stereo(ramp, ramp, rate=8000), stereo(ramp, ramp)]), heard.append).run()
    assert len(heard) == 1


def test_packets_pass_at_once_and_in_order():
    buffer = LatestFirst()
    frames = [buffer.add(packet(n, n * 960))[1] for n in (65534, 65535, 0, 1)]
    assert [frame.timestamp for frame in frames] == [65534 * 960, 65535 * 960, 0, 960]


def test_late_and_doubled_packets_are_dropped():
    buffer = LatestFirst()
    results = [buffer.add(packet(n))[1] is not None for n in (10, 12, 11, 12, 13)]
    assert results == [True, True, False, False, True]


def test_a_packet_of_padding_alone_is_left_out_and_the_next_is_taken():
    buffer = LatestFirst()
    padding = packet(11)
    padding._data = b""
    results = [buffer.add(each)[1] is not None for each in (packet(10), padding, packet(12))]
    assert results == [True, False, True]


def test_a_decoder_goes_on_after_a_packet_of_padding_alone():
    encoder, buffer, decoder = OpusEncoder(), LatestFirst(), OpusDecoder()
    heard = []
    for number in range(6):
        sound = packet(number, number * 960)
        sound._data = b"" if number == 2 else bytes(encoder.encode(np.zeros(960, np.int16), number * 960))
        _, encoded = buffer.add(sound)
        if encoded is not None and decoder.decode(encoded):
            heard.append(number)
    assert heard[-3:] == [3, 4, 5]


def test_a_stream_that_starts_over_is_followed():
    buffer = LatestFirst()
    assert buffer.add(packet(30_000))[1] is not None
    assert buffer.add(packet(5))[1] is not None


async def test_this_aiortc_keeps_its_jitter_buffer_where_we_replace_it():
    connection = RTCPeerConnection()
    receiver = connection.addTransceiver("audio").receiver
    assert skip_jitter_buffer(receiver)
    assert isinstance(receiver._RTCRtpReceiver__jitter_buffer, LatestFirst)
    await connection.close()
