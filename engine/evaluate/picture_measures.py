"""How close a picture is to another: PSNR and SSIM.

Place in the flow: picture + truth -> numbers; used for videos with a truth and for faces at rest.

Invariant: pure functions of arrays; identical pictures have a PSNR of ``SAME_DB`` and an SSIM of 1.
"""

from __future__ import annotations

import cv2
import numpy as np

SAME_DB = 100.0
"""Stands for the infinite PSNR of identical pictures, so that means stay finite."""

_SIGMA_PIXELS = 1.5
_WINDOW = (11, 11)
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(picture: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise ratio over all channels, decibels.

    Args:
        picture: (H, W, 3) uint8.
        truth: the same shape.
    """
    error = float(np.mean((picture.astype(np.float32) - truth.astype(np.float32)) ** 2))
    return SAME_DB if error == 0 else min(SAME_DB, 10 * float(np.log10(255**2 / error)))


def ssim(picture: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of the luma (Wang, Bovik, Sheikh, Simoncelli, 2004): 11 x 11 Gaussian, sigma 1.5.

    Args:
        picture: (H, W, 3) uint8 BGR, at least 11 pixels on both sides.
        truth: the same shape.

    Returns:
        -1 to 1, the mean over all windows that lie wholly inside.
    """
    x, y = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float64) for image in (picture, truth))

    def smooth(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, _WINDOW, _SIGMA_PIXELS)[5:-5, 5:-5]

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    bottom = (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    return float((top / bottom).mean())
