import itertools

import numpy as np
import pytest

from engine.avatar.head_move import cross_fade, lean, similarity
from tests.fakes import tiny_avatar, tiny_clip

REST = tiny_avatar(frames=1)
FACE = REST.landmarks[0]


def change(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other)


def disc(x: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture of a dark disc whose face stands at ``x``, and the landmarks of that face."""
    rows, columns = np.mgrid[0:160, 0:160]
    inside = (columns - x) ** 2 + (rows - 80) ** 2 < 30**2
    picture = np.repeat(np.where(inside, 40, 200).astype(np.uint8)[..., None], 3, axis=2)
    return picture, np.array([[x - 12, 70], [x + 12, 70], [x, 84], [x - 10, 98], [x + 10, 98]], np.float32)


def test_similarity_finds_rotation_scale_and_shift() -> None:
    a, b = 1.2 * np.exp(0.3j), 5 - 7j
    points = FACE.astype(float)
    moved = a * (points[:, 0] + 1j * points[:, 1]) + b
    assert similarity(points, np.stack([moved.real, moved.imag], 1)) == pytest.approx((a, b))


def test_fade_begins_and_ends_bit_for_bit() -> None:
    clip = tiny_clip(1, shift=6)
    for weight, expected in ((0.0, REST.frames[0]), (1.0, clip.frames[0])):
        assert np.array_equal(cross_fade(REST.frames[0], FACE, clip.frames[0], clip.landmarks[0], weight), expected)


def test_fading_face_is_there_once_and_between_both_places() -> None:
    (one, here), (other, there) = disc(70), disc(86)
    row = cross_fade(one, here, other, there, 0.5)[80, :, 0]
    dark = np.flatnonzero(row < 60)
    assert abs(dark.mean() - 78) < 1 and abs(len(dark) - 59) <= 3
    # Plainly blended, a third of the disc would be half transparent.
    assert np.count_nonzero((row > 60) & (row < 180)) <= 6


def test_fade_moves_evenly_from_one_place_to_the_other() -> None:
    (one, here), (other, there) = disc(70), disc(86)
    pictures = [cross_fade(one, here, other, there, step / 8) for step in range(9)]
    middles = [np.flatnonzero(picture[80, :, 0] < 100).mean() for picture in pictures]
    assert max(abs(b - a - 2) for a, b in itertools.pairwise(middles)) < 0.7


def test_what_is_far_from_the_head_stays_where_it_is() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (320, 320, 3), dtype=np.uint8)
    face = FACE + 100
    moved = lean(picture, face, 1.0)
    assert change(moved, picture)[150:160, 140:160].max() > 20
    assert np.array_equal(moved[:40], picture[:40]) and np.array_equal(moved[:, :40], picture[:, :40])
    assert np.array_equal(moved[:, 280:], picture[:, 280:])


def test_leaning_is_nothing_at_rest_and_grows_without_a_jump() -> None:
    picture = REST.frames[0]
    assert lean(picture, FACE, 0.0) is picture
    pictures = [lean(picture, FACE, step / 20) for step in range(21)]
    steps = [change(a, b).mean() for a, b in itertools.pairwise(pictures)]
    whole = change(picture, pictures[-1]).mean()
    assert whole > 0 and max(steps) < whole / 5


@pytest.mark.parametrize("shift", [(-80, 0), (80, 0), (0, -80), (0, 80)])
def test_head_at_the_border_is_moved_without_leaving_a_hole(shift: tuple[int, int]) -> None:
    picture = np.full((96, 96, 3), 77, np.uint8)
    assert np.array_equal(lean(picture, FACE + np.array(shift, np.float32), 1.0), picture)
