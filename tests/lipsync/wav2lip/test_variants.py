"""Where each variant listens, against the authors' own programs, and what the table of variants promises.

``tests/reference/wav2lip_mel.npz`` holds what the official repository's own code gave: ``audio.melspectrogram`` on
``sound()`` (with a librosa that pads with silence, 0.10 and later), the chunk loop of ``inference.py`` and
``Dataset.get_segmented_mels`` of ``wav2lip_train.py``, the last two on a spectrogram whose columns hold their own
numbers, so that the cut tells where it started. The official positions are exact; whether a trained checkpoint syncs
best at them can only be measured with its weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.audio.mel import mel_spectrogram
from engine.audio.window import MelWindow
from engine.lipsync.wav2lip.variants import MEL_COLUMNS, ONE_FRAME_BEFORE, TWO_FRAMES_BEFORE, VARIANTS

REFERENCE = Path(__file__).resolve().parents[2] / "reference" / "wav2lip_mel.npz"


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


def sound() -> np.ndarray:
    """1.5 s of a buzzing voice that comes and goes, with noise; 16 kHz."""
    t = np.arange(24_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 30))
    noise = np.random.default_rng(2020).uniform(-0.02, 0.02, t.size)
    return (0.2 * voice * np.abs(np.sin(2 * np.pi * 2.5 * t)) + noise).astype(np.float32)


def test_mel_equals_the_official_one(reference: dict[str, np.ndarray]) -> None:
    ours = mel_spectrogram(sound())
    assert ours.shape == reference["mel"].shape
    assert np.abs(ours - reference["mel"]).max() <= 1e-5


def test_offset_zero_is_where_official_inference_starts(reference: dict[str, np.ndarray]) -> None:
    window = MelWindow(MEL_COLUMNS, 0)
    starts = reference["inference_starts"]
    assert len(starts) > 100
    assert [window.start(i) for i in range(len(starts))] == starts.tolist()


def test_official_variants_start_where_training_did(reference: dict[str, np.ndarray]) -> None:
    """Training cuts at floor(3.2 (i - 1)): one constant offset meets it in four frames of five and is one column,
    12.5 ms, late in the fifth."""
    window = VARIANTS["wav2lip-96"].window
    late = [
        window.start(int(i)) - start
        for i, start in zip(reference["training_frames"], reference["training_starts"], strict=True)
    ]
    assert len(late) > 80
    assert set(late) == {0, 1}
    assert sum(late) / len(late) == pytest.approx(0.2, abs=0.02)


def test_no_other_offset_is_closer_to_training(reference: dict[str, np.ndarray]) -> None:
    def distance(offset: int) -> int:
        window = MelWindow(MEL_COLUMNS, offset)
        pairs = zip(reference["training_frames"], reference["training_starts"], strict=True)
        return sum(abs(window.start(int(i)) - start) for i, start in pairs)

    assert min(range(-12, 6), key=distance) == ONE_FRAME_BEFORE


def test_256_starts_where_its_authors_start_it() -> None:
    """Linly-Talker, TFG/Wav2Lipv2.py, ``get_input_mel_by_index``: int((index - 2) * 3.2)."""

    def distance(offset: int) -> int:
        window = MelWindow(MEL_COLUMNS, offset)
        return sum(abs(window.start(i) - int((i - 2) * 80.0 / 25.0)) for i in range(2, 200))

    assert min(range(-12, 6), key=distance) == TWO_FRAMES_BEFORE == VARIANTS["wav2lip-256"].window_offset


@pytest.mark.parametrize(
    ("offset", "lookahead_ms"), [(0, 212.5), (ONE_FRAME_BEFORE, 175.0), (TWO_FRAMES_BEFORE, 137.5)]
)
def test_starting_earlier_needs_less_future(offset: int, lookahead_ms: float) -> None:
    assert MelWindow(MEL_COLUMNS, offset).lookahead_ms == lookahead_ms


@pytest.mark.parametrize("name", VARIANTS)
def test_every_plan_fits_together(name: str) -> None:
    variant = VARIANTS[name]
    plan = variant.plan
    assert len(plan.face_encoder) == len(plan.face_decoder)
    features = [block[-1].cout for block in plan.face_encoder]
    channels = (plan.refine or plan.audio_encoder)[-1].cout
    for block, feature in zip(plan.face_decoder, reversed(features), strict=True):
        assert block[0].cin == channels
        channels = block[-1].cout + feature
    assert plan.output[0].cin == channels
    assert variant.paste_from == variant.size // 2
    assert variant.name == name


def test_no_two_networks_have_equal_shapes_unless_only_the_size_differs() -> None:
    variants = list(VARIANTS.values())
    for i, one in enumerate(variants):
        for other in variants[:i]:
            if one.plan.shapes() == other.plan.shapes():
                assert one.plan == other.plan and one.size != other.size
