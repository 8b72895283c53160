"""The networks by themselves: what they cost, and how the wished mouth follows voices, real talkers and noises.

Place in the flow: held-out voices, real talkers' videos, silence and noise -> shipped networks -> plain numbers.

Nothing is rendered here, so it takes seconds; ``avatar_report`` measures what is seen.

Invariant: nothing that is measured here was used for training; ``grid_s1`` helped to choose weights, ``grid`` did not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.audio.decode import decode_audio
from engine.audio.pcm import to_playout
from engine.evaluate.hearing import Hearing, cost_of
from engine.evaluate.measures import opening, shut_rate, sync
from engine.evaluate.phone_measures import judge_clips
from engine.evaluate.talkers import load_talkers
from engine.types import ANALYSIS_RATE

WEIGHT_FILES = ("*.bin", "*.xml", "*.safetensors", "*.npz")

_SILENCES = 30
_NEGATIVES = ("*.wav", "*.ogg", "*.flac")


def measure(model: Path, data: Path | None, clips: int) -> dict[str, float]:
    """All figures by name.

    Args:
        model: folder with ``audio.xml`` and, if it is there, ``picture.xml``.
        data: folder with real talkers and sounds without speech; None leaves them out.
        clips: how many clips of held-out voices to synthesise.
    """
    from engine.studio.audio_augment import silence_like
    from engine.studio.speech_data import make_clip

    report = network_costs(model)
    hearing = Hearing(model / "audio.xml")

    def track(samples: np.ndarray) -> np.ndarray:
        return hearing.track(to_playout(samples, ANALYSIS_RATE))

    rng = np.random.default_rng(2026)
    held_out = judge_clips([make_clip(rng, held_out=True) for _ in range(clips)], track)
    report.update({f"synthetic_{name}": value for name, value in held_out.items()})
    report["silence_shut"] = float(
        np.mean([shut_rate(track(silence_like(3 * ANALYSIS_RATE, rng))) for _ in range(_SILENCES)])
    )
    if data is not None:
        report.update(_real_figures(hearing, data))
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in report.items()}


def network_costs(model: Path) -> dict[str, float]:
    """Parameters, MFLOPs and CPU time per frame of ``audio.xml`` and, if it is there, ``picture.xml``."""
    report: dict[str, float] = {}
    for name in ("audio", "picture"):
        if (path := model / f"{name}.xml").exists():
            cost = cost_of(path)
            report[f"{name}_parameters"] = cost.parameters
            report[f"{name}_mflops"] = round(2 * cost.macs / 1e6, 2)
            report[f"{name}_cpu_ms"] = round(cost.cpu_ms, 3)
    return report


def weights_mb(model: Path) -> float:
    """Size of all weights in a folder, in every form they are shipped in, megabytes."""
    return sum(path.stat().st_size for pattern in WEIGHT_FILES for path in model.glob(pattern)) / 1e6


def _real_figures(hearing: Hearing, data: Path) -> dict[str, float]:
    report: dict[str, float] = {}
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for talker in load_talkers(data / "faces"):
        corpus = talker.name.partition("/")[0]
        pairs.setdefault(corpus, []).append((opening(hearing.track(talker.samples)), talker.opening))
    for corpus, clips in pairs.items():
        result = sync(clips)
        report[f"{corpus}_r"] = result.correlation
        report[f"{corpus}_best_r"] = result.best
        report[f"{corpus}_lag_frames"] = result.lag_frames
    for pattern in _NEGATIVES:
        for path in sorted((data / "speech" / "negatives").glob(pattern)):
            report[f"shut_{path.stem}"] = shut_rate(hearing.track(decode_audio(path, max_s=600)))
    return report
