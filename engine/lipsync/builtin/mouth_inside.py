"""The inside of the mouth as drawn pictures: teeth and tongue, put where a face's jaw and tongue are.

Place in the flow: ``mouth_inside.npz`` (drawn by ``engine.studio.mouth_atlas``) + face landmarks + mouth vector ->
picture behind the lips, which ``warp`` lights and lays into the opening.

Invariants:
    * the upper teeth stay with the face, the lower teeth and the tongue follow the jaw in proportion to ``jawOpen``,
      and hide a little more behind lips that round themselves;
    * positions are continuous in the mouth vector and in the landmarks, so that nothing jumps between two frames;
    * lengths are in distances between the middle of the eyes and the middle of the mouth ("d" below), origin in the
      middle of the mouth, x to the right and y down as the picture shows them on an upright face.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.array_file import open_arrays
from engine.errors import BackendFailed
from engine.types import MOUTH_SHAPES

PROBE_JAW = 0.82
"""``jawOpen`` of the mouth by whose lips the teeth are placed: an open vowel."""
TILE_PER_D = 320
"""Pixels of a drawn tile per d."""
TILE_ROWS, TILE_COLUMNS = 144, 232
UPPER_TOP_D, LOWER_TOP_D = -0.27, -0.29
"""Top edge of a tile: of the upper teeth from the mouth's middle, of the lower ones from their front edge at rest."""
DARKNESS_BGR = (20, 18, 38)
"""What one sees where there is neither tooth nor tongue."""

_JAW, _TONGUE, _FUNNEL = (MOUTH_SHAPES.index(name) for name in ("jawOpen", "tongueOut", "mouthFunnel"))
_SHARPER = 1.25
"""Tiles are kept this much finer than the picture they are drawn into."""
_YAW_PER_NOSE = 2.2
"""Turn of the head, radians, per d that the nose tip lies beside the axis from the eyes to the mouth."""
_MOST_YAW = 0.6
_ARCH_PER_D = 2.0
"""How the row of teeth bends back: depth = this x (sideways)^2, in d."""
_RELAXED_WIDTH_D = 0.78
"""A mouth wider than this smiles: its corners went up, away from the teeth, and its teeth are seen further back."""
_FALL_PER_WIDTH, _GROWTH_PER_WIDTH = 0.40, 0.50
_MOST_FALL_D, _MOST_GROWTH = 0.09, 0.22
_UPPER_SHOWN_D, _LOWER_SHOWN_D = 0.065, 0.035
"""How much of the teeth the lips of a wide open mouth leave to be seen: 4 and 2 mm on a grown face."""
_BITE_D = 0.005
"""How far the lower edge stays above the upper one when the jaw is shut."""
_USUAL_LIPS_D = (0.03, 0.39)
_UPPER_EDGE_LIMITS_D, _DROP_LIMITS_D = (0.05, 0.19), (0.20, 0.36)
_POUT_D = 0.11
"""How much further the lower teeth are hidden per ``jawOpen`` x ``mouthFunnel``: the lip comes up before them."""
_WIDER, _WARMER = 0.05, 0.04
"""How much people's teeth differ, in width and in colour."""


@dataclass(frozen=True)
class Place:
    """Where the mouth's inside lies in a picture.

    Attributes:
        middle: (2,) x, y of the mouth's middle as it would be without a smile, pixels.
        across: (2,) unit vector from the image's left corner of the mouth to the right one.
        distance_px: pixels per d of the inside.
        yaw: turn of the head to the picture's right, radians.
        smile: how much wider than a relaxed one the mouth at rest is, d.
    """

    middle: np.ndarray
    across: np.ndarray
    distance_px: float
    yaw: float
    smile: float = 0.0


def place_of(landmarks: np.ndarray, distance_px: float) -> Place:
    """Reads the place from five landmarks.

    Args:
        landmarks: (5, 2) pixels, mouth at rest: eyes, nose tip, mouth corners.
        distance_px: eye-mouth distance that sets the size (over a loop: its median).
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    # The eyes lie further apart and are found more exactly than the corners of the mouth.
    across = (landmarks[1] - landmarks[0]) / np.linalg.norm(landmarks[1] - landmarks[0])
    axis = mouth - eyes
    along = (landmarks[2] - eyes) @ axis / (axis @ axis)
    aside = (landmarks[2] - eyes - along * axis) @ across / distance_px
    smile = max(float(np.linalg.norm(landmarks[4] - landmarks[3])) / distance_px - _RELAXED_WIDTH_D, 0.0)
    middle = mouth + min(_FALL_PER_WIDTH * smile, _MOST_FALL_D) * axis
    size_px = distance_px * (1 + min(_GROWTH_PER_WIDTH * smile, _MOST_GROWTH))
    return Place(middle, across, size_px, float(np.clip(_YAW_PER_NOSE * aside, -_MOST_YAW, _MOST_YAW)), smile)


class MouthInside:
    """Tiles of teeth and tongue at one resolution."""

    def __init__(
        self,
        upper: np.ndarray,
        lower: np.ndarray,
        drop_d: float,
        rest_d: float,
        per_d: float,
        edge_d: float,
        lowered_d: float = 0.0,
        wider: float = 1.0,
    ) -> None:
        """Takes finished tiles; ``load`` is the usual way.

        Args:
            upper: (h, w, 4) uint8 BGRA, colours multiplied by alpha: upper teeth.
            lower: (jaws, tongues, h, w, 4) uint8 likewise: lower teeth and tongue for evenly spaced ``jawOpen`` and
                ``tongueOut`` from 0 to 1, the front edge of the teeth always in the same row.
            drop_d: how far that edge moves down as ``jawOpen`` goes from 0 to 1, d.
            rest_d: where it is at ``jawOpen`` 0, d below the mouth's middle.
            per_d: pixels of a tile per d.
            edge_d: where the edge of the upper teeth is drawn, d below the mouth's middle.
            lowered_d: how much lower than that they are shown.
            wider: factor on the rows' width.
        """
        self._upper, self._lower = upper, lower
        self._drop_d, self._rest_d, self._per_d = drop_d, rest_d, per_d
        self._edge_d, self._lowered_d, self._wider = edge_d, lowered_d, wider

    @classmethod
    def load(cls, path: Path) -> MouthInside:
        """Reads the tiles as they were drawn.

        Raises:
            BackendFailed: the file is missing or damaged.
        """
        try:
            with open_arrays(path) as file:
                drop_d, rest_d, edge_d = (float(file[name]) for name in ("drop_d", "rest_d", "edge_d"))
                return cls(file["upper"], file["lower"], drop_d, rest_d, TILE_PER_D, edge_d)
        except (OSError, ValueError, KeyError) as error:
            raise BackendFailed(
                "model_unreadable", f"The file {path.name} cannot be read; reinstall the project ({error})."
            ) from error

    def sized(self, distance_px: float) -> MouthInside:
        """The tiles for faces of one size: shrunk once, so that small pictures neither shimmer nor alias.

        Args:
            distance_px: eye-mouth distance, pixels.
        """
        scale = _SHARPER * distance_px / self._per_d
        if scale >= 1:
            return self
        size = (round(self._upper.shape[1] * scale), round(self._upper.shape[0] * scale))
        upper = cv2.resize(self._upper, size, interpolation=cv2.INTER_AREA)
        lower = [[cv2.resize(tile, size, interpolation=cv2.INTER_AREA) for tile in row] for row in self._lower]
        # Rounding the size changes rows and columns by different factors, by less than half a pixel over a tile.
        measures = self._drop_d, self._rest_d, self._per_d * scale, self._edge_d, self._lowered_d, self._wider
        return MouthInside(upper, np.array(lower), *measures)

    def fitted(self, lips_d: tuple[float, float] | None, name: str) -> MouthInside:
        """The tiles as one person's: teeth where the lips bare them, and a little unlike everybody else's.

        Thick lips and thin ones meet higher or lower between their corners: the corners do not tell where teeth are.

        Args:
            lips_d: edges of the upper and of the lower lip with ``PROBE_JAW`` open, d below the mouth's middle; None
                where they are not known.
            name: of the person; the same name always gets the same teeth.
        """
        upper_lip, lower_lip = lips_d or _USUAL_LIPS_D
        edge_d = float(np.clip(upper_lip + _UPPER_SHOWN_D, *_UPPER_EDGE_LIMITS_D))
        rest_d = edge_d - _BITE_D
        drop_d = float(np.clip((lower_lip - _LOWER_SHOWN_D - rest_d) / PROBE_JAW, *_DROP_LIMITS_D))
        chance = zlib.crc32(name.encode())
        width, warmth = ((chance >> shift & 0xFF) / 127.5 - 1 for shift in (0, 8))
        tint = 1 - _WARMER * (1 + warmth) / 2 * np.array([1.0, 0.4, 0.2, 0.0])
        upper, lower = (np.rint(tiles * tint).astype(np.uint8) for tiles in (self._upper, self._lower))
        lowered_d = edge_d - self._edge_d
        wider = 1 + _WIDER * width
        return MouthInside(upper, lower, drop_d, rest_d, self._per_d, self._edge_d, lowered_d, wider)

    def draw(self, rows: np.ndarray, columns: np.ndarray, place: Place, mouth: np.ndarray) -> np.ndarray:
        """The mouth's inside as if there were no lips in front of it.

        Args:
            rows, columns: (h,) and (w,) picture rows and columns to draw, pixel centres.
            place: where the mouth is.
            mouth: (10,) in [0, 1].

        Returns:
            (h, w, 3) float32 BGR in [0, 255], in the studio's light.
        """
        x, y = (columns - place.middle[0]) / place.distance_px, (rows - place.middle[1]) / place.distance_px
        cosine, sine = place.across
        u = (x * cosine)[None] + (y * sine)[:, None]
        v = (y * cosine)[:, None] - (x * sine)[None]
        # A turn of the head moves what lies further back, the side teeth, against the front ones.
        u = u + place.yaw * _ARCH_PER_D * u * u
        jaw = float(np.clip(mouth[_JAW], 0, 1))
        per_d, width = self._per_d, self._upper.shape[1]
        dropped_d = self._rest_d + self._drop_d * jaw + _POUT_D * jaw * float(mouth[_FUNNEL])
        map_x = (u * (per_d / self._wider) + (width / 2 - 0.5)).astype(np.float32)
        low_y = ((v - dropped_d - LOWER_TOP_D) * per_d - 0.5).astype(np.float32)
        high_y = ((v - self._lowered_d - UPPER_TOP_D) * per_d - 0.5).astype(np.float32)
        low = cv2.remap(self._jaw_tile(jaw, float(mouth[_TONGUE])), map_x, low_y, cv2.INTER_LINEAR)
        high = cv2.remap(self._upper, map_x, high_y, cv2.INTER_LINEAR)
        picture = np.empty((*map_x.shape, 3), np.float32)
        picture[:] = DARKNESS_BGR
        for tile in (low, high):
            picture *= 1 - tile[..., 3:] * np.float32(1 / 255)
            picture += tile[..., :3]
        return picture

    def _jaw_tile(self, jaw: float, tongue: float) -> np.ndarray:
        """(h, w, 4) uint8: the lower tile between the drawn levels."""
        jaws, tongues = self._lower.shape[:2]
        below, share = _level(jaw, jaws)
        near, turn = _level(min(max(tongue, 0.0), 1.0), tongues)
        rows = [cv2.addWeighted(self._lower[below + k, near], 1 - turn, self._lower[below + k, near + 1], turn, 0)
                for k in range(2)]  # fmt: skip
        return cv2.addWeighted(rows[0], 1 - share, rows[1], share, 0)


def _level(value: float, count: int) -> tuple[int, float]:
    """Index of the level at or below a value in [0, 1], and the share of the next one."""
    position = value * (count - 1)
    below = min(int(position), count - 2)
    return below, position - below
