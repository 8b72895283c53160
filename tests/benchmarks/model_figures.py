"""The built-in model's size and cost, and how well its mouth follows speech, by the engine's own commands.

Place in the flow: engine.evaluate and engine.bench.stages -> figures under ``model`` in live.json.

Invariants: nothing is judged here a second time; the names say what was compared with what.
"""

from __future__ import annotations

from typing import Any

from engine import registry
from engine.avatar.bundle import avatar_folder, load_avatar
from engine.bench import stages
from engine.cli.render import first_avatar
from engine.config_load import load_config
from engine.evaluate.hearing import BUILTIN
from engine.evaluate.network_figures import measure as evaluate
from engine.types import FRAME_MS
from tests.benchmarks.sounds import shared_folder

FRAMES = 150
SYNTHETIC = "synthetic"
TALKERS = "grid"
"""Five talkers of the GRID corpus, none of whom had a part in training or in choosing weights."""


def measure(clips: int) -> dict[str, Any]:
    """Parameters, MFLOPs, CPU time, correlation of mouth opening with the truth, and the lag at which it is best.

    Args:
        clips: how many clips of held-out synthetic voices.
    """
    config = load_config(warn=lambda _text: None)
    avatar = load_avatar(avatar_folder(config.avatars_dir, config.avatar or first_avatar(config)))
    lipsync = registry.create_lipsync("builtin", threads=1, precision=config.precision)
    costs_ms = stages.measure(avatar, lipsync, config, FRAMES)
    data = shared_folder() / "data"
    found = evaluate(BUILTIN, data if data.is_dir() else None, clips)
    figures: dict[str, Any] = {
        "parameters": int(found["audio_parameters"] + found["picture_parameters"]),
        "mflops": round(found["audio_mflops"] + found["picture_mflops"], 1),
        "cpu_ms_per_frame": round(costs_ms["predict"], 2),
    }
    for corpus, name in ((SYNTHETIC, "synthetic"), (TALKERS, "talkers")):
        if f"{corpus}_r" in found:
            figures[f"correlation_{name}"] = round(found[f"{corpus}_r"], 3)
            figures[f"lag_{name}_ms"] = round(found[f"{corpus}_lag_frames"] * FRAME_MS)
    figures["precision"] = config.precision
    figures["stages_cpu_ms"] = {stage: round(cost_ms, 3) for stage, cost_ms in costs_ms.items()}
    figures["evaluation"] = found
    return figures
