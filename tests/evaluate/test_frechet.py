import numpy as np
import pytest

from engine.evaluate.frechet import frechet_distance


def test_a_set_has_no_distance_to_itself_and_grows_with_a_shift_and_a_spread():
    features = np.random.default_rng(0).standard_normal((60, 8))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    # Of two Gaussians with the same covariance only the distance of the means is left.
    assert frechet_distance(features, features + 0.5) == pytest.approx(8 * 0.25)
    assert frechet_distance(features, features + 1) > frechet_distance(features, features + 0.5)
    # sqrt of covariances C and 4 C: the trace of (2 - 1)^2 C.
    wider = features.mean(0) + 2 * (features - features.mean(0))
    assert frechet_distance(features, wider) == pytest.approx(np.trace(np.cov(features, rowvar=False)))


def test_it_is_symmetric_and_says_nothing_of_a_handful():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((40, 8)), rng.standard_normal((50, 8)) * 1.5 + 0.2
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert np.isnan(frechet_distance(a[:5], b))
