import numpy as np
import pytest

from engine.evaluate.measures import (
    closure_rate,
    correlation,
    correlation_at,
    false_shut_rate,
    opening,
    shape_at,
    shut_rate,
    sync,
)
from engine.types import MOUTH_SHAPES


def mouths(frames, **shapes):
    track = np.zeros((frames, len(MOUTH_SHAPES)), np.float32)
    for name, values in shapes.items():
        track[:, MOUTH_SHAPES.index(name)] = values
    return track


def test_opening_grows_with_the_jaw_and_is_never_negative():
    assert opening(mouths(1, jawOpen=0.8))[0] > opening(mouths(1, jawOpen=0.3))[0] > 0
    assert opening(mouths(1, mouthPress=1.0))[0] == 0


def test_correlation_is_one_for_the_same_and_zero_for_a_constant():
    values = np.random.default_rng(0).random(50)
    assert correlation(values, 3 * values + 1) == pytest.approx(1)
    assert correlation(values, np.ones(50)) == 0


@pytest.mark.parametrize("lag", [-3, 0, 2])
def test_sync_finds_the_lag_and_a_late_prediction_is_positive(lag):
    true = np.convolve(np.random.default_rng(1).random(200), np.ones(4) / 4, "same")
    result = sync([(np.roll(true, lag), true)])
    assert result.lag_frames == lag
    assert result.best > 0.95
    assert correlation_at(np.roll(true, lag), true, lag) > 0.95


def test_closures_count_when_the_lips_shut_within_a_frame_of_them():
    track = mouths(25, jawOpen=0.6)
    track[10] = 0
    assert closure_rate(track, [(0.40, 0.44)]) == 1
    assert closure_rate(track, [(0.45, 0.47)]) == 1
    assert closure_rate(track, [(0.70, 0.74)]) == 0
    assert np.isnan(closure_rate(track, []))


def test_a_vowel_with_shut_lips_is_a_false_closure():
    track = mouths(25, jawOpen=np.where(np.arange(25) < 12, 0.6, 0.0))
    assert false_shut_rate(track, [(0.0, 0.4), (0.6, 0.9)]) == 0.5


def test_shut_rate_counts_frames():
    assert shut_rate(mouths(4, jawOpen=[0.0, 0.05, 0.5, 0.9])) == 0.5


def test_shape_at_takes_the_strongest_moment_of_a_sound():
    track = mouths(10, mouthPucker=np.linspace(0, 0.9, 10), mouthFunnel=0.1)
    assert shape_at(track, [(0.0, 0.2), (0.2, 0.4)], ("mouthPucker", "mouthFunnel")) == pytest.approx([0.5, 1.0])
