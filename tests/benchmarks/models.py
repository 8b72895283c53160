"""``python -m tests.benchmarks.models`` (``make bench-models``): Wav2Lip 96 in every way this machine can compute it.

Place in the flow: weights -> ``python -m engine bench`` -> ``.bench/models.json`` and the goals on standard output.

Invariants: figures come from the user's own command and are only picked here; goals are printed beside them and decide
nothing. Where there are no weights of the official network, one is taught for some minutes: rounding shows on trained
numbers as it does on the official ones, speed does not depend on them at all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from engine.bench.candidates import BASELINE, Candidate, served
from engine.config_load import load_config
from engine.errors import VisavisError
from engine.weights.add import add_weights
from engine.weights.folder import WeightsCard, list_weights
from tests.benchmarks.serving import REPOSITORY

OUTPUT = REPOSITORY / ".bench" / "models.json"
CHECKPOINT = REPOSITORY / ".bench" / "wav2lip-96.pth"
OWN_WEIGHTS = REPOSITORY / ".bench" / "weights"
NETWORK, NAME = "wav2lip-96", "wav2lip"

GOALS = (
    ("ratio_2core", "bf16, two cores, x torch loop", 6.0),
    ("psnr_db", "bf16, pasted rows, dB", 45.0),
    ("int8_ratio_2core", "int8, two cores, x torch loop", 9.0),
    ("int8_psnr_db", "int8, pasted rows, dB", 38.0),
    ("fps_1core", "bf16, one core, fps", 40.0),
    ("int8_fps_1core", "int8, one core, fps", 40.0),
)


def weights_96(weights_dir: Path) -> tuple[Path, str] | None:
    """Folder of all weights and the name of those of the official network; that called ``wav2lip`` before others."""
    names = [
        name for name, card in list_weights(weights_dir).items()
        if isinstance(card, WeightsCard) and card.variant == NETWORK
    ]  # fmt: skip
    return (weights_dir, min(names, key=lambda name: (name != NAME, name))) if names else None


def own_weights() -> tuple[Path, str]:
    """The same for a checkpoint taught here, which is made when it is missing.

    Raises:
        VisavisError: it cannot be added.
    """
    if (found := weights_96(OWN_WEIGHTS)) is not None:
        return found
    if not CHECKPOINT.is_file():
        print(f"There are no weights of {NETWORK}: teaching some to {CHECKPOINT}; some minutes ...", flush=True)
        teach = [sys.executable, "-m", "tests.benchmarks.trained_wav2lip", CHECKPOINT]
        subprocess.run(teach, check=True, cwd=REPOSITORY)
    add_weights(CHECKPOINT, OWN_WEIGHTS, name=NAME)
    return OWN_WEIGHTS, NAME


def figures(model: dict[str, Any]) -> dict[str, float | None]:
    """The figures with a goal, out of one model of the bench's JSON; None for a way that was not measured."""

    def take(way: Candidate, key: str) -> float | None:
        wanted = {
            "runtime": way.runtime, "rows": way.rows, "precision": way.precision, "batch": way.batch,
            "side_by_side": way.side_by_side,
        }  # fmt: skip
        row = next((row for row in model["rows"] if wanted.items() <= row.items()), {})
        return row.get(key)

    found: dict[str, float | None] = {}
    for precision, prefix in (("bf16", ""), ("int8", "int8_")):
        for key in ("ratio_2core", "ratio_1core", "psnr_db", "fps_1core", "fps_2core"):
            found[prefix + key] = take(served(precision), key)
    return found | {f"baseline_fps_{cores}core": take(BASELINE, f"fps_{cores}core") for cores in (1, 2)}


def table(found: dict[str, float | None]) -> str:
    """Figures beside their goals."""
    lines = []
    for key, label, goal in GOALS:
        value = found[key]
        said = "not measured" if value is None else f"{value:.1f}  {'reached' if value >= goal else 'missed'}"
        lines.append(f"{label:<34}{f'>= {goal:g}':>8}  {said}")
    return "\n".join(lines)


def main() -> int:
    """Measures and reports; returns the exit code of the bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.models", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="computing time for each way (default: 10)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the figures go")
    args = parser.parse_args()
    try:
        weights_dir, name = weights_96(load_config(warn=lambda _text: None).weights_dir) or own_weights()
    except VisavisError as error:
        print(error.message, file=sys.stderr)
        return 1
    with TemporaryDirectory(prefix="visavis-bench-") as scratch:
        file = Path(scratch) / "bench.json"
        bench = subprocess.run(
            [sys.executable, "-m", "engine", "bench", "--lipsync", name, "--weights-dir", weights_dir, "--json", file,
             "--seconds", str(args.seconds)], cwd=REPOSITORY,
        )  # fmt: skip
        if bench.returncode:
            return bench.returncode
        report = json.loads(file.read_text())
    model = report["models"][0]
    found = figures(model)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"wav2lip96": found, **model, "machine": report["machine"]}
    args.output.write_text(json.dumps(content, indent=2) + "\n")
    print(f"\n{table(found)}\nwritten to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
