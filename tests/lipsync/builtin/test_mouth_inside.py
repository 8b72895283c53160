"""Teeth and tongue: where they are drawn for a face and a mouth."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

import engine.lipsync.builtin
from engine.errors import BackendFailed
from engine.lipsync.builtin.mouth_inside import DARKNESS_BGR, MouthInside, Place, place_of
from engine.types import MOUTH_SHAPES

FILE = Path(engine.lipsync.builtin.__file__).parent / "mouth_inside.npz"
FACE = np.array([[80, 90], [120, 90], [100, 120], [65, 190], [135, 190]], np.float32)
D_PX = 100.0
ROWS = np.arange(150, 250) + 0.5
COLUMNS = np.arange(50, 150) + 0.5


@pytest.fixture(scope="module")
def inside() -> MouthInside:
    return MouthInside.load(FILE).sized(D_PX)


def mouth(**shapes: float) -> np.ndarray:
    vector = np.zeros(len(MOUTH_SHAPES), np.float32)
    for name, value in shapes.items():
        vector[MOUTH_SHAPES.index(name)] = value
    return vector


def bright_rows(picture: np.ndarray) -> np.ndarray:
    """Rows whose middle shows enamel."""
    return np.flatnonzero(picture[:, 46:54].min(2).mean(1) > 110)


def test_upper_teeth_stay_and_lower_ones_follow_the_jaw(inside: MouthInside) -> None:
    place = place_of(FACE, D_PX)
    closed, wide = (inside.draw(ROWS, COLUMNS, place, mouth(jawOpen=jaw)) for jaw in (0.3, 0.8))
    before, after = bright_rows(closed), bright_rows(wide)
    assert before[0] == after[0]
    lowest = inside._drop_d * D_PX * 0.5
    assert after[-1] - before[-1] == pytest.approx(lowest, abs=4)
    gap = wide[int(before[0]) + 25, 40:60]
    assert gap.min(1).max() < 90


def test_between_drawn_levels_the_jaw_moves_without_a_jump(inside: MouthInside) -> None:
    place = place_of(FACE, D_PX)
    jaws = np.linspace(0, 1, 201)
    pictures = [inside.draw(ROWS, COLUMNS, place, mouth(jawOpen=jaw)) for jaw in jaws]
    steps = [float(np.abs(a - b).mean()) for a, b in pairwise(pictures)]
    assert max(steps) < 6 * float(np.median(steps)) + 0.2


def enamel(picture: np.ndarray) -> tuple[int, int]:
    """Last row of the upper teeth and first one of the lower teeth, in the picture's middle."""
    rows = bright_rows(picture)
    gap = int(np.diff(rows).argmax())
    return int(rows[gap]), int(rows[gap + 1])


def test_teeth_go_where_a_face_has_its_lips(inside: MouthInside) -> None:
    place = place_of(FACE, D_PX)
    edges = []
    for lips_d in ((0.0, 0.36), (0.08, 0.40)):
        picture = inside.fitted(lips_d, "anna").draw(ROWS, COLUMNS, place, mouth(jawOpen=0.82))
        upper, lower = enamel(picture)
        assert 150 + upper == pytest.approx(place.middle[1] + (lips_d[0] + 0.065) * D_PX, abs=3)
        assert 150 + lower == pytest.approx(place.middle[1] + (lips_d[1] - 0.035) * D_PX, abs=4)
        edges.append((upper, lower))
    assert edges[1][0] - edges[0][0] == pytest.approx(8, abs=1)


def test_lips_found_nowhere_or_anywhere_keep_teeth_in_the_mouth(inside: MouthInside) -> None:
    place = place_of(FACE, D_PX)
    for lips_d in (None, (-0.3, 0.9), (0.5, 0.5)):
        picture = inside.fitted(lips_d, "anna").draw(ROWS, COLUMNS, place, mouth(jawOpen=0.5))
        upper, lower = enamel(picture)
        assert place.middle[1] + 2 < 150 + upper < 150 + lower < place.middle[1] + 45


def test_a_pout_hides_the_lower_teeth(inside: MouthInside) -> None:
    place = place_of(FACE, D_PX)
    fitted = inside.fitted((0.03, 0.39), "anna")
    spread, pout = (
        enamel(fitted.draw(ROWS, COLUMNS, place, mouth(jawOpen=0.56, mouthFunnel=funnel))) for funnel in (0.0, 0.63)
    )
    assert pout[0] == spread[0]
    assert pout[1] > spread[1] + 2


def test_people_differ_and_each_keeps_their_teeth(inside: MouthInside) -> None:
    place = place_of(FACE, D_PX)
    anna, again, ben = (
        inside.fitted((0.03, 0.39), name).draw(ROWS, COLUMNS, place, mouth(jawOpen=0.5))
        for name in ("anna", "anna", "ben")
    )
    np.testing.assert_array_equal(anna, again)
    assert 0.3 < float(np.abs(anna - ben).mean()) < 12


def test_the_tongue_comes_out_pink(inside: MouthInside) -> None:
    place = place_of(FACE, D_PX)
    hidden, out = (inside.draw(ROWS, COLUMNS, place, mouth(jawOpen=0.18, tongueOut=t)) for t in (0.0, 1.0))
    change = np.abs(out - hidden).max(2) > 25
    assert change.sum() > 60
    blue, _, red = out[change].mean(0)
    assert red > blue + 30


def test_a_tilted_head_tilts_its_teeth(inside: MouthInside) -> None:
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = FACE[3:].mean(0)
    tilted = place_of(((FACE - centre) @ turn.T + centre).astype(np.float32), D_PX)
    assert np.arctan2(tilted.across[1], tilted.across[0]) == pytest.approx(angle, abs=1e-3)
    upright = inside.draw(ROWS, COLUMNS, place_of(FACE, D_PX), mouth(jawOpen=0.5))
    turned = inside.draw(ROWS, COLUMNS, tilted, mouth(jawOpen=0.5))

    # The middle of the mouth is the pixel (50, 40) of the pictures.
    rotation = cv2.getRotationMatrix2D((49.5, 39.5), -20, 1)
    expected = cv2.warpAffine(upright, rotation, (100, 100), borderMode=cv2.BORDER_REPLICATE)
    apart = float(np.abs(turned - expected)[20:80, 20:80].mean())
    assert apart < 0.3 * float(np.abs(turned - upright)[20:80, 20:80].mean())


def test_a_face_turned_aside_and_a_smile_move_the_place() -> None:
    frontal = place_of(FACE, D_PX)
    assert frontal.yaw == 0
    aside = FACE.copy()
    aside[2, 0] += 10
    assert place_of(aside, D_PX).yaw > 0.15
    smiling = FACE.copy()
    smiling[3, 0] -= 15
    smiling[4, 0] += 15
    place = place_of(smiling, D_PX)
    assert place.middle[1] > frontal.middle[1] + 3
    assert place.distance_px > frontal.distance_px
    assert frontal.smile == 0 and place.smile > 0.15


def test_beyond_the_teeth_it_is_dark(inside: MouthInside) -> None:
    place = Place(np.array([500.0, 500.0]), np.array([1.0, 0.0]), D_PX, 0.0)
    picture = inside.draw(ROWS, COLUMNS, place, mouth())
    assert np.array_equal(picture, np.broadcast_to(np.float32(DARKNESS_BGR), picture.shape))


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    broken = tmp_path / "mouth_inside.npz"
    broken.write_bytes(b"nothing")
    for path in (broken, tmp_path / "missing.npz"):
        with pytest.raises(BackendFailed, match="reinstall"):
            MouthInside.load(path)
