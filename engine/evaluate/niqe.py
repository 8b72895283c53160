"""NIQE: how far the statistics of a picture are from those of good pictures, without any truth.

Place in the flow: picture -> 36 features per patch -> distance to the pristine model; ``fit`` makes such a model.
Command: ``python -m engine.evaluate.niqe OUT.npz PICTURE …`` fits one to photographs.

Method: A. Mittal, R. Soundararajan, A. C. Bovik, "Making a completely blind image quality analyzer", 2013. The pristine
model is our own (``niqe.npz``, see README.md), so the values do not compare with those of the authors' constants.

Invariants:
    * a model is a mean (36) and a covariance (36, 36), nothing of any picture is in it;
    * lower is better; 0 would be a picture with exactly the model's statistics.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from engine.array_file import open_arrays
from engine.errors import InvalidInput

PATCH = 96
FEATURES = 36

_FILE = Path(__file__).with_name("niqe.npz")
_SHARP_SHARE = 0.75
_FITTED_SIDE = 1024
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True, slots=True)
class NaturalModel:
    """A multivariate Gaussian of patch features.

    Attributes:
        mean: (36,) float64.
        covariance: (36, 36) float64.
    """

    mean: np.ndarray
    covariance: np.ndarray


@cache
def shipped_model() -> NaturalModel:
    """The model that comes with the project."""
    with open_arrays(_FILE) as arrays:
        return NaturalModel(arrays["mean"].astype(np.float64), arrays["covariance"].astype(np.float64))


def niqe(picture: np.ndarray, model: NaturalModel | None = None) -> float:
    """Distance of a picture's statistics from the model's.

    Args:
        picture: (H, W, 3) uint8 BGR, at least two patches on each side.
        model: the shipped one by default.

    Raises:
        InvalidInput: ``picture_too_small``.
    """
    model = model or shipped_model()
    features, _ = patch_features(picture)
    covariance = np.cov(features, rowvar=False) if len(features) > 1 else np.zeros((FEATURES, FEATURES))
    step = model.mean - features.mean(0)
    return float(np.sqrt(max(0.0, step @ np.linalg.pinv((model.covariance + covariance) / 2) @ step)))


def fit(pictures: Iterable[np.ndarray]) -> NaturalModel:
    """The model of some good pictures, from their sharp patches.

    Args:
        pictures: (H, W, 3) uint8 BGR each.
    """
    chosen = []
    for picture in pictures:
        features, sharpness = patch_features(picture)
        chosen.append(features[sharpness >= _SHARP_SHARE * sharpness.max()])
    features = np.concatenate(chosen)
    return NaturalModel(features.mean(0), np.cov(features, rowvar=False))


def patch_features(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of all whole patches of a picture, at two scales.

    Returns:
        (patches, 36) float64, and (patches,) mean local contrast.

    Raises:
        InvalidInput: ``picture_too_small``.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float64)
    rows, columns = grey.shape[0] // PATCH, grey.shape[1] // PATCH
    if rows * columns < 2:
        raise InvalidInput(
            "picture_too_small",
            f"A picture of {grey.shape[1]} x {grey.shape[0]} pixels has no natural statistics to measure; it needs "
            f"two patches of {PATCH} x {PATCH}.",
        )
    grey = grey[: rows * PATCH, : columns * PATCH]
    parts, sharpness = [], np.zeros(0)
    for scale in (1, 2):
        normal, contrast = _normalised(grey)
        side = PATCH // scale
        tiles = _tiles(normal, side)
        parts.append(np.stack([_features(tile) for tile in tiles]))
        if scale == 1:
            sharpness = _tiles(contrast, side).mean((1, 2))
            grey = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float64)
    return np.concatenate(parts, 1), sharpness


def _tiles(image: np.ndarray, side: int) -> np.ndarray:
    rows, columns = image.shape[0] // side, image.shape[1] // side
    return image.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _normalised(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean subtracted, contrast normalised values, and the local contrast (7 x 7 Gaussian, sigma 7/6)."""
    mean = cv2.GaussianBlur(grey, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(grey * grey, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)
    contrast = np.sqrt(np.maximum(0.0, square - mean * mean))
    return (grey - mean) / (contrast + 1), contrast


def _features(tile: np.ndarray) -> np.ndarray:
    """(18,): shape and spread of the values, and shape, mean, left and right spread of four kinds of neighbours."""
    alpha, left, right = _asymmetric_fit(tile)
    found = [alpha, (left + right) / 2]
    for rows, columns in _NEIGHBOURS:
        product = tile * np.roll(tile, (rows, columns), (0, 1))
        alpha, left, right = _asymmetric_fit(product)
        mean = (right - left) * _GAMMA_RATIO[np.searchsorted(_ALPHAS, alpha).clip(0, len(_ALPHAS) - 1)]
        found += [alpha, mean, left, right]
    return np.array(found)


def _asymmetric_fit(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, left and right scale of an asymmetric generalised Gaussian (moment matching)."""
    flat = values.ravel()
    below, above = flat[flat < 0], flat[flat > 0]
    left = float(np.sqrt(np.mean(below**2))) if below.size else 1e-6
    right = float(np.sqrt(np.mean(above**2))) if above.size else 1e-6
    ratio = left / right
    square = float(np.mean(flat**2)) or 1e-12
    wanted = np.mean(np.abs(flat)) ** 2 / square * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    alpha = float(_ALPHAS[np.argmin((_MOMENTS - wanted) ** 2)])
    scale = _SCALE[np.searchsorted(_ALPHAS, alpha)]
    return alpha, left * scale, right * scale


_gamma = np.vectorize(math.gamma)
_ALPHAS = np.arange(0.2, 10.001, 0.001)
_MOMENTS = _gamma(2 / _ALPHAS) ** 2 / (_gamma(1 / _ALPHAS) * _gamma(3 / _ALPHAS))
_SCALE = np.sqrt(_gamma(1 / _ALPHAS) / _gamma(3 / _ALPHAS))
_GAMMA_RATIO = _gamma(2 / _ALPHAS) / _gamma(1 / _ALPHAS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fits a model to photographs, none of them larger than ``_FITTED_SIDE``, and writes it."""
    parser = argparse.ArgumentParser(description="Fit the statistics of good pictures.")
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    model = fit(_fitting(path) for path in options.pictures)
    np.savez_compressed(options.out, mean=model.mean, covariance=model.covariance)


def _fitting(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    if picture is None:
        raise InvalidInput("picture_unreadable", f"Cannot read {path} as a picture.")
    scale = min(1.0, _FITTED_SIDE / max(picture.shape[:2]))
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
