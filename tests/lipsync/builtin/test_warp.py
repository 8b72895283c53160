"""How the network's layers are put onto a face."""

from __future__ import annotations

import numpy as np
import pytest

from engine.lipsync.builtin.mouth_inside import TILE_COLUMNS, TILE_PER_D, TILE_ROWS, MouthInside, Place
from engine.lipsync.builtin.warp import cut, feather_mask, speak
from engine.types import MOUTH_SHAPES

RNG = np.random.default_rng(2)
FRAME = RNG.integers(0, 256, (120, 140, 3), dtype=np.uint8)
BOX = np.array([20, 100, 30, 110])
PLACE = Place(np.array([70.0, 55.0]), np.array([1.0, 0.0]), 400.0, 0.0)
OPEN = np.ones(len(MOUTH_SHAPES), np.float32)
Layers = tuple[np.ndarray, np.ndarray, np.ndarray]


def one_colour(value: int) -> MouthInside:
    """An inside that is everywhere of one grey."""
    tile = np.full((TILE_ROWS, TILE_COLUMNS, 4), value, np.uint8)
    tile[..., 3] = 255
    return MouthInside(tile, np.tile(tile, (2, 2, 1, 1, 1)), 0.0, 0.0, TILE_PER_D, 0.0)


def layers(size: int = 128) -> Layers:
    flow, alpha = np.zeros((2, size, size), np.float32), np.zeros((size, size), np.float32)
    return flow, alpha, np.ones((3, size // 4, size // 4), np.float32)


def spoken(parts: Layers, frame: np.ndarray = FRAME, box: np.ndarray = BOX, place: Place = PLACE) -> np.ndarray:
    return speak(frame, box, parts, one_colour(100), place, OPEN)


def test_no_flow_and_no_alpha_return_the_frame_bit_for_bit() -> None:
    assert np.array_equal(spoken(layers()), FRAME[20:100, 30:110])


def test_a_constant_flow_shifts_the_face_by_that_share_of_half_the_crop() -> None:
    flow, alpha, shade = layers()
    flow[0] += 2 * 5 / 80
    flow[1] -= 2 * 3 / 80
    assert np.array_equal(spoken((flow, alpha, shade)), FRAME[17:97, 35:115])


def test_full_alpha_shows_the_inside_in_its_light_and_nothing_else_changes() -> None:
    flow, alpha, shade = layers()
    shade[:] = np.array([0.5, 1.0, 1.5], np.float32)[:, None, None]
    alpha[48:80, 48:80] = 1
    image = spoken((flow, alpha, shade))
    assert np.abs(image[44:48, 36:44].astype(int) - [50, 100, 150]).max() <= 2
    still = np.ones((80, 80), bool)
    still[28:52, 28:52] = False
    assert np.array_equal(image[still], FRAME[20:100, 30:110][still])


def test_the_upper_lip_takes_light_from_what_is_right_below_it() -> None:
    flow, alpha, shade = layers()
    alpha[48:80, 48:80] = 1
    column = spoken((flow, alpha, shade), np.zeros_like(FRAME))[30:48, 40, 1].astype(int)
    assert column[0] < 0.9 * column[-1]
    assert (np.diff(column) >= 0).all()


@pytest.mark.parametrize("side", [80, 128, 301])
def test_the_edge_of_the_lips_is_as_sharp_in_a_large_picture_as_in_a_small_one(side: int) -> None:
    frame = np.full((side, side, 3), 200, np.uint8)
    flow, alpha, shade = layers()
    alpha[:] = np.clip((64.3 - np.arange(128, dtype=np.float32)) / 3 + 0.5, 0, 1)
    place = Place(np.array([side / 2, side / 2]), np.array([1.0, 0.0]), 2.0 * side, 0.0)
    row = spoken((flow, alpha, shade), frame, np.array([0, side, 0, side]), place)[side // 2, :, 1].astype(int)
    between = np.count_nonzero((row > 110) & (row < 190))
    assert between <= 3
    middle = np.flatnonzero(row > 150)[0] / side * 128
    assert middle == pytest.approx(64.8, abs=1)


def test_the_inside_fades_in_with_the_strength_of_the_mouth() -> None:
    flow, alpha, shade = layers()
    frame = np.zeros_like(FRAME)
    seen = []
    for strength in (0.01, 0.03, 0.1, 1.0):
        # As the network does: the opening grows from rest.
        alpha[48:80, 48:80] = np.tanh(12 * strength)
        seen.append(int(speak(frame, BOX, (flow, alpha, shade), one_colour(100), PLACE, OPEN * strength)[45, 40, 1]))
    assert seen == sorted(seen)
    assert 5 < seen[0] < 20
    assert 25 < seen[1] < 45


def test_a_box_beyond_the_frame_repeats_its_border() -> None:
    box = np.array([-10, 70, -20, 60])
    piece = cut(FRAME, box)
    assert piece.shape == (80, 80, 3)
    assert np.array_equal(piece[10:, 20:], FRAME[:70, :60])
    assert np.array_equal(piece[0, 20:], FRAME[0, :60])
    assert np.array_equal(spoken(layers(), box=box), piece)


def test_the_mask_is_full_in_the_middle_and_gone_at_the_border() -> None:
    mask = feather_mask(150)
    assert mask.shape == (150, 150)
    assert mask[75, 75] == 255
    assert mask[30:120, 30:120].min() == 255
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 6
    assert (np.diff(mask[75, :75].astype(int)) >= 0).all()
