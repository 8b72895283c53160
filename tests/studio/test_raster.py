"""The rasteriser's truth: pictures, motion and opening of simple surfaces whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from engine.studio.raster import PART_ID, PARTS, Drawing, Light, Surface, View, draw, motion, mouth_shade, weld

SIZE = 96


def sheet(rows: int, z: float, part: str, mouth: float, half: float = 1.2) -> tuple[np.ndarray, ...]:
    """A square grid facing the viewer: vertices, triangles, uv, part and mouth per vertex."""
    axis = np.linspace(-half, half, rows)
    x, y = np.meshgrid(axis, axis)
    vertices = np.stack([x, y, np.full_like(x, z)], -1).reshape(-1, 3).astype(np.float32)
    uv = ((vertices[:, :2] / half + 1) / 2 * 0.98 + 0.01).astype(np.float32)
    corner = (np.arange(rows - 1)[:, None] * rows + np.arange(rows - 1)).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + rows + 1], 1),
            np.stack([corner, corner + rows + 1, corner + rows], 1),
        ]
    )
    count = len(vertices)
    return vertices, triangles, uv, np.full(count, PART_ID[part]), np.full(count, mouth)


def build(pieces: list[tuple[np.ndarray, ...]]) -> tuple[Surface, np.ndarray]:
    starts = np.cumsum([0] + [len(piece[0]) for piece in pieces])
    vertices = np.concatenate([piece[0] for piece in pieces]).astype(np.float32)
    part = np.concatenate([piece[3] for piece in pieces])
    triangles = np.concatenate([piece[1] + start for piece, start in zip(pieces, starts, strict=False)])
    rng = np.random.default_rng(3)
    noise = rng.integers(60, 256, (24, 24, 3), dtype=np.uint8)
    texture = cv2.resize(noise, (256, 256), interpolation=cv2.INTER_CUBIC)
    texture = np.dstack([texture, np.full((256, 256), 255, np.uint8)])
    surface = Surface(
        triangles=triangles.astype(np.int32),
        part=part[triangles[:, 0]].astype(np.int32),
        uv=np.concatenate([piece[2] for piece in pieces]),
        welded=weld(vertices),
        occlusion=np.ones(len(vertices), np.float32),
        mouth=np.concatenate([piece[4] for piece in pieces]).astype(np.float32),
        texels=texture.ravel(),
        texture_offset=np.zeros(len(PARTS), np.int64),
        texture_size=np.full(len(PARTS), 256, np.int64),
    )
    return surface, vertices


def camera(roll: float = 0.0) -> View:
    zero = np.zeros(3, np.float32)
    return View(np.eye(3, dtype=np.float32), zero, zero, 10.0, 400.0, (SIZE / 2, SIZE / 2), roll, SIZE)


def ambient() -> Light:
    """Light from everywhere only, so that a surface has the same colour wherever it moves."""
    direction = np.eye(3, dtype=np.float32)
    dark = np.zeros((3, 3), np.float32)
    return Light(direction, dark, np.full(3, 0.9, np.float32), np.ones((len(PARTS), 3), np.float32), 0.0)


def picture(surface: Surface, vertices: np.ndarray, view: View) -> Drawing:
    return draw(surface, vertices, view, ambient(), np.zeros((SIZE, SIZE, 3), np.float32))


def bent(vertices: np.ndarray) -> np.ndarray:
    """A smooth motion of a few pixels, in and out of the picture plane too."""
    wave = np.stack([np.sin(vertices[:, 1] * 2), np.cos(vertices[:, 0] * 2), np.zeros(len(vertices))], 1)
    return (vertices + 0.08 * wave).astype(np.float32)


@pytest.mark.parametrize("roll", [0.0, 0.3])
def test_warping_the_reference_by_the_true_motion_reproduces_the_target(roll: float) -> None:
    surface, rest = build([sheet(17, 0.0, "body", 0.0, half=2.0)])
    view = camera(roll)
    reference, target = picture(surface, rest, view), picture(surface, bent(rest), view)
    moved = motion(surface, target, reference, rest, view)
    grid = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    warped = cv2.remap(reference.image, grid[1] + moved.flow[..., 0], grid[0] + moved.flow[..., 1], cv2.INTER_CUBIC)
    sure = (moved.seen > 0.99)[8:-8, 8:-8]
    assert sure.mean() > 0.9
    assert np.abs(moved.flow[8:-8, 8:-8]).max() > 2
    difference = (warped.astype(float) - target.image)[8:-8, 8:-8][sure]
    before = (reference.image.astype(float) - target.image)[8:-8, 8:-8][sure]
    assert 10 * np.log10(255**2 / np.square(difference).mean()) > 38
    assert np.square(before).mean() > 20 * np.square(difference).mean()


def test_a_pose_against_itself_has_no_motion_and_is_seen_everywhere() -> None:
    surface, rest = build([sheet(9, 0.0, "body", 0.0, half=2.0)])
    drawing = picture(surface, rest, camera())
    moved = motion(surface, drawing, drawing, rest, camera())
    assert np.abs(moved.flow).max() < 1e-3
    assert moved.seen[1:-1, 1:-1].min() == 1
    assert moved.opened.max() == 0


@pytest.mark.parametrize(("part", "mouth", "opens"), [("teeth", 0.0, True), ("body", 1.0, True), ("body", 0.0, False)])
def test_what_a_front_surface_uncovers_is_hidden_and_opens_only_inside_the_mouth(
    part: str, mouth: float, opens: bool
) -> None:
    back, front = sheet(5, -0.5, part, mouth, half=2.0), sheet(5, 0.5, "body", 0.0, half=0.5)
    surface, rest = build([back, front])
    raised = rest.copy()
    raised[len(back[0]) :, 1] += 0.4
    reference, target = picture(surface, rest, camera()), picture(surface, raised, camera())
    moved = motion(surface, target, reference, rest, camera())
    middle = SIZE // 2
    uncovered = (middle + 16, middle)
    covered_still = (middle - 10, middle)
    assert moved.seen[uncovered] == 0
    assert moved.opened[uncovered] == float(opens)
    assert moved.seen[covered_still] == 1
    assert moved.flow[covered_still][1] == pytest.approx(0.4 * 400 / 9.5, abs=0.05)
    assert moved.part[uncovered] == PART_ID[part]


def test_teeth_that_are_seen_at_rest_count_as_opening_and_not_as_motion() -> None:
    surface, rest = build([sheet(9, 0.0, "teeth", 0.0, half=2.0)])
    drawing = picture(surface, rest, camera())
    moved = motion(surface, drawing, drawing, rest, camera())
    assert moved.opened[1:-1, 1:-1].min() == 1
    assert moved.seen.max() == 0


def test_the_nearer_surface_hides_the_farther_one_whatever_their_order() -> None:
    near, far = sheet(3, 0.5, "teeth", 0.0), sheet(3, -0.5, "tongue", 0.0)
    for pieces in ([near, far], [far, near]):
        surface, rest = build(pieces)
        drawing = picture(surface, rest, camera())
        assert surface.part[drawing.hit[SIZE, SIZE]] == PART_ID["teeth"]


def test_the_inside_of_the_body_is_dark_and_the_back_of_teeth_is_not_drawn() -> None:
    for part, drawn in (("body", True), ("teeth", False)):
        vertices, triangles, uv, parts, mouth = sheet(3, 0.0, part, 0.0)
        surface, rest = build([(vertices, triangles[:, ::-1], uv, parts, mouth)])
        drawing = draw(surface, rest, camera(), ambient(), np.ones((SIZE, SIZE, 3), np.float32))
        middle = drawing.image[SIZE // 2, SIZE // 2]
        assert bool(drawing.hit[SIZE, SIZE] < -1) == drawn
        assert bool(middle.max() < 60) == drawn


def test_drawing_is_deterministic() -> None:
    surface, rest = build([sheet(9, 0.0, "body", 0.0), sheet(5, 0.4, "hair", 0.0, half=0.4)])
    first, second = picture(surface, rest, camera(0.1)), picture(surface, rest, camera(0.1))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.hit, second.hit)


def test_a_cropped_view_shows_the_square_of_the_whole_view() -> None:
    view = camera(0.2)
    points = view.camera(np.random.default_rng(0).normal(0, 0.5, (20, 3)).astype(np.float32))
    part = view.cropped((40.0, 50.0), 30.0, 60)
    assert np.allclose(part.pixels(points), (view.pixels(points) - [25, 35]) * 2, atol=1e-3)


def test_light_fades_towards_the_back_of_the_mouth() -> None:
    teeth, body = PART_ID["teeth"], PART_ID["body"]
    vertices = np.array([[0, 0, 0], [0, 0, -0.3], [0, 0, -0.3], [0, 0, 0.2]], np.float32)
    shade = mouth_shade(vertices, np.array([teeth, teeth, body, body]), np.zeros(3, np.float32))
    assert shade[0] > 0.95
    assert shade[1] < 0.5
    assert shade[2] < 0.5
    assert shade[3] == 1
