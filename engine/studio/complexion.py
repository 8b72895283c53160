"""Skin painted for one person: uneven tone and a beard shadow of fine stubble over a texture of the library.

Place in the flow: body part of a ``Figure`` + skin texture -> painted texture -> ``Scene``.

Invariants:
    * what is painted lies in texture coordinates, so it moves with the skin;
    * stubble grows on jaw, chin, throat and upper lip alone and leaves out the lips;
    * the same body and complexion give the same picture.

Units are decimetres; y is up, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.errors import NotFound
from engine.studio.figure import Part

_SEAM_PX = 3
_WHITE_HAIR = 215.0
_LIP_REDNESS = (1.22, 1.42)
"""Red over green between which painted skin turns into lip, relative to the median of the jaw."""


@dataclass(frozen=True)
class Complexion:
    """What is painted on the skin.

    Attributes:
        unevenness: standard deviation of the skin's tone, as a share; the library's skins are very even.
        stubble: share of the skin's colour that a day's beard covers, 0 none … 1 all.
        stubble_colour: sRGB of its hairs, 0 … 1.
        white_stubble: share of hairs that are white.
        seed: of the chance.
    """

    unevenness: float = 0.0
    stubble: float = 0.0
    stubble_colour: tuple[float, float, float] = (0.16, 0.13, 0.12)
    white_stubble: float = 0.0
    seed: int = 1


@dataclass(frozen=True)
class Mouth:
    """Where the face is.

    Attributes:
        right: (3,) right corner of the mouth.
        left: (3,) left corner.
        nose: (3,) tip of the nose.
    """

    right: np.ndarray
    left: np.ndarray
    nose: np.ndarray


def beard_region(points: np.ndarray, mouth: Mouth) -> np.ndarray:
    """How dense a beard grows at points of the skin: (n,) float64, 0 none … 1 full.

    Args:
        points: (n, 3) of the body, unposed.
        mouth: where the face is.
    """
    centre = (mouth.right + mouth.left) / 2
    half = np.linalg.norm(mouth.left - mouth.right) / 2
    sideways, height, depth = np.abs(points[:, 0] - centre[0]), points[:, 1] - centre[1], points[:, 2] - centre[2]
    drop = mouth.nose[1] - centre[1]
    # The edge runs from below the nose past the corner of the mouth, along the cheek up to the ear.
    edge = np.interp(
        sideways / half, (0.0, 0.9, 1.3, 2.1, 2.9), (0.55 * drop, 0.45 * drop, 0.0, 0.25 * drop, 1.6 * drop)
    )
    below = _ramp(edge - height, -0.03, 0.13)
    above_throat = _ramp(height, -1.05, -0.75)
    in_front = _ramp(depth, -1.05, -0.85)
    return below * above_throat * in_front


def paint(texture: np.ndarray, body: Part, points: np.ndarray, mouth: Mouth, complexion: Complexion) -> np.ndarray:
    """Paint uneven tone, a beard shadow and single stubbles.

    Args:
        texture: (H, W, 3) uint8 BGR skin.
        body: the body part, for its texture coordinates.
        points: (n, 3) its vertices, unposed.
        mouth: where the face is.
        complexion: what is painted.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    rng = np.random.default_rng(complexion.seed)
    painted = texture.astype(np.float32)
    if complexion.unevenness:
        painted *= 1 + complexion.unevenness * _mottle(texture.shape[:2], rng)
    if complexion.stubble:
        painted = _bearded(painted, texture, body, beard_region(points, mouth), complexion, rng)
    return np.clip(painted + 0.5, 0, 255).astype(np.uint8)


def _mottle(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32 noise of about unit deviation: blood in patches of a centimetre, pigment in finer ones."""
    tone = np.zeros((*shape, 3), np.float32)
    for cells_across, weights in ((60, (0.75, 0.75, 0.35)), (220, (0.6, 0.6, 0.5)), (800, (0.5, 0.5, 0.5))):
        noise = _smooth_noise(shape, shape[1] / cells_across / 2, rng)
        tone += noise[:, :, None] * np.array(weights, np.float32)
    return tone


def _smooth_noise(shape: tuple[int, int], radius_px: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32 noise of zero mean and unit deviation."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape).astype(np.float32), (0, 0), radius_px)
    return noise / noise.std()


def _bearded(
    painted: np.ndarray,
    texture: np.ndarray,
    body: Part,
    region: np.ndarray,
    complexion: Complexion,
    rng: np.random.Generator,
) -> np.ndarray:
    height, width = texture.shape[:2]
    density = _in_texture(body, region, height, width)
    density *= 1 - _lips(texture, density)
    patches = 1 + 0.15 * _smooth_noise((height, width), width / 170, rng)
    hairs = np.clip(0.7 + 0.4 * _smooth_noise((height, width), 0.8, rng), 0, 2)
    cover = np.clip(complexion.stubble * density * patches * hairs, 0, 0.9)[:, :, None]
    is_white = (rng.random((height, width)) < complexion.white_stubble).astype(np.float32)
    white = cv2.GaussianBlur(is_white, (0, 0), 0.6)[:, :, None]
    hair = 255 * np.array(complexion.stubble_colour[::-1], np.float32)
    return painted + cover * ((1 - white) * hair + white * _WHITE_HAIR - painted)


def read_skin(texture: Path) -> np.ndarray:
    """The picture of a skin: (H, W, 3) uint8 BGR.

    Raises:
        NotFound: there is no readable picture.
    """
    picture = cv2.imread(str(texture), cv2.IMREAD_COLOR)
    if picture is None:
        raise NotFound("picture_missing", f"{texture} is no readable picture; unpack the asset archives again.")
    return picture


def _ramp(value: np.ndarray, low: float, high: float) -> np.ndarray:
    share = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def _in_texture(body: Part, weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """Vertex weights as a picture in texture coordinates: (H, W) float32."""
    corners = np.where(body.polygons >= 0, body.polygons, body.polygons[:, :1])
    mean = weights[corners].mean(axis=1)
    picture = np.zeros((height, width), np.float32)
    scale = np.array([width, height])
    for polygon in np.flatnonzero(mean > 0):
        uv = body.polygon_uv[polygon][body.polygons[polygon] >= 0]
        outline = np.round(np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1) * scale).astype(np.int32)
        cv2.fillConvexPoly(picture, outline, float(mean[polygon]))
    # Polygons are filled evenly: blurring over about one of them makes the weights smooth again.
    return cv2.GaussianBlur(cv2.dilate(picture, np.ones((_SEAM_PX, _SEAM_PX))), (0, 0), width / 300)


def _lips(texture: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Where the painted skin is lip, by its redness: (H, W) float32."""
    colour = cv2.GaussianBlur(texture, (0, 0), texture.shape[1] / 700).astype(np.float32)
    redness = colour[:, :, 2] / np.maximum(colour[:, :, 1], 1)
    usual = float(np.median(redness[density > 0.5])) if (density > 0.5).any() else 1.0
    low, high = _LIP_REDNESS
    return _ramp(redness / usual, low, high).astype(np.float32)
