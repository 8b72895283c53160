"""Judges an audio network by real talkers' videos, held-out voices, recorded speech with known phones, and quiet.

Place in the flow: weights during training -> ``Judge`` -> numbers -> which weights are kept.

Invariant: what chooses the weights (``score``) never looks at the talkers that the final report is about.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from engine.audio.mel import SILENCE, mel_spectrogram
from engine.evaluate.measures import opening, shut_rate, sync
from engine.evaluate.phone_measures import Track, judge_clips
from engine.studio.audio_augment import finished, silence_like
from engine.studio.audio_net import WINDOW, AudioNet
from engine.studio.audio_quiet import QUIET_SOUNDS
from engine.studio.speech_align import load_int16
from engine.studio.speech_data import read_shard
from engine.types import ANALYSIS_RATE, FPS

_QUIET_EACH = 4
_PADDING = 64  # columns of silence on both sides; more than any window reaches


def track_of(network: AudioNet, samples: np.ndarray) -> np.ndarray:
    """The mouth of every video frame of a sound, as the product computes it.

    Args:
        network: in evaluation mode.
        samples: (N,) float32 at 16 kHz.

    Returns:
        (ceil(N / 640), 10) float32.
    """
    mel = np.pad(mel_spectrogram(samples), ((0, 0), (_PADDING, _PADDING)), constant_values=SILENCE)
    device = next(network.parameters()).device
    with torch.no_grad():
        track = network.track(torch.from_numpy(mel)[None, None].to(device))[0].cpu().numpy()
    frames = -(-len(samples) * FPS // ANALYSIS_RATE)
    return track[[min(len(track) - 1, WINDOW.start(index) + _PADDING) for index in range(frames)]]


def judge_talkers(
    openings: dict[str, Sequence[float]], sounds: dict[str, np.ndarray], track: Track
) -> tuple[float, float, int]:
    """Correlation with the openings measured in talkers' videos: r at lag 0, r at the best lag, that lag."""
    pairs = [(opening(track(sounds[name])), np.asarray(values)) for name, values in openings.items()]
    result = sync(pairs)
    return result.correlation, result.best, result.lag_frames


def load_sound(path: Path) -> np.ndarray:
    """Any sound or video file as (N,) float32 at 16 kHz, by the product's own resampling."""
    return load_int16(path).astype(np.float32) / 32767


class Judge:
    """Everything a network is judged by, loaded once."""

    def __init__(self, shards: Path, talkers: Path | None, videos: Path | None) -> None:
        """Loads held-out clips and talkers.

        Args:
            shards: folder with ``held_out_*.npz`` and, if there are, ``recorded_held_out_*.npz``.
            talkers: JSON of measured openings, ``{"openings": {"grid/name": [...]}}``; those of ``grid_s1`` and
                ``grid_dev`` choose the weights. None: held-out voices choose them.
            videos: folder in which ``name.wav`` or ``name.mpg`` lies; talkers without a file are left out.
        """
        self._synthetic = [clip for path in sorted(shards.glob("held_out_*.npz")) for clip in read_shard(path)][:100]
        self._recorded = [clip for path in sorted(shards.glob("recorded_held_out_*.npz")) for clip in read_shard(path)]
        openings = json.loads(talkers.read_text())["openings"] if talkers and videos else {}
        files = {name: _file_of(name, videos) for name in openings} if videos else {}
        self._sounds = {name: load_sound(path) for name, path in files.items() if path is not None}
        self._talkers = {name: openings[name] for name in self._sounds}
        rng = np.random.default_rng(7)
        self._silence = [silence_like(3 * ANALYSIS_RATE, rng) for _ in range(40)]
        self._things = [
            finished(maker(3 * ANALYSIS_RATE, rng), rng) for maker in QUIET_SOUNDS for _ in range(_QUIET_EACH)
        ]

    def __call__(self, network: AudioNet) -> dict[str, float]:
        """All measures; ``score`` is what to choose by."""

        def track(samples: np.ndarray) -> np.ndarray:
            return track_of(network, samples)

        report: dict[str, float] = {}
        for name, clips in (("synthetic", self._synthetic), ("recorded", self._recorded)):
            if clips:
                report.update({f"{name}_{key}": value for key, value in judge_clips(clips, track).items()})
        for name in ("grid_s1", "grid_dev", "grid"):
            part = {key: value for key, value in self._talkers.items() if key.split("/")[0] == name}
            if part:
                figures = judge_talkers(part, self._sounds, track)
                report.update(zip((f"{name}_r", f"{name}_best", f"{name}_lag"), figures, strict=True))
        report["silence_shut"] = float(np.mean([shut_rate(track(sound)) for sound in self._silence]))
        report["quiet_shut"] = float(np.mean([shut_rate(track(sound)) for sound in self._things]))
        phones = "recorded_r" if "recorded_r" in report else "synthetic_r"
        choosing = [report[key] for key in ("grid_s1_r", "grid_dev_r", phones, "quiet_shut") if key in report]
        report["score"] = sum(choosing) / len(choosing)
        return {key: round(float(value), 4) for key, value in report.items()}


def _file_of(name: str, videos: Path) -> Path | None:
    return next((path for ending in (".wav", ".mpg") if (path := videos / f"{name}{ending}").exists()), None)
