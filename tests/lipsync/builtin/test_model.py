"""The built-in model as the renderer uses it: real weights, synthetic avatar, real windows of sound."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import engine.lipsync.builtin
from engine.audio.mel import mel_spectrogram
from engine.avatar.bundle import Avatar
from engine.compose import paste
from engine.errors import BackendFailed
from engine.lipsync.base import LipJob
from engine.lipsync.builtin import BuiltinLipSync
from engine.types import MOUTH_SHAPES

BUILTIN = Path(engine.lipsync.builtin.__file__).parent


def portrait(size: int = 256, frames: int = 3) -> Avatar:
    """A drawn face: skin, eyes, nose, lips."""
    pictures = np.empty((frames, size, size, 3), np.uint8)
    unit = size / 256
    landmarks = np.array([[96, 100], [160, 100], [128, 140], [104, 176], [152, 176]], np.float32) * unit
    for index, picture in enumerate(pictures):
        picture[:] = (90, 70, 60)
        shift = index
        centre = (int(128 * unit) + shift, int(130 * unit))
        cv2.ellipse(picture, centre, (int(75 * unit), int(100 * unit)), 0, 0, 360, (140, 170, 215), -1, cv2.LINE_AA)
        for x, y in landmarks[:2]:
            cv2.circle(picture, (int(x) + shift, int(y)), int(8 * unit), (60, 40, 30), -1, cv2.LINE_AA)
        mouth = (int(128 * unit) + shift, int(176 * unit))
        cv2.ellipse(picture, mouth, (int(25 * unit), int(8 * unit)), 0, 0, 360, (90, 90, 180), -1, cv2.LINE_AA)
        half = int(24 * unit)
        cv2.line(picture, (mouth[0] - half, mouth[1]), (mouth[0] + half, mouth[1]), (60, 50, 110), 1)
    points = np.stack([landmarks + np.array([i, 0]) for i in range(frames)]).astype(np.float32)
    boxes = np.tile(np.array([30, 230, 53, 203], np.float32) * unit, (frames, 1))
    return Avatar("drawn", "Drawn", (size, size), "CC0-1.0", "drawn", True, "", pictures, points, boxes)


@pytest.fixture(scope="module")
def lips() -> BuiltinLipSync:
    return BuiltinLipSync.load()


@pytest.fixture(scope="module")
def mels() -> list[np.ndarray]:
    """Windows of a loud vowel-like buzz with a pause."""
    time_s = np.arange(16000) / 16000
    buzz = sum(np.sin(2 * np.pi * 120 * k * time_s) / k for k in range(1, 30)) * 0.2
    buzz[6000:8000] = 0
    mel = mel_spectrogram(buzz.astype(np.float32))
    return [BuiltinLipSync.window.cut(mel, index) for index in range(25)]


def test_rest_returns_the_idle_frame_bit_for_bit(lips: BuiltinLipSync, mels: list[np.ndarray]) -> None:
    avatar = portrait()
    prepared = lips.prepare(avatar)
    for index in range(3):
        patch = lips.predict([LipJob(prepared, index, mels[10], strength=0.0)])[0]
        assert np.array_equal(paste(avatar.frames[index], patch), avatar.frames[index])
        assert patch.mouth is not None and not patch.mouth.any()


def test_a_patch_fits_its_box_and_its_mouth_is_a_vector(lips: BuiltinLipSync, mels: list[np.ndarray]) -> None:
    prepared = lips.prepare(portrait())
    for patch in lips.predict([LipJob(prepared, 0, mel) for mel in mels[:5]]):
        y1, y2, x1, x2 = patch.box
        assert patch.image.shape == (y2 - y1, x2 - x1, 3) and patch.image.dtype == np.uint8
        assert patch.mask.shape == (y2 - y1, x2 - x1) and patch.mask.dtype == np.uint8
        assert patch.mouth is not None and patch.mouth.shape == (len(MOUTH_SHAPES),)
        assert patch.mouth.min() >= 0 and patch.mouth.max() <= 1


def test_strength_scales_the_mouth(lips: BuiltinLipSync, mels: list[np.ndarray]) -> None:
    prepared = lips.prepare(portrait())
    full, half = lips.predict([LipJob(prepared, 0, mels[4]), LipJob(prepared, 0, mels[4], 0.5)])
    assert full.mouth is not None and half.mouth is not None
    assert np.allclose(half.mouth, full.mouth / 2, atol=1e-6)


def test_an_open_jaw_changes_the_mouth_and_not_the_eyes(lips: BuiltinLipSync) -> None:
    avatar = portrait()
    prepared = lips.prepare(avatar)
    mouth = np.zeros(len(MOUTH_SHAPES), np.float32)
    mouth[MOUTH_SHAPES.index("jawOpen")] = 0.9
    patch = lips.draw(prepared, 0, mouth)
    change = np.abs(paste(avatar.frames[0], patch).astype(int) - avatar.frames[0]).max(2)
    assert change[165:215, 110:146].mean() > 4
    assert change[:112].max() == 0


def test_a_smiling_mouth_presses_its_lips_less(lips: BuiltinLipSync) -> None:
    avatar = portrait()
    prepared = lips.prepare(avatar)
    smiling = replace(prepared, places=[replace(place, smile=0.22) for place in prepared.places])
    mouth = np.zeros(len(MOUTH_SHAPES), np.float32)
    mouth[MOUTH_SHAPES.index("mouthPress")] = 1.0
    less = mouth * np.float32(0.55)
    wide, relaxed = lips.draw(smiling, 0, mouth), lips.draw(prepared, 0, less)
    np.testing.assert_array_equal(wide.image, relaxed.image)
    np.testing.assert_array_equal(wide.mouth, mouth)


def test_predictions_are_deterministic_and_equal_from_two_threads(lips: BuiltinLipSync, mels: list[np.ndarray]) -> None:
    prepared = lips.prepare(portrait())
    jobs = [LipJob(prepared, index % 3, mel) for index, mel in enumerate(mels)]
    alone = lips.predict(jobs)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda job: lips.predict([job])[0], jobs * 2))
    for expected, patch in zip(alone * 2, together, strict=True):
        assert np.array_equal(expected.image, patch.image)
        assert np.array_equal(expected.mouth, patch.mouth)


def test_a_batch_equals_its_jobs_one_by_one(lips: BuiltinLipSync, mels: list[np.ndarray]) -> None:
    prepared = lips.prepare(portrait())
    jobs = [LipJob(prepared, 0, mel) for mel in mels[:4]]
    for expected, job in zip(lips.predict(jobs), jobs, strict=True):
        assert np.array_equal(expected.image, lips.predict([job])[0].image)


def test_a_face_too_small_is_refused(lips: BuiltinLipSync) -> None:
    with pytest.raises(BackendFailed) as caught:
        lips.prepare(portrait(size=48))
    assert caught.value.code == "face_too_small"


def test_a_face_at_the_border_of_the_picture_still_speaks(lips: BuiltinLipSync, mels: list[np.ndarray]) -> None:
    whole = portrait()
    frames = np.ascontiguousarray(whole.frames[:, :200])
    low = Avatar("low", "Low", (256, 200), "CC0-1.0", "drawn", True, "", frames, whole.landmarks, whole.boxes)
    patch = lips.predict([LipJob(lips.prepare(low), 0, mels[4])])[0]
    assert patch.box[1] > 200
    assert paste(low.frames[0], patch).shape == low.frames[0].shape


def test_loading_and_predicting_imports_no_torch() -> None:
    code = (
        "import sys; from engine.lipsync.builtin import BuiltinLipSync; BuiltinLipSync.load().warmup([1]);"
        "assert not {'torch', 'librosa', 'numba'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_avatar_may_bring_its_own_picture_network(lips: BuiltinLipSync, tmp_path: Path) -> None:
    for kind in ("xml", "bin"):
        shutil.copy(BUILTIN / f"picture.{kind}", tmp_path)
    usual = portrait()
    own = replace(usual, picture_model=tmp_path / "picture.xml")
    everyone, fitted = lips.prepare(usual), lips.prepare(own)
    mouth = np.full(len(MOUTH_SHAPES), 0.5, np.float32)

    assert fitted.picture is not everyone.picture
    np.testing.assert_array_equal(lips.draw(fitted, 0, mouth).image, lips.draw(everyone, 0, mouth).image)


def test_a_broken_picture_network_of_an_avatar_is_refused(lips: BuiltinLipSync, tmp_path: Path) -> None:
    (tmp_path / "picture.xml").write_text("nothing", "utf-8")

    with pytest.raises(BackendFailed):
        lips.prepare(replace(portrait(), picture_model=tmp_path / "picture.xml"))
