import cv2
import numpy as np
import pytest

from engine.errors import InvalidInput
from engine.evaluate.niqe import NaturalModel, fit, niqe, patch_features
from engine.evaluate.picture_measures import SAME_DB, psnr, ssim


def textured(side=384, seed=0):
    """A picture with detail of all sizes, as photographs have: noise whose spectrum falls with frequency."""
    rng = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]
    spectrum = np.fft.fft2(rng.standard_normal((side, side))) / np.maximum(np.hypot(x, y), 1 / side) ** 1.1
    values = np.real(np.fft.ifft2(spectrum))
    grey = np.clip(128 + 45 * (values - values.mean()) / values.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def test_psnr_of_a_known_error_is_the_textbook_value():
    picture = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(picture + 10, picture) == pytest.approx(10 * np.log10(255**2 / 100))
    assert psnr(picture, picture) == SAME_DB


def test_ssim_agrees_with_a_direct_computation_window_by_window():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 256, (24, 20), np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-40, 40, a.shape), 0, 255).astype(np.uint8)
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for top in range(24 - 10):
        for left in range(20 - 10):
            x, y = (image[top : top + 11, left : left + 11].astype(float) for image in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            c1, c2 = 6.5025, 58.5225
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    grey = [np.repeat(image[..., None], 3, 2) for image in (a, b)]
    assert ssim(*grey) == pytest.approx(np.mean(values), abs=1e-6)
    assert ssim(grey[0], grey[0]) == pytest.approx(1)


def test_niqe_rises_with_blur_and_with_noise():
    model = fit(textured(seed=seed) for seed in range(3))
    clean = textured(seed=9)
    noisy = np.clip(clean + np.random.default_rng(2).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    best = niqe(clean, model)
    for sigma in (1.0, 2.0):
        assert niqe(cv2.GaussianBlur(clean, (0, 0), sigma), model) > best * 1.2
    assert niqe(noisy, model) > best * 1.2


def test_the_shipped_statistics_prefer_a_sharp_photograph(shared_data):
    photo = cv2.imread(str(shared_data / "faces/stills/astronaut_collins.png"))[:480, :480]
    assert niqe(photo) < niqe(cv2.GaussianBlur(photo, (0, 0), 2.5))


def test_niqe_features_of_gaussian_noise_have_the_gaussian_shape():
    noise = np.clip(np.random.default_rng(3).normal(128, 20, (192, 192, 1)), 0, 255).astype(np.uint8)
    features, _ = patch_features(np.repeat(noise, 3, 2))
    assert features.shape == (4, 36)
    assert features[:, 0].mean() == pytest.approx(2.6, abs=0.7)  # 2 is Gaussian; local contrast takes the tails


def test_a_picture_without_two_patches_is_refused():
    model = NaturalModel(np.zeros(36), np.eye(36))
    with pytest.raises(InvalidInput, match="two patches"):
        niqe(np.zeros((100, 100, 3), np.uint8), model)
