"""Decodes a file people drop or post into playout sound, through PyAV's own codecs.

Place in the flow: wav, mp3, flac, ogg, opus, m4a, webm -> ``decode_audio`` -> session or offline rendering.

Invariants:
    * decoding stops at the limit, so a file of hours costs no more than one of the longest allowed length;
    * only the demuxers named here are tried: none of them opens another file or a network address;
    * every failure is an AudioInvalid that says what to do.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np

from engine.audio.pcm import PlayoutResampler, to_mono_float
from engine.errors import AudioInvalid
from engine.types import PLAYOUT_RATE

ACCEPTED = "wav, mp3, flac, ogg, opus, m4a and webm"

# FFmpeg's names of the demuxers behind ACCEPTED. Playlists (hls, concat) are left out on purpose: they open addresses.
_DEMUXERS = "wav,w64,mp3,flac,ogg,mov,mp4,m4a,matroska,webm,aac"
_CONTAINER_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": ""}

_SAMPLE_BYTES = 2


def decode_audio(source: bytes | str | Path, max_s: float) -> np.ndarray:
    """Decodes a whole sound file.

    Blocking and CPU-bound (some 2 ms per second of sound): call it on a thread.

    Args:
        source: the file's content, or its path.
        max_s: longest sound accepted, seconds.

    Returns:
        (N,) int16 mono at 48 kHz, N > 0.

    Raises:
        AudioInvalid: ``audio_unreadable`` (missing, corrupt, of another type, or without a sound track),
            ``audio_empty`` (no bytes, or no sound in them), ``audio_too_long``.
    """
    with _open(source) as stream:
        if not stream.read(1):
            raise AudioInvalid("audio_empty", "The file is empty (0 bytes).")
        stream.seek(0)
        # One buffer that grows: pieces joined at the end would need twice the memory.
        sound = bytearray()
        for piece in _playout_pieces(stream):
            sound += piece.tobytes()
            if len(sound) > max_s * PLAYOUT_RATE * _SAMPLE_BYTES:
                raise AudioInvalid(
                    "audio_too_long", f"The sound is longer than the {max_s:g} s allowed; send a shorter one."
                )
    if not sound:
        raise AudioInvalid("audio_empty", "The file holds no sound: its sound track has no samples.")
    return np.frombuffer(sound, np.int16)


def _open(source: bytes | str | Path) -> BinaryIO:
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    try:
        return open(source, "rb")
    except OSError as error:
        raise AudioInvalid("audio_unreadable", f"Cannot open {source}: {error.strerror or error}.") from error


def _playout_pieces(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Playout sound of the first sound track, piece by piece."""
    try:
        container = av.open(stream, mode="r", container_options=_CONTAINER_OPTIONS, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        raise AudioInvalid(
            "audio_unreadable", f"This is no sound file that can be read; send {ACCEPTED}."
        ) from error
    with container:
        if not container.streams.audio:
            raise AudioInvalid("audio_unreadable", "The file has no sound track; send one that has.")
        resampler: PlayoutResampler | None = None
        for frame in _frames(container):
            samples = _samples(frame)
            if resampler is None or resampler.rate != frame.sample_rate:
                if resampler is not None:
                    yield resampler.flush()
                resampler = PlayoutResampler(frame.sample_rate)
            yield resampler.push(to_mono_float(samples))
        if resampler is not None:
            yield resampler.flush()


def _frames(container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
    """Decoded frames; damaged packets are skipped while most packets are sound.

    Raises:
        AudioInvalid: ``audio_unreadable`` when more packets are damaged than not, or the file cannot be decoded.
    """
    track = container.streams.audio[0]
    good = bad = 0
    packets = container.demux(track)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError:
            bad += 1
            break  # the container itself is damaged here: what came before may still be enough
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            bad += 1
            continue
        good += 1
        yield from frames
    if bad > good:
        raise AudioInvalid("audio_unreadable", f"The file is damaged and cannot be decoded; send {ACCEPTED}.")


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """(n, channels) samples of a decoded frame, planar or packed alike."""
    data = frame.to_ndarray()
    return data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
