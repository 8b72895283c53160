"""Crop and paste-back: what is cut out comes back to the same place, and colours do not step at the seam."""

import cv2
import numpy as np
import pytest

from engine.lipsync.wav2lip.crop import Strip, cut_face, face_boxes, match_colour, network_face


def smooth_picture(height: int = 400, width: int = 400) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 0.5, y * 0.5, (x + y) * 0.25], 2).astype(np.uint8)


def points(count: int, move: float = 0.0) -> np.ndarray:
    one = np.array([[170, 160], [230, 160], [200, 195], [178, 230], [222, 230]], np.float32)
    return np.stack([one + move * index for index in range(count)])


def test_boxes_have_one_size_and_follow_the_face() -> None:
    boxes = face_boxes(points(9, move=1.3))
    assert len({(y2 - y1, x2 - x1) for y1, y2, x1, x2 in boxes.tolist()}) == 1
    y1, y2, x1, x2 = boxes[0]
    eyes, mouth = (160 - y1) / (y2 - y1), (230 - y1) / (y2 - y1)
    assert eyes == pytest.approx(0.38, abs=0.01) and mouth == pytest.approx(0.74, abs=0.01)
    assert (x1 + x2) / 2 == pytest.approx(200, abs=1)
    assert boxes[8][0] - boxes[0][0] == pytest.approx(8 * 1.3, abs=1)


@pytest.mark.parametrize(("size", "first_row"), [(96, 44), (256, 118), (384, 176)])
def test_a_strip_lands_where_it_was_cut_out(size: int, first_row: int) -> None:
    picture, box = smooth_picture(), np.array([100, 307, 120, 281])
    strip = Strip(size, first_row, 207, 161)
    back = strip.enlarge(cut_face(picture, box, size)[first_row:])
    truth = picture[100 + strip.top : 307, 120:281]
    assert back.shape == truth.shape == (*strip.mask.shape, 3)
    difference = back[3:-3, 3:-3].astype(float) - truth[3:-3, 3:-3]
    assert np.abs(difference).max() <= 2
    # A quarter of a pixel off would be 0.12 grey levels in one direction.
    assert abs(difference.mean()) < 0.1


def test_a_box_beyond_the_border_repeats_it() -> None:
    picture = smooth_picture()
    crop = cut_face(picture, np.array([-40, 160, -30, 130]), 100)
    assert crop.shape == (100, 100, 3)
    assert np.abs(crop[0].astype(int) - crop[15].astype(int)).max() <= 1


def test_the_network_sees_the_hidden_half_black_and_the_reference_whole() -> None:
    crop = np.random.default_rng(1).integers(1, 255, (96, 96, 3), np.uint8)
    face = network_face(crop, "bgr")
    assert face.shape == (1, 6, 96, 96) and face.dtype == np.float32
    assert not face[0, :3, 48:].any() and face[0, :3, :48].all()
    np.testing.assert_allclose(face[0, 3:].transpose(1, 2, 0) * 255, crop, atol=1e-4)
    np.testing.assert_array_equal(network_face(crop, "rgb")[0, 3:], face[0, 3:][::-1])


def test_mask_is_solid_inside_and_ends_before_every_border() -> None:
    mask = Strip(96, 44, 240, 190).mask
    assert mask[len(mask) // 2, 95] == 255
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert edge.max() <= 10
    assert np.abs(np.diff(mask.astype(int), axis=0)).max() <= 48


def test_a_step_of_colour_at_the_rim_is_taken_out() -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(2).integers(80, 160, (112, 161, 3), np.uint8), (0, 0), 4)
    mask = Strip(96, 44, 207, 161).mask
    darker = cv2.subtract(picture, (7, 3, 5, 0))
    matched = match_colour(darker, picture, mask)
    assert np.abs(matched.astype(int) - picture).max() <= 1


def test_a_picture_that_is_altogether_wrong_is_not_hidden() -> None:
    picture = np.full((112, 161, 3), 60, np.uint8)
    wrong = np.full((112, 161, 3), 200, np.uint8)
    assert match_colour(wrong, picture, Strip(96, 44, 207, 161).mask).min() >= 185
