"""LSE-C and LSE-D with the official SyncNet, for users who have its weights; none come with the project.

Place in the flow: tracked face crops + MFCC -> SyncNet -> distances over offsets -> ``SyncScore``.

Layout and procedure follow J. S. Chung, A. Zisserman, "Out of time: automated lip sync in the wild", 2016, and the
authors' published ``syncnet_v2.model``: a state dictionary whose keys are those of ``SyncNet`` below. Five BGR pictures
of 224 x 224 (0 to 255) at 25 a second against 20 columns of 13 MFCC at 100 a second; embeddings of 1024 values;
Euclidean distances over offsets of ±15 frames. LSE-D is the least mean distance, LSE-C the median minus the least.

Invariants:
    * only tensors are read from the file, never code;
    * a positive offset means that the lips are late.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from engine.audio.pcm import Decimator
from engine.errors import BackendFailed, NotFound
from engine.evaluate.expert import MAX_OFFSET, SyncScore
from engine.types import ANALYSIS_RATE

FACE_SIDE = 224
FACE_FRAMES = 5
MFCC = 13
MFCC_COLUMNS = 20

_MFCC_PER_FRAME = 4
_BATCH = 20
_CROP_SCALE = 0.40
_MEL_FILTERS = 26
_FFT = 512


class SyncNet(nn.Module):
    """Both towers, with the official names and shapes."""

    def __init__(self, embedding: int = 1024) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_block2(1, 64, 3, 1, 1), nn.MaxPool2d(1, 1),
            *_block2(64, 192, 3, 1, 1), nn.MaxPool2d(3, (1, 2)),
            *_block2(192, 384, 3, 1, 1),
            *_block2(384, 256, 3, 1, 1),
            *_block2(256, 256, 3, 1, 1), nn.MaxPool2d(3, 2),
            *_block2(256, 512, (5, 4), 1, 0),
        )  # fmt: skip
        self.netfcaud = _head(embedding)
        self.netfclip = _head(embedding)
        self.netcnnlip = nn.Sequential(
            *_block3(3, 96, (5, 7, 7), (1, 2, 2), 0), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block3(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_block3(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *_block3(256, 256, (1, 3, 3), 1, (0, 1, 1)),
            *_block3(256, 256, (1, 3, 3), 1, (0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_block3(256, 512, (1, 6, 6), 1, 0),
        )  # fmt: skip

    def sound(self, mfcc: torch.Tensor) -> torch.Tensor:
        """(B, 1, 13, 20) -> (B, 1024)."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def lips(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 3, 5, 224, 224) BGR, 0 to 255 -> (B, 1024)."""
        return self.netfclip(self.netcnnlip(pictures).flatten(1))


def _block2(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _block3(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int | tuple[int, int, int],
    padding: int | tuple[int, int, int],
) -> list[nn.Module]:  # fmt: skip
    return [nn.Conv3d(inputs, outputs, kernel, stride, padding), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]


def _head(embedding: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, embedding))


def load_syncnet(path: Path) -> SyncNet:
    """Reads ``syncnet_v2.model``.

    Args:
        path: the file, a state dictionary.

    Raises:
        NotFound: ``syncnet_not_found``.
        BackendFailed: ``syncnet_unreadable``, ``syncnet_layout``.
    """
    if not path.is_file():
        raise NotFound("syncnet_not_found", f"There is no file {path}; give the official syncnet_v2.model.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers raise
        raise BackendFailed(
            "syncnet_unreadable",
            f"{path.name} cannot be read as weights ({type(error).__name__}); it must be the official "
            "syncnet_v2.model, complete and without any code in it.",
        ) from error
    network = SyncNet()
    wanted = network.state_dict()
    if not isinstance(state, dict):
        raise BackendFailed("syncnet_layout", f"{path.name} holds no state dictionary; give syncnet_v2.model.")
    wrong = [
        name
        for name, value in wanted.items()
        if name not in state or not isinstance(state[name], torch.Tensor) or state[name].shape != value.shape
    ]
    # Files saved before torch counted batches lack these counters; they play no part in evaluation.
    wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
    if wrong:
        raise BackendFailed(
            "syncnet_layout",
            f"{path.name} is no SyncNet of the official layout: {len(wrong)} of {len(wanted)} tensors are missing or "
            f"of another shape, the first is {wrong[0]!r}. Give syncnet_v2.model.",
        )
    network.load_state_dict({name: state.get(name, value) for name, value in wanted.items()})
    return network.eval()


def judge_syncnet(
    network: SyncNet, pictures: Sequence[np.ndarray], points: np.ndarray, samples: np.ndarray
) -> SyncScore | None:
    """LSE-D as ``distance`` and LSE-C as ``confidence``.

    Args:
        network: from ``load_syncnet``.
        pictures: (H, W, 3) uint8 BGR, 25 a second.
        points: (N, 468, 3) the face in each.
        samples: (M,) int16 mono at 48 kHz.

    Returns:
        None when the clip is shorter than a second or shows no face.
    """
    faces = face_crops(pictures, points)
    decimator = Decimator()
    features = mfcc(np.concatenate([decimator.push(samples), decimator.flush()]))
    count = min(len(faces), features.shape[1] // _MFCC_PER_FRAME) - FACE_FRAMES
    if count < 2 * FACE_FRAMES + 10:
        return None
    lips, sounds = [], []
    with torch.no_grad():
        for start in range(0, count, _BATCH):
            at = range(start, min(start + _BATCH, count))
            video = np.stack([faces[i : i + FACE_FRAMES].transpose(3, 0, 1, 2) for i in at])
            heard = np.stack([features[None, :, 4 * i : 4 * i + MFCC_COLUMNS] for i in at])
            lips.append(network.lips(torch.from_numpy(video.astype(np.float32))))
            sounds.append(network.sound(torch.from_numpy(heard.astype(np.float32))))
    return euclidean_score(torch.cat(lips).numpy(), torch.cat(sounds).numpy())


def euclidean_score(lips: np.ndarray, sounds: np.ndarray, max_offset: int = MAX_OFFSET) -> SyncScore:
    """As the authors do it: sounds beyond the ends are zeros, distances are Euclidean (with torch's 1e-6).

    Args:
        lips: (N, E).
        sounds: (N, E).
        max_offset: offsets reach this far in both directions, frames.
    """
    padded = np.pad(sounds, ((max_offset, max_offset), (0, 0)))
    curve = np.array(
        [
            np.linalg.norm(lips - padded[shift : shift + len(lips)] + 1e-6, axis=1).mean()
            for shift in range(2 * max_offset, -1, -1)
        ]
    )
    best = int(np.argmin(curve))
    return SyncScore(float(np.median(curve) - curve[best]), float(curve[best]), best - max_offset, curve)


def face_crops(pictures: Sequence[np.ndarray], points: np.ndarray) -> np.ndarray:
    """(N, 224, 224, 3) uint8 BGR squares around the face, with the authors' margin, smoothed over half a second."""
    low, high = points[..., :2].min(1), points[..., :2].max(1)
    known = np.isfinite(low[:, 0])
    if not known.any():
        return np.zeros((0, FACE_SIDE, FACE_SIDE, 3), np.uint8)
    rows = np.arange(len(points))
    half = np.interp(rows, rows[known], (high - low).max(1)[known] / 2)
    x, y = (np.interp(rows, rows[known], ((low + high) / 2)[known, axis]) for axis in range(2))
    half, x, y = (_smooth(values) for values in (half, x, y))
    crops = []
    for picture, side, cx, cy in zip(pictures, half, x, y, strict=False):
        reach = side * (1 + _CROP_SCALE)
        scale = FACE_SIDE / (2 * reach)
        # The square sits lower than the face box: the authors keep one margin above and two below.
        matrix = np.array([[scale, 0, -scale * (cx - reach)], [0, scale, -scale * (cy + _CROP_SCALE * side - reach)]])
        crops.append(
            cv2.warpAffine(
                picture, matrix, (FACE_SIDE, FACE_SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=(110, 110, 110)
            )
        )
    return np.stack(crops)


def _smooth(values: np.ndarray, width: int = 13) -> np.ndarray:
    padded = np.pad(values, width // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


def mfcc(samples: np.ndarray) -> np.ndarray:
    """13 mel cepstral coefficients every 10 ms as ``python_speech_features`` makes them, which SyncNet was trained on.

    Args:
        samples: (N,) float32 at 16 kHz in [-1, 1].

    Returns:
        (13, T) float32; windows of 25 ms, 26 filters, lifter 22, the first coefficient is the log energy.
    """
    scaled = samples.astype(np.float64) * 32768
    emphasised = np.append(scaled[:1], scaled[1:] - 0.97 * scaled[:-1])
    size, step = round(0.025 * ANALYSIS_RATE), round(0.010 * ANALYSIS_RATE)
    count = 1 + max(0, -(-(len(emphasised) - size) // step))
    emphasised = np.pad(emphasised, (0, max(0, (count - 1) * step + size - len(emphasised))))
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, size)[::step][:count]
    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2 / _FFT
    tiny = np.finfo(float).eps
    energy = np.maximum(power.sum(1), tiny)
    bands = np.log(np.maximum(power @ _mel_filters().T, tiny))
    n = np.arange(_MEL_FILTERS)
    basis = np.cos(np.pi * np.arange(MFCC)[:, None] * (2 * n + 1) / (2 * _MEL_FILTERS)) * np.sqrt(2 / _MEL_FILTERS)
    basis[0] /= np.sqrt(2)
    cepstra = (bands @ basis.T) * (1 + 11 * np.sin(np.pi * np.arange(MFCC) / 22))
    cepstra[:, 0] = np.log(energy)
    return cepstra.T.astype(np.float32)


def _mel_filters() -> np.ndarray:
    """(26, 257) triangles from 0 to 8 kHz on the HTK mel scale."""
    top = 2595 * np.log10(1 + ANALYSIS_RATE / 2 / 700)
    hz = 700 * (10 ** (np.linspace(0, top, _MEL_FILTERS + 2) / 2595) - 1)
    corners = np.floor((_FFT + 1) * hz / ANALYSIS_RATE)
    bins = np.arange(_FFT // 2 + 1)
    rising = (bins - corners[:-2, None]) / np.maximum(1, corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / np.maximum(1, corners[2:] - corners[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))
