"""Our own lip-sync expert: do these lips belong to this sound, and by how many frames are they off?

Place in the flow: tracked lips (``lip_shape``) + sound -> embeddings -> distances over offsets -> ``SyncScore``.

Two small networks put 0.6 s of lip measures and 0.6 s of mel next to each other when they belong together (the idea of
J. S. Chung, A. Zisserman, "Out of time: automated lip sync in the wild", 2016); ``studio.sync_expert`` trains them.

Invariants:
    * a positive offset means that the lips are late;
    * the expert sees lip measures only: neither sharpness nor teeth nor a seam changes its opinion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.audio.mel import MEL_BANDS, SILENCE, mel_spectrogram
from engine.audio.pcm import Decimator
from engine.errors import BackendFailed
from engine.evaluate.lips import LIP_NUMBERS

LIP_FRAMES = 15
SOUND_COLUMNS = 48
"""0.6 s of either."""
MAX_OFFSET = 15

LIP_SCALE = np.array(
    [0.052, 0.044, 0.033, 0.056, 0.046, 0.023, 0.023, 0.005, 0.007, 0.007, 0.037, 0.034, 0.008, 0.014], np.float32
)
"""How much each number of ``lip_shape`` varies in speech, eye distances."""

_COLUMNS_PER_FRAME = 3.2
_LEAST_RMS = 0.25
_MIN_FRAMES = LIP_FRAMES + 10
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class SyncScore:
    """What the expert says of a clip.

    Attributes:
        confidence: median minus least distance over all offsets; 0 for lips that follow nothing.
        distance: least mean distance, from 0 to 2.
        offset_frames: where it is; positive when the lips are late.
        curve: (2 MAX_OFFSET + 1,) mean distance by offset, from -MAX_OFFSET on.
    """

    confidence: float
    distance: float
    offset_frames: int
    curve: np.ndarray


def lip_windows(shapes: np.ndarray) -> np.ndarray:
    """What the lip network sees of a clip.

    Args:
        shapes: (N, LIP_NUMBERS) from ``lip_shape``, 25 a second; NaN where no face was.

    Returns:
        (N - LIP_FRAMES + 1, LIP_NUMBERS, LIP_FRAMES) float32, without the face's own shape and liveliness.
    """
    return np.ascontiguousarray(
        np.lib.stride_tricks.sliding_window_view(normal_lips(shapes), LIP_FRAMES, axis=0), np.float32
    )


def normal_lips(shapes: np.ndarray) -> np.ndarray:
    """(N, LIP_NUMBERS) measures around their median, in units of the clip's own liveliness; gaps are filled."""
    moved = (shapes - np.nanmedian(shapes, 0)) / LIP_SCALE
    moved = np.where(np.isfinite(moved), moved, 0.0)
    return (moved / max(_LEAST_RMS, float(np.sqrt(np.mean(moved**2))))).astype(np.float32)


def sound_windows(mel: np.ndarray, frames: int) -> np.ndarray:
    """What the sound network sees: a window around the middle of each frame that has a whole lip window around it.

    Args:
        mel: (80, T) from ``mel_spectrogram``.
        frames: of the clip.

    Returns:
        (frames - LIP_FRAMES + 1, 1, 80, SOUND_COLUMNS) float32.
    """
    half = LIP_FRAMES // 2
    middles = (np.arange(half, frames - half) + 0.5) * _COLUMNS_PER_FRAME
    starts = np.rint(middles - (SOUND_COLUMNS - 1) / 2).astype(int)
    missing = int(max(0, starts[-1] + SOUND_COLUMNS - mel.shape[1])) if len(starts) else 0
    padded = np.pad(mel, ((0, 0), (SOUND_COLUMNS, missing)), constant_values=SILENCE)
    return np.stack([padded[:, at + SOUND_COLUMNS : at + 2 * SOUND_COLUMNS] for at in starts])[:, None]


def mel_of(samples: np.ndarray) -> np.ndarray:
    """(80, T) mel of (N,) int16 sound at 48 kHz."""
    decimator = Decimator()
    return mel_spectrogram(np.concatenate([decimator.push(samples), decimator.flush()]))


def score(lips: np.ndarray, sound: np.ndarray, max_offset: int = MAX_OFFSET) -> SyncScore:
    """Compares embeddings at all offsets.

    Args:
        lips: (N, E) unit vectors of the lips around each frame.
        sound: (M, E) unit vectors of the sound around each frame.
        max_offset: offsets reach this far in both directions, frames.
    """
    distances = 1 - lips @ sound.T
    curve = np.array([np.diagonal(distances, -offset).mean() for offset in range(-max_offset, max_offset + 1)])
    best = int(np.argmin(curve))
    return SyncScore(float(np.median(curve) - curve[best]), float(curve[best]), best - max_offset, curve)


class SyncExpert:
    """Both networks, on one thread."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        """Loads ``sync_lips.xml`` and ``sync_sound.xml``.

        Raises:
            BackendFailed: ``sync_expert_unreadable``.
        """
        import openvino

        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        try:
            self._lips, self._sound = (
                core.compile_model(folder / f"sync_{part}.xml", "CPU", settings) for part in ("lips", "sound")
            )
        except RuntimeError as error:
            raise BackendFailed(
                "sync_expert_unreadable",
                f"The lip-sync expert in {folder} cannot be read; train it with python -m engine.studio.sync_expert.",
            ) from error

    def judge(self, shapes: np.ndarray, samples: np.ndarray) -> SyncScore | None:
        """Judges a clip.

        Args:
            shapes: (N, LIP_NUMBERS) from ``lip_shape``, 25 a second.
            samples: (M,) int16 mono at 48 kHz from the same start on.

        Returns:
            None when the clip is shorter than a second, or shows a face in less than half of its pictures.
        """
        if len(shapes) < _MIN_FRAMES or np.isfinite(shapes[:, 0]).mean() < 0.5:
            return None
        lips = np.asarray(self._lips(lip_windows(shapes))[0])
        sound = np.asarray(self._sound(sound_windows(mel_of(samples), len(shapes)))[0])
        return score(lips, sound, min(MAX_OFFSET, len(lips) - 5))


def empty_input(part: str) -> np.ndarray:
    """An input of the right shape for ``lips`` or ``sound``, for exports."""
    shape = (1, LIP_NUMBERS, LIP_FRAMES) if part == "lips" else (1, 1, MEL_BANDS, SOUND_COLUMNS)
    return np.zeros(shape, np.float32)
