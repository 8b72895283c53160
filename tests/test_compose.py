import numpy as np
import pytest

from engine.compose import paste
from engine.lipsync.base import FacePatch

RNG = np.random.default_rng(7)
FRAME = RNG.integers(0, 256, (60, 80, 3), np.uint8)


def random_patch(box: tuple[int, int, int, int], size: tuple[int, int] | None = None) -> FacePatch:
    height, width = size or (box[1] - box[0], box[3] - box[2])
    return FacePatch(
        RNG.integers(0, 256, (height, width, 3), np.uint8), box, RNG.integers(0, 256, (height, width), np.uint8)
    )


def test_paste_is_the_weighted_mean_within_half_a_step() -> None:
    patch = random_patch((10, 40, 20, 60))
    region = FRAME[10:40, 20:60].astype(float)
    expected = region + (patch.image - region) * (patch.mask[..., None] / 255)
    assert np.abs(paste(FRAME, patch)[10:40, 20:60] - expected).max() <= 0.5 + 1e-6


def test_nothing_outside_the_box_and_not_the_idle_picture_itself_changes() -> None:
    before = FRAME.copy()
    image = paste(FRAME, random_patch((10, 40, 20, 60)))
    assert np.array_equal(FRAME, before) and not np.shares_memory(image, FRAME)
    image[10:40, 20:60] = FRAME[10:40, 20:60]
    assert np.array_equal(image, FRAME)


def test_unchanged_face_keeps_every_bit_under_any_mask() -> None:
    patch = random_patch((10, 40, 20, 60))
    same = FacePatch(FRAME[10:40, 20:60], patch.box, patch.mask)
    assert np.array_equal(paste(FRAME, same), FRAME)


def test_full_mask_replaces_and_empty_mask_keeps() -> None:
    patch = random_patch((10, 40, 20, 60))
    full = FacePatch(patch.image, patch.box, np.full((30, 40), 255, np.uint8))
    empty = FacePatch(patch.image, patch.box, np.zeros((30, 40), np.uint8))
    assert np.array_equal(paste(FRAME, full)[10:40, 20:60], patch.image)
    assert np.array_equal(paste(FRAME, empty), FRAME)


@pytest.mark.parametrize("box", [(-10, 20, -5, 30), (50, 70, 60, 100), (-10, 70, -10, 90)], ids=str)
def test_patch_over_the_border_is_cut_off_in_place(box: tuple[int, int, int, int]) -> None:
    patch = random_patch(box)
    padded = np.pad(FRAME, ((20, 20), (20, 20), (0, 0)))
    moved = FacePatch(patch.image, tuple(side + 20 for side in box), patch.mask)
    assert np.array_equal(paste(FRAME, patch), paste(padded, moved)[20:80, 20:100])


@pytest.mark.parametrize("box", [(60, 70, 0, 10), (-10, 0, 0, 10), (0, 10, 80, 90), (5, 5, 5, 5)], ids=str)
def test_patch_outside_the_picture_changes_nothing(box: tuple[int, int, int, int]) -> None:
    assert np.array_equal(paste(FRAME, random_patch(box, (10, 10))), FRAME)


def test_patch_of_another_size_is_fitted_into_its_box() -> None:
    flat = FacePatch(np.full((7, 9, 3), 200, np.uint8), (10, 40, 20, 60), np.full((7, 9), 255, np.uint8))
    assert (paste(FRAME, flat)[10:40, 20:60] == 200).all()


def test_mask_that_is_a_view_is_accepted() -> None:
    patch = random_patch((10, 40, 20, 60))
    view = FacePatch(patch.image[:, ::-1], patch.box, patch.mask[:, ::-1])
    copy = FacePatch(patch.image[:, ::-1].copy(), patch.box, patch.mask[:, ::-1].copy())
    assert np.array_equal(paste(FRAME, view), paste(FRAME, copy))
