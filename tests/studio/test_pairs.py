"""What training pairs are drawn from, as far as it needs no assets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.studio.assets import Assets
from engine.studio.pairs import (
    MOUTHS,
    PICTURE_SIZE,
    make_shard,
    random_background,
    random_light,
    random_mouths,
    random_paint,
    write_shard,
)
from engine.studio.raster import PARTS
from engine.types import MOUTH_SHAPES


def test_mouths_start_at_rest_stay_in_range_and_use_every_shape() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([random_mouths(rng) for _ in range(200)])
    assert drawn.shape == (200, MOUTHS, len(MOUTH_SHAPES))
    assert not drawn[:, 0].any()
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn[:, 1:].max((0, 1)) > 0.7).all()
    small = drawn[:, -1].max(1)
    assert small.max() < 0.25


def test_lights_are_unit_vectors_with_a_tint_for_every_part() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        light = random_light(rng, {"body": (0.9, 0.8, 0.7)})
        assert np.allclose(np.linalg.norm(light.direction, axis=1), 1, atol=1e-5)
        assert light.tint.shape == (len(PARTS), 3) and (light.tint > 0).all()
        assert np.allclose(light.tint[0], [0.7, 0.8, 0.9])
        assert light.direction[2, 2] < 0


def test_backgrounds_and_paint_are_linear_colours_of_the_right_size() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        background = random_background(rng)
        assert background.shape == (PICTURE_SIZE, PICTURE_SIZE, 3)
        assert background.min() >= 0 and background.max() <= 1
        for factor in random_paint(rng, masculine=True).values():
            assert np.min(factor) >= 0
        assert "beard" not in random_paint(rng, masculine=False)


def test_a_shard_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    arrays = {"images": np.zeros((2, 3), np.uint8), "mouths": np.ones((2,), np.float32)}
    write_shard(tmp_path / "001-0000", arrays)
    assert [path.name for path in tmp_path.iterdir()] == ["001-0000"]
    assert np.array_equal(np.load(tmp_path / "001-0000" / "mouths.npy"), arrays["mouths"])


def test_real_people_open_their_mouths_and_some_beam() -> None:
    """On the real assets; ``VISAVIS_ASSETS`` names an unpacked assets directory."""
    folder = os.environ.get("VISAVIS_ASSETS")
    if not folder:
        pytest.skip("VISAVIS_ASSETS is not set")
    from engine.studio.human import Human

    human = Human(Assets.open(folder))
    plain, beaming = make_shard(human, 7, 0, 2), make_shard(human, 7, 0, 2, beaming=1.0)
    assert plain["opened"][:, 1:4].max() == 255
    assert (beaming["opened"][:, 0] > 127).sum() > 100 + (plain["opened"][:, 0] > 127).sum()
    # Where the mouth is open, the picture shows what was drawn alone: bright where that is bright.
    wide = plain["opened"] == 255
    inside, image = plain["insides"][wide].mean(-1), plain["images"][wide].mean(-1)
    assert np.corrcoef(inside, image)[0, 1] > 0.6
