"""Sound files: what people send becomes playout sound, everything else a sentence they can act on."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import pytest

from engine.audio.decode import decode_audio
from engine.errors import AudioInvalid

TONE_HZ = 500.0


def _tone(seconds: float, rate: int = 48_000, level: float = 0.25) -> np.ndarray:
    return (level * np.sin(2 * np.pi * TONE_HZ * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def _encode(x: np.ndarray, container: str, codec: str, rate: int = 48_000, layout: str = "mono") -> bytes:
    """(N,) or (channels, N) float -> a file's content."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        # FFmpeg's own Vorbis encoder calls itself experimental and is stereo only.
        layout = "stereo" if codec == "vorbis" else layout
        stream = file.add_stream(codec, rate=rate, options={"strict": "experimental"})
        stream.codec_context.layout = layout
        channels = np.broadcast_to(x, (2, x.size)) if codec == "vorbis" else np.atleast_2d(x)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels, np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        for converted in av.AudioResampler(stream.codec_context.format, layout, rate).resample(frame):
            for packet in stream.encode(converted):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return out.getvalue()


def _float_wav(x: np.ndarray, rate: int = 48_000) -> bytes:
    data = x.astype("<f4").tobytes()
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, rate, rate * 4, 4,
                         32, b"data", len(data))
    return header + data


def _video_only() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="bgr24")))
        file.mux(stream.encode(None))
    return out.getvalue()


def _refused(data, code: str, max_s: float = 60.0) -> str:
    with pytest.raises(AudioInvalid) as error:
        decode_audio(data, max_s)
    assert error.value.code == code
    return error.value.message


FORMATS = {
    "wav": ("wav", "pcm_s16le", 16_000),
    "wav 24 bit": ("wav", "pcm_s24le", 44_100),
    "wav 8 bit": ("wav", "pcm_u8", 8_000),
    "mp3": ("mp3", "mp3", 44_100),
    "flac": ("flac", "flac", 48_000),
    "ogg": ("ogg", "vorbis", 44_100),
    "opus": ("ogg", "libopus", 48_000),
    "m4a": ("mp4", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_promised_format_keeps_length_and_loudness(name):
    container, codec, rate = FORMATS[name]
    y = decode_audio(_encode(_tone(1.5, rate), container, codec, rate), 60)
    assert y.dtype == np.int16 and y.ndim == 1
    assert abs(y.size / 48_000 - 1.5) < 0.06
    middle = y[24_000:48_000].astype(float)
    rms = np.sqrt(np.mean(middle**2)) / 32768
    assert rms == pytest.approx(0.25 / np.sqrt(2), rel=0.06)  # LAME itself takes 5 % off
    assert np.argmax(np.abs(np.fft.rfft(middle))) * 2 == pytest.approx(TONE_HZ, abs=4)


def test_lossless_sound_at_playout_rate_is_untouched(tmp_path):
    x = np.random.default_rng(0).integers(-32768, 32767, 48_000).astype(np.int16)
    path = tmp_path / "x.wav"
    path.write_bytes(_encode(x / 32768, "wav", "pcm_s16le"))
    assert np.array_equal(decode_audio(path, 60), x)
    assert np.array_equal(decode_audio(str(path), 60), x)


def test_stereo_is_mixed_down_by_the_mean():
    y = decode_audio(_encode(np.stack([_tone(1), 0 * _tone(1)]), "wav", "pcm_s16le", layout="stereo"), 60)
    mono = decode_audio(_encode(_tone(1, level=0.125), "wav", "pcm_s16le"), 60)
    assert np.abs(y.astype(int) - mono).max() <= 1


def test_float_wav_with_nan_and_overs_is_tamed():
    y = decode_audio(_float_wav(np.array([np.nan, 0.5, np.inf, -3.0] * 100)), 60)
    assert y[:4].tolist() == [0, 16384, 32767, -32768]


def test_sound_of_a_video_is_taken():
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        video, audio = file.add_stream("mpeg4", rate=25), file.add_stream("aac", rate=48_000)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        file.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="bgr24")))
        frame = av.AudioFrame.from_ndarray(np.stack([_tone(1)] * 2), format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
        file.mux(video.encode(None))
    assert abs(decode_audio(out.getvalue(), 60).size - 48_000) < 2048


@pytest.mark.parametrize(
    "data",
    [
        b"Dear Sir or Madam, this is a letter. " * 500,
        b"\x00" * 100_000,
        np.random.default_rng(0).bytes(200_000),
        b"RIFF",
        b"<html></html>",
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
    ],
    ids=["text", "zeros", "noise", "header only", "html", "picture", "playlist", "concat"],
)
def test_what_is_no_sound_says_what_to_send(data):
    assert "wav, mp3" in _refused(data, "audio_unreadable")


def test_an_empty_file_says_so():
    assert "0 bytes" in _refused(b"", "audio_empty")


def test_a_header_without_samples_is_empty():
    _refused(_float_wav(np.zeros(0)), "audio_empty")


def test_a_video_without_sound_says_so():
    assert "no sound track" in _refused(_video_only(), "audio_unreadable")


def test_a_missing_file_says_so(tmp_path):
    assert "No such file" in _refused(tmp_path / "nothing.wav", "audio_unreadable")
    assert "directory" in _refused(tmp_path, "audio_unreadable")


@pytest.mark.parametrize("name", ["mp3", "flac", "m4a", "webm", "opus"])
def test_a_file_destroyed_inside_is_refused_or_shortened_but_never_crashes(name):
    container, codec, rate = FORMATS[name]
    data = bytearray(_encode(_tone(2.0, rate), container, codec, rate))
    rng = np.random.default_rng(1)
    for position in rng.integers(len(data) // 10, len(data), len(data) // 4):
        data[position] = rng.integers(256)
    try:
        assert 0 < decode_audio(bytes(data), 60).size < 3 * 48_000
    except AudioInvalid as error:
        assert error.code in ("audio_unreadable", "audio_empty")


def test_a_truncated_recording_plays_as_far_as_it_goes():
    data = _encode(_tone(2.0), "wav", "pcm_s16le")
    assert abs(decode_audio(data[: len(data) // 2], 60).size - 48_000) < 100


def test_two_hours_are_stopped_while_decoding(monkeypatch):
    seconds = 7200
    data = _encode(np.zeros(8000 * seconds, np.float32), "flac", "flac", 8000)
    decoded = []
    original = av.AudioFrame.to_ndarray
    import engine.audio.decode as module

    monkeypatch.setattr(module, "_samples", lambda frame: decoded.append(frame.samples) or original(frame).T)
    assert "10 s" in _refused(data, "audio_too_long", max_s=10)
    assert sum(decoded) < 8000 * 15


def test_a_sound_of_exactly_the_limit_is_accepted():
    assert decode_audio(_encode(_tone(2.0), "wav", "pcm_s16le"), 2.0).size == 96_000
    _refused(_encode(_tone(2.1), "wav", "pcm_s16le"), "audio_too_long", max_s=2.0)
