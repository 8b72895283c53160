"""Teeth and tongue drawn alone: fixed light, darkness around, tiles that fit together."""

from __future__ import annotations

import os

import numpy as np
import pytest

from engine.lipsync.builtin.mouth_inside import (
    DARKNESS_BGR,
    LOWER_TOP_D,
    TILE_COLUMNS,
    TILE_PER_D,
    TILE_ROWS,
    UPPER_TOP_D,
)
from engine.studio.assets import Assets
from engine.studio.mouth_atlas import draw_tile, make_atlas, shape_tongue
from engine.studio.mouth_layers import draw_inside, of_parts
from engine.studio.raster import PARTS, Surface, View, weld


def square(part: int, half_dm: float) -> tuple[Surface, np.ndarray]:
    """A white square facing the viewer."""
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32) * half_dm
    surface = Surface(
        triangles=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        part=np.full(2, part, np.int32),
        uv=np.zeros((4, 2), np.float32),
        welded=weld(vertices),
        occlusion=np.ones(4, np.float32),
        mouth=np.zeros(4, np.float32),
        texels=np.full(4, 255, np.uint8),
        texture_offset=np.zeros(len(PARTS), np.int64),
        texture_size=np.ones(len(PARTS), np.int64),
    )
    return surface, vertices


def test_a_part_left_out_is_not_drawn_and_leaves_darkness() -> None:
    surface, vertices = square(PARTS.index("body"), 1.0)
    view = View(np.eye(3, dtype=np.float32), np.zeros(3), np.zeros(3), 10.0, 300.0, (20.0, 20.0), 0.0, 40)
    drawing = draw_inside(of_parts(surface, ("teeth", "tongue")), vertices, view)
    assert (drawing.hit == -1).all()
    assert np.abs(drawing.image.astype(int) - DARKNESS_BGR).max() <= 1
    assert (draw_inside(of_parts(surface, ("body",)), vertices, view).hit >= 0).any()


def test_a_tile_has_its_measures_and_colours_multiplied_by_alpha() -> None:
    surface, vertices = square(PARTS.index("teeth"), 0.05)
    per_d_dm = 0.65
    top = np.array([0, 0.2 * per_d_dm, 0], np.float32)
    tile = draw_tile(surface, vertices, top, per_d_dm)
    assert tile.shape == (TILE_ROWS, TILE_COLUMNS, 4)
    rows, columns = np.nonzero(tile[..., 3] > 127)
    assert np.ptp(columns) + 1 == pytest.approx(0.1 / per_d_dm * TILE_PER_D, abs=1.5)
    assert rows.mean() + 0.5 == pytest.approx(0.2 * TILE_PER_D, abs=1)
    assert columns.mean() + 0.5 == pytest.approx(TILE_COLUMNS / 2, abs=1)
    assert (tile[..., :3].max(2).astype(int) <= tile[..., 3].astype(int) + 1).all()
    assert not tile[tile[..., 3] == 0].any()


def test_what_lies_far_back_is_darker_than_the_front() -> None:
    surface, vertices = square(PARTS.index("teeth"), 0.08)
    leaning = vertices.copy()
    leaning[vertices[:, 0] < 0, 2] = -0.6
    tile = draw_tile(surface, leaning, np.array([0, 0.13, 0], np.float32), 0.65)
    row = tile[int(0.2 * TILE_PER_D)].astype(float)
    shown = np.flatnonzero(row[:, 3] == 255)
    back, front = row[shown[2], :3], row[shown[-3], :3]
    assert back.max() < 0.6 * front.max()
    assert back[2] > back[0]


def test_the_tongue_gets_a_narrow_tip_and_keeps_its_root() -> None:
    x, z = np.meshgrid(np.linspace(-0.2, 0.2, 9), np.linspace(0, 0.6, 13))
    flat = np.stack([x, np.zeros_like(x), z], -1).reshape(-1, 3).astype(np.float32)
    shaped = shape_tongue(flat)
    tip, root = flat[:, 2] > 0.59, flat[:, 2] < 0.01
    assert np.ptp(shaped[tip, 0]) < 0.65 * np.ptp(flat[tip, 0])
    assert np.array_equal(shaped[root, 0], flat[root, 0])
    assert np.array_equal(shaped[:, 2], flat[:, 2])
    middle, side = np.abs(flat[:, 0]) < 0.01, np.abs(flat[:, 0]) > 0.19
    beside = np.abs(np.abs(flat[:, 0]) - 0.05) < 0.01
    assert shaped[side & root, 1].max() < shaped[beside & root, 1].min()
    assert shaped[middle & root, 1].max() < shaped[beside & root, 1].min()


def test_the_real_lower_teeth_keep_their_edge_in_one_row() -> None:
    """On the real assets; ``VISAVIS_ASSETS`` names an unpacked assets directory."""
    folder = os.environ.get("VISAVIS_ASSETS")
    if not folder:
        pytest.skip("VISAVIS_ASSETS is not set")
    from engine.studio.human import Human

    atlas = make_atlas(Human(Assets.open(folder)))
    assert 0.2 < atlas["drop_d"] < 0.4
    middle = TILE_COLUMNS // 2
    edges = []
    for tile in atlas["lower"][:, 0]:
        edges.append(np.flatnonzero(tile[:, middle - 12 : middle + 12, :3].min(2).max(1) > 130)[0])
    assert max(edges) - min(edges) <= 8  # a little, since the jaw turns
    assert np.mean(edges) == pytest.approx(-LOWER_TOP_D * TILE_PER_D, abs=10)
    assert (atlas["upper"][..., 3] > 0).mean() > 0.3
    enamel = atlas["upper"][:, middle - 20 : middle - 4, :3].min(2).max(1)
    last = np.flatnonzero(enamel > 120)[-1]
    assert (last + 1) / TILE_PER_D + UPPER_TOP_D == pytest.approx(float(atlas["edge_d"]), abs=0.02)
