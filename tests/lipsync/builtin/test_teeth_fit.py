"""Where the lips of an open mouth are."""

from __future__ import annotations

import numpy as np
import pytest

from engine.lipsync.builtin.mouth_inside import Place
from engine.lipsync.builtin.teeth_fit import PROBE, lip_edges, usual_edges
from engine.types import MOUTH_SHAPES

BOX = np.array([20, 20 + 256, 10, 10 + 256])
D_PX = 140.0


def opening(top_px: float, bottom_px: float) -> np.ndarray:
    """(128, 128) alpha that is open between two rows of the 256-pixel square."""
    rows = np.arange(128) * 2 + 1
    alpha = np.zeros((128, 128), np.float32)
    alpha[(rows > top_px) & (rows < bottom_px), 40:88] = 1
    return alpha


def test_edges_come_in_eye_mouth_distances_below_the_middle() -> None:
    place = Place(np.array([10 + 128.0, 20 + 90.0]), np.array([1.0, 0.0]), D_PX, 0.0)
    found = lip_edges(opening(96, 150), BOX, place)
    assert found is not None
    assert found == pytest.approx((6 / D_PX, 60 / D_PX), abs=0.015)


def test_a_mouth_that_stays_shut_has_no_edges() -> None:
    place = Place(np.array([138.0, 110.0]), np.array([1.0, 0.0]), D_PX, 0.0)
    assert lip_edges(np.zeros((128, 128), np.float32), BOX, place) is None


def test_one_odd_picture_changes_nothing_and_mostly_shut_mouths_tell_nothing() -> None:
    assert usual_edges([(0.03, 0.40), (0.04, 0.39), (0.30, 0.31)]) == pytest.approx((0.04, 0.39))
    assert usual_edges([None, None, (0.03, 0.4)]) is None
    assert usual_edges([]) is None


def test_the_probe_is_an_open_vowel() -> None:
    assert PROBE.shape == (len(MOUTH_SHAPES),)
    assert PROBE[MOUTH_SHAPES.index("jawOpen")] > 0.7
