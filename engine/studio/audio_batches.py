"""Endless training batches for the audio network: clips, hard augmentation, mel, and where the mouth should be.

Place in the flow: shards of ``speech_data`` -> ``Batches`` -> ``audio_train``.

Augmentation costs as much as a training step, so only a quarter of a batch is new; the rest was seen a few times.

Invariant: target j of a batch belongs to the window that ends at mel column ``CONTEXT_COLUMNS - 1 + j``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

from engine.audio.mel import HOP_MS, HOP_SAMPLES, MEL_BANDS, mel_spectrogram
from engine.studio.audio_augment import augment, silence_like
from engine.studio.audio_net import CONTEXT_COLUMNS, LABEL_DELAY_MS
from engine.studio.coarticulation import mouth_track
from engine.studio.phones import Gesture
from engine.studio.speech_data import VISEME_NAMES, SpeechClip, read_shard
from engine.types import ANALYSIS_RATE, MOUTH_SHAPES

COLUMNS = 256
_KEPT_ITEMS = 1500
_FRESH_SHARE = 0.25
_SAMPLES = (COLUMNS - 1) * HOP_SAMPLES
_SILENT = VISEME_NAMES.index("sil")


def target_times_s(columns: int) -> np.ndarray:
    """Times in the sound that the network's outputs stand for, given a spectrogram's length; (S,) seconds."""
    last = np.arange(CONTEXT_COLUMNS - 1, columns)
    return (last * HOP_MS - LABEL_DELAY_MS) / 1000


def viseme_track(gestures: Sequence[Gesture], times_s: np.ndarray) -> np.ndarray:
    """The viseme sounding at each time, as its number; silence where there is none. (N,) int64."""
    track = np.full(len(times_s), _SILENT, np.int64)
    for gesture in gestures:
        low, high = np.searchsorted(times_s, (gesture.start_s, gesture.end_s))
        track[low:high] = VISEME_NAMES.index(gesture.viseme)
    return track


class Batches(IterableDataset):
    """Yields (mel (B, 1, 80, 256), mouth (B, 225, 10), viseme (B, 225)) for ever.

    Args:
        sources: shards and how often each source is drawn, e.g. ``[(synthetic, 0.7), (recorded, 0.3)]``.
        batch: items of a batch.
        silent_share: share of items in which nobody speaks; more of them keep the mouth shut in more kinds of sound.
        seed: first seed; each worker adds its own.
    """

    def __init__(
        self, sources: Sequence[tuple[Sequence[Path], float]], batch: int, silent_share: float = 0.14, seed: int = 0
    ) -> None:
        super().__init__()
        self._sources, self._batch, self._silent_share, self._seed = sources, batch, silent_share, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self._seed, worker.id if worker else 0))
        pools = [[clip for shard in shards for clip in read_shard(shard)] for shards, _ in self._sources]
        shares = np.array([share for _, share in self._sources])
        kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        while True:
            fresh = max(1, round(self._batch * _FRESH_SHARE)) if len(kept) >= 4 * self._batch else self._batch
            items = [kept[int(index)] for index in rng.integers(0, max(1, len(kept)), self._batch - fresh)]
            for _ in range(fresh):
                pool = pools[int(rng.choice(len(pools), p=shares / shares.sum()))]
                silent = rng.random() < self._silent_share
                item = _silent_item(rng) if silent else speech_item(pool[int(rng.integers(len(pool)))], rng)
                items.append(item)
                if len(kept) < _KEPT_ITEMS:
                    kept.append(item)
                else:
                    kept[int(rng.integers(_KEPT_ITEMS))] = item
            mels, mouths, visemes = (np.stack(column) for column in zip(*items, strict=True))
            yield torch.from_numpy(mels), torch.from_numpy(mouths), torch.from_numpy(visemes)


def speech_item(clip: SpeechClip, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random stretch of a clip, augmented: mel (1, 80, 256), mouth (225, 10), visemes (225,)."""
    samples = clip.samples.astype(np.float32) / 32768
    spare = int(_SAMPLES * 1.3) - len(samples)  # enough at the highest speed
    offset_s = 0.0
    if spare > 0:
        before = int(rng.integers(0, spare + 1))
        samples = np.pad(samples, (before, spare - before))
        offset_s = before / ANALYSIS_RATE
    hushed = rng.random() < 0.3
    samples, speed = augment(samples, rng)
    speech = slice(int(offset_s / speed * ANALYSIS_RATE), int((offset_s + clip.duration_s) / speed * ANALYSIS_RATE))
    if hushed:  # around an utterance the pipeline hears digital silence
        samples[: speech.start] = 0
        samples[speech.stop :] = 0
    start = int(rng.integers(0, max(1, len(samples) - _SAMPLES + 1)))
    if spare <= 0 and rng.random() < 0.2:  # begin with the clip itself, silence before it
        start = 0
    window = samples[start : start + _SAMPLES]
    window = np.pad(window, (0, _SAMPLES - len(window)))
    mel = mel_spectrogram(window)
    times_s = target_times_s(COLUMNS)
    shift_s = offset_s / speed - start / ANALYSIS_RATE
    gestures = [
        Gesture(g.viseme, g.start_s / speed + shift_s, g.end_s / speed + shift_s, g.strength) for g in clip.gestures
    ]
    return mel[None], mouth_track(gestures, times_s), viseme_track(gestures, times_s)


def _silent_item(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = COLUMNS - CONTEXT_COLUMNS + 1
    mel = mel_spectrogram(silence_like(_SAMPLES, rng)).reshape(1, MEL_BANDS, COLUMNS)
    return mel, np.zeros((count, len(MOUTH_SHAPES)), np.float32), np.full(count, _SILENT, np.int64)
