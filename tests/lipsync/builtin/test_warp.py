"""How the network's layers are put onto a face."""

from __future__ import annotations

import numpy as np
import pytest

from engine.lipsync.builtin.warp import cut, feather_mask, speak

RNG = np.random.default_rng(2)
FRAME = RNG.integers(0, 256, (120, 140, 3), dtype=np.uint8)
BOX = np.array([20, 100, 30, 110])


def layers(size: int = 128) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flow, interior = np.zeros((2, size, size), np.float32), np.zeros((3, size, size), np.float32)
    return flow, interior, np.zeros((size, size), np.float32)


def test_no_flow_and_no_alpha_return_the_frame_bit_for_bit() -> None:
    flow, interior, alpha = layers()
    assert np.array_equal(speak(FRAME, BOX, flow, interior, alpha), FRAME[20:100, 30:110])


def test_a_constant_flow_shifts_the_face_by_that_share_of_half_the_crop() -> None:
    flow, interior, alpha = layers()
    flow[0] += 2 * 5 / 80
    flow[1] -= 2 * 3 / 80
    assert np.array_equal(speak(FRAME, BOX, flow, interior, alpha), FRAME[17:97, 35:115])


def test_full_alpha_shows_the_interior_and_nothing_else_changes() -> None:
    flow, interior, alpha = layers()
    interior[:] = np.array([0.2, 0.4, 0.6], np.float32)[:, None, None]
    alpha[48:80, 32:96] = 1
    image = speak(FRAME, BOX, flow, interior, alpha)
    assert np.abs(image[32:48, 22:58].astype(int) - [51, 102, 153]).max() <= 1
    still = np.ones((80, 80), bool)
    still[28:52, 18:62] = False
    assert np.array_equal(image[still], FRAME[20:100, 30:110][still])


@pytest.mark.parametrize("side", [80, 128, 201])
def test_the_interior_is_enlarged_in_place_like_the_whole_picture(side: int) -> None:
    frame = np.zeros((240, 240, 3), np.uint8)
    flow, interior, alpha = layers()
    y, x = np.mgrid[0:128, 0:128].astype(np.float32)
    interior[:] = (x / 128)[None]
    alpha[:] = np.exp(-((x - 70) ** 2 + (y - 60) ** 2) / 300)
    image = speak(frame, np.array([10, 10 + side, 10, 10 + side]), flow, interior, alpha)
    weight = (image.astype(float).sum(2)).ravel()
    rows, columns = np.divmod(np.arange(side * side), side)
    centre = np.array([(columns + 0.5) @ weight, (rows + 0.5) @ weight]) / weight.sum() / side * 128
    true = (interior[0] * alpha).ravel()
    small_rows, small_columns = np.divmod(np.arange(128 * 128), 128)
    expected = np.array([(small_columns + 0.5) @ true, (small_rows + 0.5) @ true]) / true.sum()
    assert centre == pytest.approx(expected, abs=0.15)


def test_a_box_beyond_the_frame_repeats_its_border() -> None:
    box = np.array([-10, 70, -20, 60])
    piece = cut(FRAME, box)
    assert piece.shape == (80, 80, 3)
    assert np.array_equal(piece[10:, 20:], FRAME[:70, :60])
    assert np.array_equal(piece[0, 20:], FRAME[0, :60])
    flow, interior, alpha = layers()
    assert np.array_equal(speak(FRAME, box, flow, interior, alpha), piece)


def test_the_mask_is_full_in_the_middle_and_gone_at_the_border() -> None:
    mask = feather_mask(150)
    assert mask.shape == (150, 150)
    assert mask[75, 75] == 255
    assert mask[30:120, 30:120].min() == 255
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) < 6
    assert (np.diff(mask[75, :75].astype(int)) >= 0).all()
