"""Trains the lip-sync expert of ``engine.evaluate`` on synthetic talkers, and checks it on videos of real ones.

Place in the flow: timed speech + measured mouths (``sync_expert_lips``) -> two networks -> ``engine/evaluate``.
Command: ``python -m engine.studio.sync_expert SHARDS LIPS.npz OUT --faces DIR`` (a minute on one core).

Lips and sound that belong together are pulled together, all others of the batch apart (InfoNCE; A. van den Oord, Y. Li,
O. Vinyals, 2018): the same talker a few frames earlier or later, which teaches timing, and other talkers.

Invariant: no picture and no sound of a real person is trained on; ``--faces`` only measures.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from engine.audio.mel import MEL_BANDS, mel_spectrogram
from engine.avatar.landmarks import FaceMesh
from engine.evaluate.expert import (
    LIP_FRAMES,
    LIP_SCALE,
    SOUND_COLUMNS,
    SyncExpert,
    empty_input,
    normal_lips,
    sound_windows,
)
from engine.evaluate.lips import LIP_NUMBERS, lip_shape, track_faces
from engine.evaluate.video import VideoFile
from engine.studio.audio_augment import augment
from engine.studio.coarticulation import LIP_LEAD_S, frame_times_s, mouth_track
from engine.studio.phones import Gesture
from engine.studio.speech_data import SpeechClip, read_shard

EMBEDDING = 64
_TEMPERATURE = 0.07
_CLIPS, _PER_CLIP = 24, 16
_LIPS_PER_CLIP = 4
_MIN_FRAMES = 50


class LipTower(nn.Sequential):
    """(B, LIP_NUMBERS, LIP_FRAMES) -> (B, EMBEDDING) unit vectors."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), *_layer(LIP_NUMBERS * LIP_FRAMES, 192), nn.Linear(192, EMBEDDING), _Unit())


class SoundTower(nn.Sequential):
    """(B, 1, 80, SOUND_COLUMNS) mel -> (B, EMBEDDING) unit vectors; it sees 20 bands and steps of 37.5 ms."""

    def __init__(self) -> None:
        inputs = MEL_BANDS // 4 * SOUND_COLUMNS // 3
        super().__init__(
            nn.AvgPool2d((4, 3)), nn.Flatten(), *_layer(inputs, 256), *_layer(256, 128), nn.Linear(128, EMBEDDING),
            _Unit(),
        )  # fmt: skip


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.1)]


class _Unit(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(x, dim=1)


class TrackedMouths:
    """What a tracker would measure of mouths: a quadratic rule fitted to ``sync_expert_lips``, and its errors."""

    def __init__(self, measured: Path) -> None:
        """Fits the rule.

        Args:
            measured: file of ``sync_expert_lips``.
        """
        with np.load(measured, allow_pickle=False) as data:
            person, mouths, shapes = data["person"], data["mouths"], data["shapes"]
        rest = {k: shapes[(person == k) & (mouths.max(1) == 0)].mean(0) for k in np.unique(person)}
        moved = (shapes - np.stack([rest[k] for k in person])) / LIP_SCALE
        terms = _terms(mouths)
        self._rule = np.linalg.solve(terms.T @ terms + 0.05 * np.eye(terms.shape[1]), terms.T @ moved)
        self._error = (moved - terms @ self._rule).std(0)

    def __call__(self, mouths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(N, LIP_NUMBERS) normal lips of one random person with mouths (N, 10)."""
        moved = _terms(mouths) @ self._rule
        moved *= np.exp(rng.normal(0, 0.3, LIP_NUMBERS)) * np.exp(rng.normal(-0.3, 0.4))
        moved[:, rng.random(LIP_NUMBERS) < 0.1] *= rng.uniform(0, 0.4)
        slow = rng.normal(0, 1, (2 + len(moved) // 8, LIP_NUMBERS))
        at = np.linspace(0, len(slow) - 1, len(moved))
        drift = np.stack([np.interp(at, np.arange(len(slow)), column) for column in slow.T], 1)
        moved += drift * self._error * rng.uniform(0.1, 0.8) + rng.normal(0, 1, moved.shape) * rng.uniform(0.01, 0.12)
        if rng.random() < 0.5:
            kernel = np.array([rng.uniform(0, 0.35), 1, rng.uniform(0, 0.35)])
            moved = np.apply_along_axis(np.convolve, 0, moved, kernel / kernel.sum(), "same")
        return normal_lips(moved * LIP_SCALE)


def _terms(mouths: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(mouths.shape[1])
    return np.concatenate([mouths, mouths[:, first] * mouths[:, second]], 1).astype(np.float64)


def heard_and_true(clip: SpeechClip, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A clip as a microphone hears it, and its mouths: mel (80, T) and mouths (N, 10) at 25 a second."""
    samples, speed = augment(clip.samples.astype(np.float32) / 32768, rng)
    gestures = [Gesture(g.viseme, g.start_s / speed, g.end_s / speed, g.strength) for g in clip.gestures]
    times_s = frame_times_s(clip.duration_s / speed)
    lead_s, gain = LIP_LEAD_S + float(rng.normal(0, 0.008)), float(rng.uniform(0.8, 1.2))
    mouths = mouth_track(gestures, times_s, lead_s, gain)
    return mel_spectrogram(samples), mouths


def train(clips: Sequence[SpeechClip], tracker: TrackedMouths, steps: int, seed: int, out: Path) -> None:
    """Trains both towers and writes them every hundred steps, so that a run which is stopped was not in vain.

    Args:
        clips: timed speech.
        tracker: makes lips of mouths.
        steps: batches.
        seed: of everything random.
        out: folder for the networks.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    items = []
    for clip in clips:
        mel, mouths = heard_and_true(clip, rng)
        if len(mouths) >= _MIN_FRAMES:
            seen = np.stack([tracker(mouths, rng) for _ in range(_LIPS_PER_CLIP)])
            items.append((sound_windows(mel, len(mouths)), seen))
    print(f"{len(items)} clips prepared", flush=True)
    lips, sound = LipTower(), SoundTower()
    parameters = [*lips.parameters(), *sound.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps, pct_start=0.1)
    mean = 0.0
    for step in range(steps):
        batch = [_stretch(*items[int(index)], rng) for index in rng.integers(0, len(items), _CLIPS)]
        shown = torch.from_numpy(np.concatenate([part for part, _, _ in batch]))
        heard = torch.from_numpy(np.concatenate([part for _, part, _ in batch]))
        places = torch.from_numpy(np.concatenate([1000 * k + at for k, (_, _, at) in enumerate(batch)]))
        logits = lips(shown) @ sound(heard).T / _TEMPERATURE
        # A frame earlier or later sounds nearly the same; to call it wrong would only confuse.
        near = (places[:, None] - places[None]).abs() == 1
        logits = logits.masked_fill(near, -1e4)
        wanted = torch.arange(len(logits))
        loss = (functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        mean += (loss.item() - mean) / min(step + 1, 50)
        if step % 100 == 99 or step + 1 == steps:
            print(f"step {step + 1}: loss {mean:.3f} (chance {np.log(len(logits)):.2f})", flush=True)
            export(lips, "lips", out)
            export(sound, "sound", out)


def _stretch(
    heard: np.ndarray, seen: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows of one clip at random places, as one of its talkers: lips, sound, places."""
    lips = np.lib.stride_tricks.sliding_window_view(seen[rng.integers(len(seen))], LIP_FRAMES, axis=0)
    places = np.sort(rng.choice(len(lips), min(_PER_CLIP, len(lips)), replace=False))
    noise = rng.standard_normal((len(places), LIP_NUMBERS, LIP_FRAMES)) * rng.uniform(0, 0.1)
    return (lips[places] + noise).astype(np.float32), heard[places], places


def export(network: nn.Module, part: str, out: Path) -> None:
    """Writes ``sync_<part>.xml`` and ``.bin`` with an open batch dimension."""
    import openvino

    example = torch.from_numpy(empty_input(part))
    model = openvino.convert_model(copy.deepcopy(network).eval(), example_input=example)
    model.reshape({model.inputs[0]: [-1, *example.shape[1:]]})
    openvino.save_model(model, out / f"sync_{part}.xml", compress_to_fp16=True)


def check(expert: SyncExpert, videos: Sequence[Path]) -> dict[str, float]:
    """How the expert does on real talkers: offsets found, shifted sounds found, other talkers' sounds refused."""
    mesh = FaceMesh.load()
    clips: list[tuple[np.ndarray, np.ndarray]] = []
    for path in videos:
        video = VideoFile(path)
        samples = video.sound()
        if samples is not None:
            clips.append((lip_shape(track_faces(video.frames(), mesh)), samples))
    right, shifted, refused, offsets, confidences = [], [], [], [], []
    for index, (shapes, samples) in enumerate(clips):
        own = expert.judge(shapes, samples)
        other = expert.judge(shapes, clips[(index + 1) % len(clips)][1])
        late = expert.judge(shapes[5:], samples)
        if own is None or other is None or late is None:
            continue
        offsets.append(own.offset_frames)
        confidences.append(own.confidence)
        right.append(abs(own.offset_frames) <= 1)
        shifted.append(abs(late.offset_frames + 5 - own.offset_frames) <= 1)
        refused.append(other.curve[len(other.curve) // 2] > own.curve[len(own.curve) // 2])
    return {
        "clips": len(right),
        "offset_within_1": float(np.mean(right)),
        "shift_of_5_found": float(np.mean(shifted)),
        "other_sound_is_worse": float(np.mean(refused)),
        "median_offset": float(np.median(offsets)),
        "confidence": float(np.mean(confidences)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the lip-sync expert.")
    parser.add_argument("shards", type=Path, help="folder of speech_data's train_*.npz")
    parser.add_argument("lips", type=Path, help="file of sync_expert_lips")
    parser.add_argument("out", type=Path, help="folder for sync_lips.xml and sync_sound.xml")
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faces", type=Path, help="folder with grid/*.mpg and grid_s1/*.mpg to check on")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    clips: list[SpeechClip] = []
    for shard in sorted(options.shards.glob("train_*.npz")):
        if len(clips) < options.clips:
            clips.extend(read_shard(shard))
    train(clips[: options.clips], TrackedMouths(options.lips), options.steps, options.seed, options.out)
    if options.faces:
        for folder in ("grid", "grid_s1"):
            print(folder, check(SyncExpert(options.out), sorted((options.faces / folder).glob("*.mpg"))), flush=True)


if __name__ == "__main__":
    main()
