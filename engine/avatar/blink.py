"""Closes the eyes of a picture: the upper lid's own skin is drawn down over the eye, with its lashes and shade.

Place in the flow: picture + eye outlines -> ``Blink`` -> the same picture with lids at any height.

Invariants:
    * lids wide open give the picture back, bit for bit;
    * nothing changes above the eyebrows, below the lower lids or beside the eyes.
"""

from __future__ import annotations

import cv2
import numpy as np

from engine.avatar.eyes import Eye

CLOSING = (0.42, 0.93, 1.0, 0.97, 0.72, 0.42, 0.18, 0.05)
"""How far the lids are down in the pictures of one blink at 25 a second: shut within 80 ms, open after 300 ms."""

_STEEPEST_STRETCH = 1.8
_LID_MARGIN = 0.10
"""The outline is taken this much of the eye's opening higher, so that no bright rim of the eyeball moves along."""
_MEETING = 0.82
"""Where the lids meet, per opening: the lower one comes up the rest of the way."""
_LASH_STRENGTH = 0.7
_LASH_PER_EYE = 0.026
_SHADE_STRENGTH = 0.30
_SHADE_PER_OPENING = 0.35
_SMOOTH_PER_EYE = 0.055
_GLARE_LEVELS = (35.0, 65.0)
"""Grey levels above the skin around it that begin to be, and are, a reflection on glasses: it stays where it is."""
_SPOT_PER_EYE = 0.05


class Blink:
    """Draws lids over both eyes of one picture.

    Args:
        picture: (H, W, 3) uint8 BGR, eyes open.
        eyes: their outlines.
    """

    def __init__(self, picture: np.ndarray, eyes: tuple[Eye, Eye]) -> None:
        self._picture = picture
        self._lids = [_Lid(picture, eye) for eye in eyes]

    def __call__(self, closing: float) -> np.ndarray:
        """The picture with its lids down by ``closing``, 0 (as it is) to 1 (shut); a copy.

        Returns:
            (H, W, 3) uint8 BGR.
        """
        picture = self._picture.copy()
        if closing > 0:
            for lid in self._lids:
                lid.draw(picture, min(closing, 1.0))
        return picture


class _Lid:
    """One upper lid: everything about it that does not depend on how far it is down."""

    def __init__(self, picture: np.ndarray, eye: Eye) -> None:
        corner, other = eye.upper[0], eye.upper[-1]
        across = other - corner
        length = float(np.linalg.norm(across))
        axis = across / length
        down = np.array([-axis[1], axis[0]])

        def local(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            moved = points - corner
            return moved @ axis / length, moved @ down

        upper_u, upper_v = local(eye.upper)
        lower_u, lower_v = local(eye.lower)
        _, brow_v = local(eye.brow)
        reach = np.abs(brow_v).max() + 0.5 * length
        ends = np.stack([corner - 0.3 * across, other + 0.3 * across])
        low = np.floor(ends.min(0) - reach).astype(int).clip(0)
        high = np.ceil(ends.max(0) + reach).astype(int) + 1
        high = np.minimum(high, picture.shape[1::-1])
        self._place = np.s_[low[1] : high[1], low[0] : high[0]]
        self._original = picture[self._place].copy()
        self._columns, self._rows = np.meshgrid(
            np.arange(high[0] - low[0], dtype=np.float32), np.arange(high[1] - low[1], dtype=np.float32)
        )
        grid = np.stack([self._columns + low[0], self._rows + low[1]], -1) - corner
        u, v = grid @ axis / length, grid @ down
        upper = _curve(upper_u, upper_v, u)
        lower = np.maximum(_curve(lower_u, lower_v, u), upper + 0.5)
        opening = lower - upper
        upper = upper - _LID_MARGIN * opening
        taper = np.clip((0.56 - np.abs(u - 0.5)) / 0.12, 0, 1)
        self._taper = taper * taper * (3 - 2 * taper)
        self._way = (_MEETING * (lower - upper) + 0.5) * self._taper
        self._rise = ((1 - _MEETING) * (lower - upper) + 1.0) * self._taper
        brow = np.interp(u, np.linspace(0, 1, len(brow_v)), brow_v)
        # Where the brow is close to the eye, skin is taken from beneath it rather than torn.
        self._room = np.maximum(np.maximum(0.92 * (upper - brow), 3.0), self._way / _STEEPEST_STRETCH)
        self._v, self._upper, self._lower, self._down = v, upper, lower, down
        self._opening = np.maximum(opening, 1.0)
        self._lash_px = max(0.8, _LASH_PER_EYE * length)
        source = self._original.astype(np.float32)
        in_eye = (v > upper) & (v < lower) & (np.abs(u - 0.5) < 0.45)
        self._lash = np.percentile(source[in_eye], 6, axis=0) if in_eye.any() else np.zeros(3)
        skin = _skin(source, (v > upper - 0.06 * length) & (v < lower + 0.06 * length), 0.16 * length)
        grey = np.array([0.114, 0.587, 0.299])
        above = (source - skin) @ grey
        glare = np.clip((above - _GLARE_LEVELS[0]) / (_GLARE_LEVELS[1] - _GLARE_LEVELS[0]), 0, 1)
        # Small highlights are the lid's own and go along with it.
        spot = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(_SPOT_PER_EYE * length) + 1,) * 2)
        glare = cv2.morphologyEx((glare * ~in_eye).astype(np.float32), cv2.MORPH_OPEN, spot)
        self._glare = cv2.GaussianBlur(glare, (0, 0), 1.0)[..., None]
        self._source = source
        clean = source * (1 - self._glare) + skin * self._glare
        # Stretched skin shows its hairs and pores as streaks; a lid that is down is smooth.
        self._clean = clean.astype(np.float32)
        even = (0.6 * clean + 0.4 * skin).astype(np.float32)
        self._smooth = cv2.GaussianBlur(even, (0, 0), _SMOOTH_PER_EYE * length)

    def draw(self, picture: np.ndarray, closing: float) -> None:
        edge = self._upper + closing * self._way
        stretch = closing * self._way / self._room
        share = np.clip((self._v - (self._upper - self._room)) / self._room / (1 + stretch), 0, 1)
        eased = share * share * (3 - 2 * share)
        shift = stretch * eased * self._room
        torn = np.clip(2.2 * stretch / (1 + stretch) * 6 * share * (1 - share), 0, 1)[..., None]
        lid = self._moved(self._clean, shift) * (1 - torn) + self._moved(self._smooth, shift) * torn
        risen = closing * self._rise
        fall = np.clip((self._v - (self._lower - risen)) / (1.6 * self._opening), 0, 1)
        below = self._v - edge
        eye = self._moved(self._source, -risen * np.square(1 - fall))
        # The eyeball itself does not rise with the lower lid.
        ball = np.clip(self._lower - risen - self._v + 0.5, 0, 1)[..., None]
        eye = eye * (1 - ball) + self._source * ball
        shade = np.exp(-np.maximum(below, 0) / (_SHADE_PER_OPENING * self._opening)) * self._taper
        eye *= (1 - _SHADE_STRENGTH * min(1.0, 3 * closing) * shade)[..., None]
        over = np.clip(0.5 - below, 0, 1)[..., None]
        result = eye * (1 - over) + lid * over
        lashes = np.exp(-np.square(below / self._lash_px)) * self._taper * _LASH_STRENGTH * min(1.0, 1.5 * closing)
        result += lashes[..., None] * np.minimum(self._lash - result, 0)
        result += self._glare * (self._source - result)
        changed = (self._taper > 0) & (below < 2 * self._opening + 3) & (share > 0)
        region = picture[self._place]
        region[changed] = np.clip(np.rint(result[changed]), 0, 255).astype(np.uint8)

    def _moved(self, source: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """A picture moved down by ``shift`` (h, w) pixels."""
        columns = self._columns - (shift * self._down[0]).astype(np.float32)
        rows = self._rows - (shift * self._down[1]).astype(np.float32)
        return cv2.remap(source, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _skin(source: np.ndarray, hidden: np.ndarray, blur_px: float) -> np.ndarray:
    """A picture blurred from what is not ``hidden`` alone, defined everywhere."""
    seen = 1 - hidden.astype(np.float32) + 1e-3
    spread = cv2.GaussianBlur(seen, (0, 0), blur_px)
    return cv2.GaussianBlur(source * seen[..., None], (0, 0), blur_px) / spread[..., None]


def _curve(u: np.ndarray, v: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A smooth curve through points with u in [0, 1], constant beyond its ends.

    A polynomial of degree 4, because the outline's single points tremble by a pixel.
    """
    weights = np.ones(len(u))
    weights[[0, -1]] = 12
    return np.polyval(np.polyfit(u, v, 4, w=weights), np.clip(at, 0, 1))
