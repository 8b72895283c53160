"""What telephone, call and podcast codecs leave of a sound, without any shift in time.

Place in the flow: ``audio_augment.augment`` -> opus or mp3 in memory -> mel -> audio network.

Invariant: the result is as long as the sound and in time with it: the codec's delay is measured and taken out.
"""

from __future__ import annotations

import io
from typing import NamedTuple, cast

import av
import numpy as np
import soxr
from av import AudioStream
from scipy.signal import correlate

from engine.types import ANALYSIS_RATE


class Codec(NamedTuple):
    """A codec with the container that carries it.

    Attributes:
        name: of PyAV's encoder.
        container: of PyAV.
        sample_rate: it works at, hertz.
        bit_rates: lowest and highest worth hearing, bits a second.
    """

    name: str
    container: str
    sample_rate: int
    bit_rates: tuple[int, int]


CODECS = (Codec("libopus", "ogg", 48_000, (6_000, 24_000)), Codec("libmp3lame", "mp3", 16_000, (16_000, 40_000)))
_MOST_DELAY_S = 0.15


def coded(samples: np.ndarray, codec: Codec, bit_rate: int) -> np.ndarray:
    """A sound after coding and decoding.

    Args:
        samples: (N,) mono at 16 kHz in [-1, 1].
        codec: one of ``CODECS``.
        bit_rate: bits a second.

    Returns:
        (N,) float64.
    """
    at_rate = soxr.resample(samples, ANALYSIS_RATE, codec.sample_rate)
    pcm = np.round(np.clip(at_rate, -1, 1) * 32767).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format=codec.container) as writer:
        stream = cast(AudioStream, writer.add_stream(codec.name, rate=codec.sample_rate, layout="mono"))
        stream.bit_rate = bit_rate
        resampler = av.AudioResampler(stream.format.name, "mono", codec.sample_rate)
        frame = av.AudioFrame.from_ndarray(pcm[None], "s16", "mono")
        frame.sample_rate = codec.sample_rate
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            writer.mux(stream.encode(piece))
        writer.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as reader:
        back = av.AudioResampler("fltp", "mono", ANALYSIS_RATE)
        pieces = [piece for frame in reader.decode(audio=0) for piece in back.resample(frame)] + back.resample(None)
    heard = np.concatenate([piece.to_ndarray()[0] for piece in pieces]).astype(np.float64)
    return _in_time(heard, samples)


def _in_time(heard: np.ndarray, said: np.ndarray) -> np.ndarray:
    """The decoded sound moved so that it lies over the original, and cut to its length."""
    most = int(_MOST_DELAY_S * ANALYSIS_RATE)
    count = len(said)
    heard = np.pad(heard, (most, most + max(0, count - len(heard))))
    # Delays from -most to most are looked at; the first full overlap is a delay of -most.
    match = correlate(heard[: count + 2 * most], said, mode="valid", method="fft")
    start = int(np.argmax(match)) if np.any(said) else most
    return heard[start : start + count]
