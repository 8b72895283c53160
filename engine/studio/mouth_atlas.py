"""Draws the tiles of teeth and tongue that the product shows behind everybody's lips.

Place in the flow: average person's teeth and tongue -> ``mouth_inside.npz`` beside ``engine.lipsync.builtin``.
Command: ``python -m engine.studio.mouth_atlas --assets DIR engine/lipsync/builtin/mouth_inside.npz``.

Invariants:
    * the same assets give the same bytes;
    * the front edge of the lower teeth lies in the same row of every tile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from engine.lipsync.builtin.crop import eye_mouth_distance
from engine.lipsync.builtin.mouth_inside import LOWER_TOP_D, TILE_COLUMNS, TILE_PER_D, TILE_ROWS, UPPER_TOP_D
from engine.studio.assets import Assets
from engine.studio.figure import Figure
from engine.studio.human import Human
from engine.studio.identity import Identity
from engine.studio.mouth import RIG, target_weights
from engine.studio.mouth_layers import draw_inside, of_parts, only
from engine.studio.picture_head import Head
from engine.studio.raster import PART_ID, Drawing, Surface, View
from engine.types import MOUTH_SHAPES

_JAWS, _TONGUES = 6, 6
_SAMPLES = 4
_CAMERA_DM = 30.0
_CLEAR_DM, _GLOOM_PER_DM = 0.08, 3.6
"""What lies further behind the foremost tooth than the first gets darker with depth: little light reaches it."""
_FAR_BGR = (26, 24, 58)
"""What it darkens to; warmer than plain darkness, since the light there has gone through lips and gums."""
_UPPER_LOWER_D, _JAW_LOWER_D = 0.074, 0.072
"""How much lower than the library's the teeth sit; ``MouthInside.fitted`` takes it from there for each face."""
_ENAMEL_BGR = (0.92, 1.0, 1.04)
"""Factor on all display values: teeth look blue between warm lips unless they are a little yellow."""
_FRONT_DM = 0.06
_TARGETS = tuple(sorted({target for shape in ("jawOpen", "tongueOut") for target in RIG[shape]}))
_TIP_SHARE, _TIP_NARROWER = 0.5, 0.42
"""The front half of the library's tongue is a plate: its tip gets this much narrower."""
_SIDES_FALL_PER_DM, _GROOVE_DM, _GROOVE_WIDTH_DM = 0.9, 0.018, 0.035


def _mouth(jaw: float, tongue: float) -> np.ndarray:
    mouth = np.zeros(len(MOUTH_SHAPES), np.float32)
    mouth[MOUTH_SHAPES.index("jawOpen")], mouth[MOUTH_SHAPES.index("tongueOut")] = jaw, tongue
    return mouth


def shape_tongue(vertices: np.ndarray) -> np.ndarray:
    """A tongue (n, 3), decimetres, with a rounder tip, falling sides and a groove along its middle."""
    shaped = vertices.copy()
    x, z = vertices[:, 0], vertices[:, 2]
    front = np.clip((z - z.min()) / np.ptp(z) / _TIP_SHARE - (1 / _TIP_SHARE - 1), 0, 1)
    shaped[:, 0] = x * (1 - _TIP_NARROWER * front**2)
    groove = _GROOVE_DM * np.exp(-((x / _GROOVE_WIDTH_DM) ** 2)) * (1 - 0.5 * front)
    shaped[:, 1] -= _SIDES_FALL_PER_DM * shaped[:, 0] ** 2 + groove
    return shaped


def draw_tile(surface: Surface, vertices: np.ndarray, top: np.ndarray, per_d_dm: float) -> np.ndarray:
    """A tile of a surface, seen straight from the front.

    Args:
        surface: what to draw.
        vertices: (V, 3) decimetres.
        top: (3,) middle of the tile's top edge, decimetres.
        per_d_dm: decimetres per d.

    Returns:
        (TILE_ROWS, TILE_COLUMNS, 4) uint8 BGRA, colours multiplied by alpha.
    """
    side = max(TILE_ROWS, TILE_COLUMNS) * _SAMPLES
    focal = _CAMERA_DM * TILE_PER_D * _SAMPLES / per_d_dm
    offset = (TILE_COLUMNS * _SAMPLES / 2, 0.0)
    still = np.eye(3, dtype=np.float32)
    view = View(still, top, top, _CAMERA_DM, focal, offset, 0.0, side)
    drawing = draw_inside(surface, vertices, view, samples=1)
    shown = (drawing.hit >= 0).astype(np.float32)[..., None]
    colours = np.clip(drawing.image * np.array(_ENAMEL_BGR, np.float32), 0, 255)
    clear = np.exp(-_GLOOM_PER_DM * np.maximum(_depth_dm(drawing, surface, vertices) - _CLEAR_DM, 0))[..., None]
    colours = clear * colours + (1 - clear) * np.array(_FAR_BGR, np.float32)
    fine = np.concatenate([colours * shown, 255 * shown], 2)[: TILE_ROWS * _SAMPLES, : TILE_COLUMNS * _SAMPLES]
    return np.round(cv2.resize(fine, (TILE_COLUMNS, TILE_ROWS), interpolation=cv2.INTER_AREA)).astype(np.uint8)


def _depth_dm(drawing: Drawing, surface: Surface, vertices: np.ndarray) -> np.ndarray:
    """(n, n) float32 how far every pixel of a drawing lies behind the foremost point of the surface."""
    z = vertices[surface.triangles, 2]
    hit = np.maximum(drawing.hit, 0)
    first, second = drawing.weight[..., 0], drawing.weight[..., 1]
    behind = z[hit, 0] * first + z[hit, 1] * second + z[hit, 2] * (1 - first - second)
    return (z.max() - behind).astype(np.float32)


def make_atlas(human: Human) -> dict[str, np.ndarray]:
    """All tiles and measures, as ``MouthInside.load`` reads them."""
    figure = Figure(human, Identity(hair=None))
    head = Head(figure, _TARGETS)
    landmarks = head.landmarks(head.rest)
    d_dm = float(eye_mouth_distance(landmarks[:, :2]))
    middle = landmarks[3:].mean(0)
    teeth = figure.part("teeth")
    upper_vertices = human.group_of_vertex[teeth.anchors[teeth.split, 0]] == "helper-upper-teeth"
    start = int(head.surface.triangles[head.surface.part == PART_ID["teeth"]].min())
    of_upper = np.zeros(len(head.rest), bool)
    of_upper[start : start + len(upper_vertices)] = upper_vertices
    mouth_parts = of_parts(head.surface, ("teeth", "tongue"))
    high = of_upper[mouth_parts.triangles[:, 0]]
    upper, lower = only(mouth_parts, high), only(mouth_parts, ~high)

    lower_teeth = lower.triangles[lower.part == PART_ID["teeth"]].ravel()
    front = lower_teeth[head.rest[lower_teeth, 2] > head.rest[lower_teeth, 2].max() - _FRONT_DM]
    edge = int(front[head.rest[front, 1].argmax()])
    tongue_vertices = np.unique(lower.triangles[lower.part == PART_ID["tongue"]])
    lowered = np.zeros_like(head.rest)
    lowered[:, 1] = -d_dm * np.where(of_upper, _UPPER_LOWER_D, _JAW_LOWER_D)

    def pose(jaw: float, tongue: float) -> np.ndarray:
        vertices = head.vertices(target_weights(_mouth(jaw, tongue))) + lowered
        # It rises first and comes out then: straight ahead it would go through the lower teeth.
        back = head.vertices(target_weights(_mouth(jaw, 0)))[tongue_vertices, 2]
        vertices[tongue_vertices, 2] = back + tongue * (vertices[tongue_vertices, 2] - back)
        vertices[tongue_vertices] = shape_tongue(vertices[tongue_vertices])
        return vertices

    rest, wide = pose(0, 0), pose(1, 0)
    tiles = []
    for jaw in np.linspace(0, 1, _JAWS):
        row = []
        for tongue in np.linspace(0, 1, _TONGUES):
            vertices = pose(float(jaw), float(tongue))
            top = np.array([middle[0], vertices[edge, 1] - LOWER_TOP_D * d_dm, middle[2]], np.float32)
            row.append(draw_tile(lower, vertices, top, d_dm))
        tiles.append(row)
    top = np.array([middle[0], middle[1] - UPPER_TOP_D * d_dm, middle[2]], np.float32)
    upper_teeth = rest[np.unique(upper.triangles)]
    upper_edge = upper_teeth[upper_teeth[:, 2] > upper_teeth[:, 2].max() - _FRONT_DM, 1].min()
    return {
        "upper": draw_tile(upper, rest, top, d_dm),
        "lower": np.array(tiles),
        "drop_d": np.array((rest[edge, 1] - wide[edge, 1]) / d_dm, np.float32),
        "rest_d": np.array((middle[1] - rest[edge, 1]) / d_dm, np.float32),
        "edge_d": np.array((middle[1] - upper_edge) / d_dm, np.float32),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m engine.studio.mouth_atlas", description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True, help="unpacked assets directory")
    parser.add_argument("out", type=Path)
    options = parser.parse_args(argv)
    atlas = make_atlas(Human(Assets.open(options.assets)))
    np.savez_compressed(options.out, **atlas)  # type: ignore[arg-type]
    options.out.chmod(0o644)
    size = options.out.stat().st_size
    print(f"{options.out}: {size / 1e6:.2f} MB, drop {atlas['drop_d']:.3f} d, rest {atlas['rest_d']:.3f} d")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
