"""``python -m engine evaluate``: measures how well the built-in model's lips follow speech, as a table and JSON.

Place in the flow: held-out voices, real talkers' videos, silence and noise -> shipped network -> ``measures``.

Invariant: nothing that is measured here was used for training; ``grid_s1`` helped to choose weights, ``grid`` did not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from engine.audio.decode import decode_audio
from engine.audio.pcm import to_playout
from engine.errors import NotFound
from engine.evaluate.hearing import BUILTIN, Hearing, cost_of
from engine.evaluate.measures import opening, shut_rate, sync
from engine.evaluate.phone_measures import judge_clips
from engine.evaluate.talkers import load_talkers
from engine.types import ANALYSIS_RATE

_SILENCES = 30
_NEGATIVES = ("*.wav", "*.ogg", "*.flac")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``evaluate``."""
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with faces/ and speech/negatives/")
    parser.add_argument("--clips", type=int, default=40, metavar="N", help="clips of held-out voices (default: 40)")
    parser.add_argument("--model", type=Path, default=BUILTIN, metavar="DIR", help="folder with audio.xml")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table and writes the JSON.

    Raises:
        NotFound: there is no model in the folder.
    """
    if not (args.model / "audio.xml").exists():
        raise NotFound("model_not_found", f"There is no audio.xml in {args.model}. Train and export one first.")
    report = measure(args.model, args.data, args.clips)
    width = max(map(len, report))
    for name, value in report.items():
        print(f"{name:<{width}}  {value:,.4g}" if isinstance(value, float) else f"{name:<{width}}  {value:,}")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


def measure(model: Path, data: Path | None, clips: int) -> dict[str, float]:
    """All figures by name.

    Args:
        model: folder with ``audio.xml`` and, if it is there, ``picture.xml``.
        data: folder with real talkers and sounds without speech; None leaves them out.
        clips: how many clips of held-out voices to synthesise.
    """
    from engine.studio.audio_augment import silence_like
    from engine.studio.speech_data import make_clip

    report: dict[str, float] = {}
    for name in ("audio", "picture"):
        if (path := model / f"{name}.xml").exists():
            cost = cost_of(path)
            report.update(
                {
                    f"{name}_parameters": cost.parameters,
                    f"{name}_mflops": round(2 * cost.macs / 1e6, 2),
                    f"{name}_cpu_ms": round(cost.cpu_ms, 3),
                }
            )
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
