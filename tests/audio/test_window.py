"""Video frames cut from sound: the right columns, as early as possible, the same bits however the sound arrives."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.audio.mel import SILENCE, mel_spectrogram
from engine.audio.pcm import Decimator
from engine.audio.window import MelWindow, RollingWindows
from engine.errors import Closed

BUILTIN = MelWindow(columns=32, offset=-24)
STOCK = MelWindow(columns=16, offset=0)
TRAINED = MelWindow(columns=16, offset=-3)
WINDOWS = [BUILTIN, STOCK, TRAINED, MelWindow(columns=5, offset=-40), MelWindow(columns=1, offset=0)]


def _sound(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, n).astype(np.int16)


def _drain(rolling: RollingWindows) -> list[tuple[int, np.ndarray, np.ndarray]]:
    return [rolling.next() for _ in range(rolling.frames_ready)]


def _offline(sound: np.ndarray, window: MelWindow) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """The same frames, computed from the whole sound without any of the streaming machinery."""
    decimator = Decimator()
    mel = mel_spectrogram(np.concatenate([decimator.push(sound), decimator.flush()]))
    frames = math.ceil(sound.size / 1920)
    padded = np.pad(sound, (0, frames * 1920 - sound.size))
    return [(i, window.cut(mel, i), padded[1920 * i : 1920 * (i + 1)]) for i in range(frames)]


def _same(a, b) -> bool:
    return len(a) == len(b) and all(
        x[0] == y[0] and np.array_equal(x[1], y[1]) and np.array_equal(x[2], y[2]) for x, y in zip(a, b, strict=True)
    )


def test_lookahead_counts_from_the_start_of_the_frame():
    assert BUILTIN.lookahead_ms == 112.5
    assert STOCK.lookahead_ms == 212.5
    assert TRAINED.lookahead_ms == 175.0
    assert STOCK.needed_samples(0) == 212.5 * 16


def test_windows_advance_by_three_point_two_columns_a_frame():
    assert [STOCK.start(i) for i in range(6)] == [0, 3, 6, 9, 12, 16]
    assert [BUILTIN.start(i) for i in (0, 25 * 3600)] == [-24, 80 * 3600 - 24]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("length", [1, 959, 1920, 1921, 33_333])
def test_streaming_equals_offline(window, length):
    sound = _sound(length)
    rolling = RollingWindows(window)
    got = []
    for a in range(0, length, 960):
        rolling.push(sound[a : a + 960])
        got += _drain(rolling)
    rolling.end()
    assert _same(got + _drain(rolling), _offline(sound, window))


@given(
    cuts=st.lists(st.integers(0, 7000), max_size=30),
    takes=st.lists(st.booleans(), min_size=30, max_size=30),
    window=st.sampled_from(WINDOWS),
)
@settings(max_examples=60, deadline=None)
def test_frames_have_the_same_bits_whatever_the_chunks(cuts, takes, window):
    sound = _sound(40_001, 3)
    rolling, got, position = RollingWindows(window), [], 0
    for size, take in zip(cuts, takes, strict=False):
        rolling.push(sound[position : position + size])
        position += size
        got += _drain(rolling) if take else []
    rolling.push(sound[position:])
    rolling.end()
    assert _same(got + _drain(rolling), _offline(sound, window))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_frame_is_ready_with_its_last_needed_sample_and_not_before(window):
    sound = _sound(40_000)
    for index in range(8):
        needed = max(1920 * (index + 1), Decimator.needed(window.needed_samples(index)))
        rolling = RollingWindows(window)
        rolling.push(sound[: needed - 1])
        assert rolling.frames_ready == index
        rolling.push(sound[needed - 1 : needed])
        assert rolling.frames_ready > index
        assert len(_drain(rolling)) > index


def test_around_the_sound_lies_silence():
    rolling = RollingWindows(BUILTIN)
    rolling.push(_sound(1920 * 30))
    rolling.end()
    frames = _drain(rolling)
    assert len(frames) == 30
    assert np.all(frames[0][1][:, :24] == SILENCE)
    assert np.all(frames[0][1][:, 24:] > SILENCE)
    assert np.all(frames[-1][1][:, -3:] == SILENCE)


def test_the_last_frame_is_filled_up_with_silence():
    rolling = RollingWindows(BUILTIN)
    rolling.push(np.full(2000, 7, np.int16))
    rolling.end()
    (_, _, first), (_, _, last) = _drain(rolling)
    assert np.all(first == 7)
    assert np.all(last[:80] == 7) and not last[80:].any()


def test_no_sound_makes_no_frames():
    rolling = RollingWindows(BUILTIN)
    rolling.end()
    assert rolling.frames_ready == 0
    with pytest.raises(IndexError):
        rolling.next()


def test_sound_after_the_end_is_refused():
    rolling = RollingWindows(BUILTIN)
    rolling.end()
    with pytest.raises(Closed):
        rolling.push(np.zeros(960, np.int16))


def test_a_pushed_array_may_be_reused_by_the_caller():
    chunk = np.full(1920, 5, np.int16)
    rolling = RollingWindows(STOCK)
    rolling.push(chunk)
    chunk[:] = 0
    rolling.end()
    assert np.all(rolling.next()[2] == 5)


def test_memory_stays_bounded_over_an_endless_stream():
    rolling = RollingWindows(BUILTIN)
    sound = _sound(960)

    def play(seconds: int) -> None:
        for _ in range(50 * seconds):
            rolling.push(sound)
            _drain(rolling)

    tracemalloc.start()
    try:
        play(5)
        before, _ = tracemalloc.get_traced_memory()
        play(40)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000
