"""PCM conversions: nothing shifted, nothing louder, the same bits however the sound arrives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audio.pcm import Decimator, PlayoutResampler, SampleQueue, to_playout
from engine.errors import AudioInvalid, Closed


def _tone(hz: float, n: int, rate: int, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(n) / rate)).astype(np.float32)


def _decimate(x: np.ndarray) -> np.ndarray:
    decimator = Decimator()
    return np.concatenate([decimator.push(x), decimator.flush()])


def _int16(x: np.ndarray) -> np.ndarray:
    return np.rint(x * 32767).astype(np.int16)


@pytest.mark.parametrize("hz", [0, 60, 440, 3000, 7200])
def test_decimation_neither_shifts_nor_scales_what_passes(hz):
    x = np.cos(2 * np.pi * hz * np.arange(48_000) / 48_000)
    y = _decimate(_int16(0.5 * x))
    expected = 0.5 * np.cos(2 * np.pi * hz * np.arange(16_000) / 16_000) * 32767 / 32768
    np.testing.assert_allclose(y[100:-100], expected[100:-100], atol=2e-3)


@pytest.mark.parametrize("hz", [8_450, 10_000, 15_000, 23_000])
def test_decimation_removes_what_would_alias(hz):
    y = _decimate(_int16(_tone(hz, 48_000, 48_000)))
    assert np.abs(y[100:-100]).max() < 0.5 * 10 ** (-66 / 20)


def test_a_click_stays_where_it_is():
    x = np.zeros(3000, np.int16)
    x[1500] = 30_000
    assert int(np.argmax(np.abs(_decimate(x)))) == 500


def test_the_decimator_needs_less_than_two_milliseconds_of_future():
    assert Decimator.LOOKAHEAD_SAMPLES <= 2.0 * 48
    decimator = Decimator()
    assert decimator.push(np.ones(Decimator.needed(5) - 1, np.int16)).size == 4
    assert decimator.push(np.ones(1, np.int16)).size == 1


@given(cuts=st.lists(st.integers(0, 900), max_size=40), length=st.integers(0, 9000))
@settings(max_examples=60, deadline=None)
def test_decimation_has_the_same_bits_whatever_the_chunks(cuts, length):
    x = np.random.default_rng(0).integers(-32768, 32767, length).astype(np.int16)
    decimator, pieces, position = Decimator(), [], 0
    for size in cuts:
        pieces.append(decimator.push(x[position : position + size]))
        position += size
    pieces += [decimator.push(x[position:]), decimator.flush()]
    got = np.concatenate(pieces)
    assert got.size == -(-length // 3)
    assert np.array_equal(got, _decimate(x))


def test_pushing_after_the_end_is_refused():
    decimator = Decimator()
    decimator.flush()
    with pytest.raises(Closed):
        decimator.push(np.zeros(3, np.int16))


def test_playout_sound_passes_unchanged():
    x = np.random.default_rng(0).integers(-32768, 32767, 5000).astype(np.int16)
    assert np.array_equal(to_playout(x, 48_000), x)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 96_000])
def test_resampling_keeps_length_level_and_place(rate):
    y = to_playout(_tone(1000, 2 * rate, rate), rate)
    expected = _tone(1000, 96_000, 48_000) * 32768
    assert abs(y.size - 96_000) <= 1
    assert np.abs(y[2000:-2000] - expected[2000 : y.size - 2000]).max() < 40


def test_channels_are_averaged():
    left, right = np.full(4800, 1000, np.int16), np.full(4800, 3000, np.int16)
    assert np.all(to_playout(np.stack([left, right], axis=1), 48_000) == 2000)


def test_floats_outside_the_range_are_clipped_and_nan_is_silence():
    x = np.array([np.nan, np.inf, -np.inf, 2.0, -2.0, 0.5], np.float32)
    assert to_playout(x, 48_000).tolist() == [0, 32767, -32768, 32767, -32768, 16384]


@pytest.mark.parametrize("dtype,value", [(np.uint8, 192), (np.int32, 2**30), (np.float64, 0.5), (np.int16, 16384)])
def test_every_sample_type_has_its_own_full_scale(dtype, value):
    assert np.all(to_playout(np.full(10, value, dtype), 48_000) == 16384)


@given(cuts=st.lists(st.integers(0, 2000), max_size=20), rate=st.sampled_from([16_000, 22_050, 44_100]))
@settings(max_examples=30, deadline=None)
def test_resampling_has_the_same_bits_whatever_the_chunks(cuts, rate):
    x = np.random.default_rng(5).integers(-9000, 9000, 12_000).astype(np.int16)
    stream, pieces, position = PlayoutResampler(rate), [], 0
    for size in cuts:
        pieces.append(stream.push(x[position : position + size]))
        position += size
    pieces += [stream.push(x[position:]), stream.flush()]
    assert np.array_equal(np.concatenate(pieces), to_playout(x, rate))


def test_a_flushed_resampler_starts_afresh():
    stream = PlayoutResampler(16_000)
    x = _int16(_tone(300, 8000, 16_000))
    first = np.concatenate([stream.push(x), stream.flush()])
    assert np.array_equal(np.concatenate([stream.push(x), stream.flush()]), first)


@pytest.mark.parametrize(
    "rate,channels,code", [(0, 1, "audio_rate"), (10**7, 1, "audio_rate"), (16000, 0, "audio_channels")]
)
def test_impossible_formats_are_refused(rate, channels, code):
    with pytest.raises(AudioInvalid) as error:
        PlayoutResampler(rate, channels)
    assert error.value.code == code


@pytest.mark.parametrize("samples", [np.zeros((2, 2, 2), np.int16), np.zeros(5, bool), np.array(["a"])])
def test_what_is_no_sound_is_refused(samples):
    with pytest.raises(AudioInvalid):
        to_playout(samples, 48_000)


def test_a_queue_gives_back_what_went_in():
    queue = SampleQueue()
    for part in (np.arange(3), np.arange(0), np.arange(3, 10)):
        queue.push(part)
    assert len(queue) == 10
    assert np.concatenate(queue.take(4)).tolist() == [0, 1, 2, 3]
    assert np.concatenate(queue.take(100)).tolist() == list(range(4, 10))
    assert queue.take(1) == [] and len(queue) == 0
