import io
import struct
import wave

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.conversation.tts.sound_stream import SoundStream
from engine.errors import AudioInvalid

RATE = 24_000
TONE = (8000 * np.sin(2 * np.pi * 220 * np.arange(RATE // 4) / RATE)).astype(np.int16)


def wav(samples, rate=22_050, size=None, notes=b""):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((samples.shape[1] if samples.ndim == 2 else 1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    data = bytearray(buffer.getvalue())
    if size is not None:
        struct.pack_into("<I", data, 40, size)
    return bytes(data) + notes


def encoded(codec, container):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.repeat(TONE, 2)[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(stream.format, stream.layout, 48_000, frame_size=stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(stream.encode(part))
    return buffer.getvalue()


def read(data, content_type="audio/pcm", step=7):
    sound = SoundStream(content_type, RATE, 60.0)
    parts = [sound.feed(data[at : at + step]) for at in range(0, len(data), step)]
    return np.concatenate([*parts, sound.end()]), sound.rate


@given(st.lists(st.integers(1, 5), max_size=40), st.integers(0, 40))
def test_samples_do_not_depend_on_where_chunks_are_cut(sizes, count):
    data = TONE[:count].tobytes()
    sound, parts = SoundStream("audio/pcm", RATE, 60.0), []
    for size in sizes:
        parts.append(sound.feed(data[:size]))
        data = data[size:]
    samples = np.concatenate([*parts, sound.feed(data), sound.end()])
    np.testing.assert_array_equal(samples, TONE[:count])


def test_pcm_comes_out_as_it_arrives_and_half_a_sample_at_the_end_is_dropped():
    sound = SoundStream("application/octet-stream", RATE, 60.0)
    assert len(sound.feed(TONE[:100].tobytes() + b"\x01")) == 100
    assert len(sound.end()) == 0


@pytest.mark.parametrize("size", [None, 0, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF - 36])
@pytest.mark.parametrize("step", [1, 7, 4096])
def test_a_wav_file_is_read_with_its_own_rate_though_pcm_was_asked_for(size, step):
    samples, rate = read(wav(TONE, size=size), step=step)
    assert rate == 22_050
    np.testing.assert_array_equal(samples, TONE)


def test_notes_behind_the_sound_of_a_wav_are_not_played():
    samples, _ = read(wav(TONE, notes=b"LIST" + struct.pack("<I", 400) + bytes(400)))
    np.testing.assert_array_equal(samples, TONE)


def test_a_stereo_wav_becomes_mono():
    samples, _ = read(wav(np.stack([TONE, np.zeros_like(TONE)], axis=1)))
    np.testing.assert_allclose(samples, TONE / 2, atol=1)


def test_a_wav_with_float_samples_streams():
    body = (TONE / 32768).astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    header = struct.pack("<4sI4s", b"RIFF", 0, b"WAVE") + form + struct.pack("<4sI", b"data", 0)
    samples, _ = read(header + body)
    np.testing.assert_allclose(samples, TONE, atol=1)


@pytest.mark.parametrize(
    ("codec", "container", "content_type"),
    [("libmp3lame", "mp3", "audio/mpeg"), ("flac", "flac", "audio/flac"), ("libopus", "ogg", "audio/ogg")],
)
def test_a_compressed_file_is_decoded_when_it_is_whole(codec, container, content_type):
    samples, rate = read(encoded(codec, container), content_type, step=1000)
    assert rate == 48_000
    assert 0.2 < len(samples) / rate < 0.4
    assert 6000 < np.abs(samples.astype(int)).max() < 10_000


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"error": {"message": "no"}}', "application/json"),
        (b'{"error": {"message": "no"}}', "audio/pcm"),
        (b"oops", "text/plain"),
        (wav(TONE)[:30], "audio/wav"),
        (b"RIFF", "audio/wav"),
        (wav(TONE, rate=1), "audio/wav"),
    ],
)
def test_what_is_no_sound_is_refused(body, content_type):
    with pytest.raises(ValueError):
        read(body, content_type)


def test_a_damaged_file_is_refused():
    with pytest.raises(AudioInvalid):
        read(b"ID3" + bytes(range(256)) * 8, "audio/mpeg")


def test_a_sound_without_an_end_is_refused():
    sound = SoundStream("audio/pcm", RATE, 1.0)
    with pytest.raises(ValueError):
        for _ in range(20):
            sound.feed(bytes(RATE // 4))
