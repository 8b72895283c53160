"""The oval of an open mouth: what bends, what stays."""

from __future__ import annotations

import numpy as np
import pytest

from engine.lipsync.builtin.mouth_inside import Place
from engine.lipsync.builtin.rounding import rounded
from engine.types import MOUTH_SHAPES

SIZE = 128
BOX = np.array([100, 100 + SIZE, 60, 60 + SIZE])
D_PX = SIZE / 1.8
PLACE = Place(np.array([60 + 64.0, 100 + 46.0]), np.array([1.0, 0.0]), D_PX, 0.0)


def mouth(**shapes: float) -> np.ndarray:
    return np.array([shapes.get(name, 0.0) for name in MOUTH_SHAPES], np.float32)


def trapezoid() -> np.ndarray:
    """An opening with a level upper edge in row 48 and sides that stand upright, columns 50 to 77."""
    alpha = np.zeros((SIZE, SIZE), np.float32)
    alpha[48:74, 50:78] = 1
    return alpha


def test_a_shut_jaw_bends_nothing() -> None:
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 0.02, (2, SIZE, SIZE)).astype(np.float32)
    bent, alpha = rounded(flow, trapezoid(), BOX, PLACE, mouth(mouthFunnel=1.0, mouthStretch=1.0))
    np.testing.assert_allclose(bent, flow, atol=1e-6)
    np.testing.assert_array_equal(alpha, trapezoid())


def test_the_upper_edge_becomes_an_arch_and_the_lip_goes_with_it() -> None:
    flow = np.zeros((2, SIZE, SIZE), np.float32)
    bent, alpha = rounded(flow, trapezoid(), BOX, PLACE, mouth(jawOpen=1.0))
    top = [int(np.flatnonzero(alpha[:, column] > 0.5)[0]) for column in (53, 63, 74)]
    assert top[1] <= 48
    assert min(top[0], top[2]) >= top[1] + 2
    # The skin above a lip that rose is found further down.
    assert bent[1, 46, 63] > 0
    assert abs(bent[1, 46, 53]) > 0 > bent[1, 47, 52]


def test_a_pout_makes_the_opening_narrower_and_lower() -> None:
    flow = np.zeros((2, SIZE, SIZE), np.float32)
    _, open_alpha = rounded(flow, trapezoid(), BOX, PLACE, mouth(jawOpen=0.6))
    _, pout_alpha = rounded(flow, trapezoid(), BOX, PLACE, mouth(jawOpen=0.6, mouthFunnel=0.8))
    assert (pout_alpha[58] > 0.5).sum() < (open_alpha[58] > 0.5).sum() - 2
    assert np.flatnonzero(pout_alpha[:, 63] > 0.5)[-1] < np.flatnonzero(open_alpha[:, 63] > 0.5)[-1]


def test_the_bend_folds_nothing_and_leaves_the_border_alone() -> None:
    flow = np.zeros((2, SIZE, SIZE), np.float32)
    bent, _ = rounded(flow, trapezoid(), BOX, PLACE, mouth(jawOpen=1.0, mouthFunnel=1.0))
    pixels = bent * SIZE / 2
    assert (1 + np.diff(pixels[0], axis=1)).min() > 0.1
    assert (1 + np.diff(pixels[1], axis=0)).min() > 0.1
    edge = np.concatenate([pixels[:, 0], pixels[:, :, 0], pixels[:, :, -1]], 1)
    assert np.abs(edge).max() < 1.5


def test_it_grows_smoothly_and_turns_with_the_face() -> None:
    flow = np.zeros((2, SIZE, SIZE), np.float32)
    little, _ = rounded(flow, trapezoid(), BOX, PLACE, mouth(jawOpen=0.01))
    assert 0 < np.abs(little).max() * SIZE / 2 < 0.1
    lying = Place(PLACE.middle, np.array([0.0, 1.0]), D_PX, 0.0)
    upright, _ = rounded(flow, trapezoid(), BOX, PLACE, mouth(jawOpen=1.0))
    turned, _ = rounded(flow, trapezoid(), BOX, lying, mouth(jawOpen=1.0))
    # Ten pixels to the right of the upright mouth's middle are ten below the lying one's; its down is to the left.
    assert turned[0, 56, 64] == pytest.approx(-upright[1, 46, 74], abs=2e-3)
