"""Wav2Lip as the renderer uses it: which job gets which pixels, what is kept, and that silence changes nothing."""

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.avatar.bundle import Avatar
from engine.compose import paste
from engine.errors import BackendFailed, WeightsInvalid
from engine.lipsync.base import LipJob
from engine.lipsync.wav2lip import export, model
from engine.lipsync.wav2lip.advice import ADVICE_FILE, advised_precision, write_advice
from engine.lipsync.wav2lip.crop import first_row_of
from engine.lipsync.wav2lip.export import derive
from engine.lipsync.wav2lip.folder import derived_folder
from engine.lipsync.wav2lip.lower_half import FaceFeatures, LowerHalf, Pixels
from engine.lipsync.wav2lip.model import Wav2LipSync
from engine.lipsync.wav2lip.runtimes import open_speaker
from engine.lipsync.wav2lip.speaker import Features, OpenVinoSpeaker
from engine.lipsync.wav2lip.torch_runtime import TorchSpeaker, batches_of
from engine.lipsync.wav2lip.variants import VARIANTS
from tests.lipsync.wav2lip.small import small, small_network
from tests.lipsync.wav2lip.states import faces, mels

OFFICIAL = VARIANTS["wav2lip-96"]


def drawn_avatar(size: int = 256, frames: int = 4) -> Avatar:
    """An avatar of soft blobs with a face that moves to the right."""
    rng = np.random.default_rng(3)
    pictures = np.stack([
        cv2.resize(rng.integers(60, 200, (9, 9, 3), np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
        for _ in range(frames)
    ])
    points = np.array([[96, 100], [160, 100], [128, 140], [104, 176], [152, 176]], np.float32) * size / 256
    landmarks = np.stack([points + index for index in range(frames)])
    boxes = np.tile(np.array([20, 240, 40, 220], np.float32), (frames, 1))
    return Avatar("drawn", "Drawn", (size, size), "CC0-1.0", "tests", True, "", pictures, landmarks, boxes)


class Painter:
    """A runtime that paints the loudness of the sound and the brightness of the face."""

    batches = True

    def __init__(self) -> None:
        self.encoded = 0
        self.batch_sizes: list[int] = []

    def encode_face(self, face: np.ndarray) -> Features:
        self.encoded += 1
        return (face[0, 3:].mean(axis=(1, 2), dtype=np.float32),)

    def speak(self, mels: np.ndarray, faces: Sequence[Features]) -> np.ndarray:
        assert mels.shape == (len(faces), 1, 80, 16) and mels.dtype == np.float32
        self.batch_sizes.append(len(faces))
        rows = OFFICIAL.size - first_row_of(OFFICIAL)
        strips = np.empty((len(faces), rows, OFFICIAL.size, 3), np.uint8)
        strips[:] = np.clip(120 + 20 * mels.mean(axis=(1, 2, 3)), 0, 255)[:, None, None, None]
        return strips

    def warmup(self, mel: np.ndarray, face: Features, batch_sizes: Sequence[int]) -> None:
        for size in batch_sizes:
            self.speak(np.repeat(mel, size, 0), [face] * size)


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def lipsync(painter: Painter) -> Wav2LipSync:
    return Wav2LipSync(OFFICIAL, painter)


def loud(level: float) -> np.ndarray:
    return np.full((80, 16), level, np.float32)


def test_window_and_crop_are_those_of_the_checkpoint(painter: Painter) -> None:
    moved = Wav2LipSync(replace(OFFICIAL, window_offset=0), painter)
    assert Wav2LipSync(OFFICIAL, painter).window.offset == -3 and moved.window.offset == 0
    assert moved.window.columns == 16 and moved.crop_size == 96
    assert Wav2LipSync(OFFICIAL, painter).window.lookahead_ms == pytest.approx(175.0)


def test_jobs_of_different_sounds_and_pictures_get_their_own_pixels_in_one_batch(
    lipsync: Wav2LipSync, painter: Painter
) -> None:
    prepared = lipsync.prepare(drawn_avatar())
    jobs = [LipJob(prepared, index, loud(level)) for index, level in ((0, -4.0), (2, 4.0), (1, 0.0))]
    patches = lipsync.predict(jobs)
    assert painter.batch_sizes == [3]
    middles = [patch.image[len(patch.image) // 2, patch.image.shape[1] // 2].mean() for patch in patches]
    assert middles[0] < middles[2] < middles[1]
    assert patches[1].box[2] - patches[0].box[2] == 2, "the face of picture 2 is two pixels further right"
    alone = lipsync.predict([jobs[1]])[0]
    np.testing.assert_array_equal(alone.image, patches[1].image)


def test_no_strength_changes_no_pixel_and_asks_no_network(lipsync: Wav2LipSync, painter: Painter) -> None:
    avatar = drawn_avatar()
    prepared = lipsync.prepare(avatar)
    patches = lipsync.predict([LipJob(prepared, 1, loud(4), 0.0), LipJob(prepared, 1, loud(4), 1.0)])
    assert painter.batch_sizes == [1]
    np.testing.assert_array_equal(paste(avatar.picture(1), patches[0]), avatar.picture(1))
    assert (paste(avatar.picture(1), patches[1]) != avatar.picture(1)).any()


def test_strength_fades_from_rest_to_speech(lipsync: Wav2LipSync) -> None:
    avatar = drawn_avatar()
    prepared = lipsync.prepare(avatar)
    patches = lipsync.predict([LipJob(prepared, 0, loud(4), strength) for strength in (0.0, 0.25, 0.5, 1.0)])
    images = [paste(avatar.picture(0), patch).astype(float) for patch in patches]
    steps = [np.abs(image - images[0]).mean() for image in images]
    assert steps == sorted(steps) and steps[2] == pytest.approx(steps[3] / 2, rel=0.05)


def test_upper_face_keeps_its_own_pixels(lipsync: Wav2LipSync) -> None:
    avatar = drawn_avatar()
    prepared = lipsync.prepare(avatar)
    image = paste(avatar.picture(0), lipsync.predict([LipJob(prepared, 0, loud(4))])[0])
    y1, y2 = prepared.boxes[0][:2]
    changed = np.flatnonzero((image != avatar.picture(0)).any(axis=(1, 2)))
    assert changed[0] >= y1 + (y2 - y1) * first_row_of(OFFICIAL) / 96 - 1
    assert changed[-1] < y2


def test_face_is_encoded_once_per_picture_while_there_is_room(
    lipsync: Wav2LipSync, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = lipsync.prepare(drawn_avatar())
    for _ in range(2):
        lipsync.predict([LipJob(prepared, index, loud(1)) for index in range(4)])
    assert painter.encoded == 4
    monkeypatch.setattr(model, "FEATURES_LIMIT_BYTES", 2 * 12)
    crowded = lipsync.prepare(drawn_avatar())
    for _ in range(2):
        lipsync.predict([LipJob(crowded, index, loud(1)) for index in range(4)])
    assert painter.encoded == 4 + 4 + 2, "two of four were kept, and stay"


def test_a_face_of_a_few_pixels_is_refused(lipsync: Wav2LipSync) -> None:
    with pytest.raises(BackendFailed, match="too small") as caught:
        lipsync.prepare(drawn_avatar(size=48))
    assert caught.value.code == "face_too_small"


def test_avatars_of_other_models_are_refused(lipsync: Wav2LipSync) -> None:
    with pytest.raises(TypeError):
        lipsync.predict([LipJob(object(), 0, loud(0))])  # type: ignore[arg-type]


# ---- runtimes, on a network with an eighth of the channels


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wav2lip-small")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export, "load_network", lambda _: (small(), small_network()))
        return derive(folder)


def expected_pixels(mel: torch.Tensor, face: torch.Tensor) -> np.ndarray:
    network = small_network()
    lower = LowerHalf(network)
    with torch.inference_mode():
        return Pixels(lower)(mel, *FaceFeatures(network, lower.feature_rows)(face)).numpy()


def test_cpu_runtime_gives_torchs_pixels_on_many_threads(derived: Path) -> None:
    speaker = OpenVinoSpeaker(derived, None, 1, "f32")
    mel, face = mels(4, 8), faces(96, 4, 9)
    wanted = expected_pixels(mel, face)

    def draw(index: int) -> np.ndarray:
        features = speaker.encode_face(face[index : index + 1].numpy())
        return speaker.speak(mel[index : index + 1].numpy(), [features])[0]

    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(draw, [0, 1, 2, 3] * 3))
    for index, picture in enumerate(drawn):
        assert np.abs(picture.astype(int) - wanted[index % 4]).max() <= 1


def test_batches_of_the_gpu_runtime_equal_single_pictures() -> None:
    speaker = TorchSpeaker(small_network(), "cpu")
    mel, face = mels(3, 8), faces(96, 3, 9)
    features = [speaker.encode_face(face[index : index + 1].numpy()) for index in range(3)]
    together = speaker.speak(mel.numpy(), features)
    assert np.abs(together.astype(int) - expected_pixels(mel, face)).max() <= 1
    for index in range(3):
        alone = speaker.speak(mel[index : index + 1].numpy(), [features[index]])[0]
        assert np.abs(alone.astype(int) - together[index]).max() <= 1


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (3, [4]), (5, [8]), (32, [32]), (33, [32, 1]), (70, [32, 32, 8])]
)
def test_any_number_of_jobs_fits_into_fixed_sizes(count: int, sizes: list[int]) -> None:
    assert batches_of(count) == sizes


def test_files_are_made_once_and_a_wrong_one_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "load_network", lambda _: (small(), small_network()))
    monkeypatch.setattr(export, "_exact", lambda path: lambda *inputs: [np.zeros((2, 52, 96, 3), np.uint8)] * 7)
    with pytest.raises(BackendFailed) as caught:
        derive(tmp_path)
    assert caught.value.code == "export_wrong"
    assert derived_folder(tmp_path) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_exported_file_gives_torchs_picture_for_any_batch(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnx")
    import openvino

    monkeypatch.setattr(export, "load_network", lambda _: (small(), small_network()))
    out = tmp_path / ("network.onnx" if kind == "onnx" else "network.xml")
    (export.export_onnx if kind == "onnx" else export.export_openvino)(tmp_path, out)
    compiled = openvino.Core().compile_model(out, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 5):
        mel, face = mels(batch, 4), faces(96, batch, 5)
        with torch.inference_mode():
            wanted = small_network()(mel, face).numpy()
        np.testing.assert_allclose(compiled([mel.numpy(), face.numpy()])[0], wanted, atol=1e-4)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


# ---- choosing


def card(folder: Path, **changes: object) -> Path:
    said = {"kind": "wav2lip", "variant": "wav2lip-96", "window_offset": -3, "colour": "bgr"} | changes
    folder.joinpath("weights.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items()))
    return folder


@pytest.mark.parametrize(
    "changes",
    [{"variant": "wav2lip-97"}, {"kind": "gfpgan"}, {"colour": "yuv"}, {"activation": "none"}, {"window_offset": 900}],
)
def test_a_card_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(WeightsInvalid):
        open_speaker(card(tmp_path, **changes), 1, "f32")


def test_int8_that_was_never_made_says_how_to_make_it(tmp_path: Path, derived: Path) -> None:
    (tmp_path / "openvino").symlink_to(derived)
    with pytest.raises(BackendFailed, match="engine bench") as caught:
        open_speaker(card(tmp_path), 1, "int8")
    assert caught.value.code == "int8_missing"


def test_advice_counts_on_its_own_machine_only(tmp_path: Path) -> None:
    assert advised_precision(tmp_path) is None
    write_advice(tmp_path, "int8", {"bf16": 40.0, "int8": 70.0})
    assert advised_precision(tmp_path) == "int8"
    path = tmp_path / ADVICE_FILE
    advice = json.loads(path.read_text())
    path.write_text(json.dumps(advice | {"machine": {"processor": "another", "openvino": "1"}}))
    assert advised_precision(tmp_path) is None
    path.write_text("{")
    assert advised_precision(tmp_path) is None


def test_live_path_on_a_cpu_needs_no_torch(tmp_path: Path, derived: Path) -> None:
    (tmp_path / "openvino").symlink_to(derived)
    card(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.lipsync.wav2lip.model import Wav2LipSync\n"
        f"Wav2LipSync.load(Path({str(tmp_path)!r}), precision='f32').warmup([1])\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
