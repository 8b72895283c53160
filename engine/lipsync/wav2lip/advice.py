"""What a benchmark on this machine advised for a network, kept beside its weights.

Place in the flow: ``python -m engine bench`` writes -> ``auto`` reads.

Invariants:
    * advice counts on the machine and with the runtime it was measured with, nowhere else: a folder of weights may be
      copied or shared.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

ADVICE_FILE = "bench.json"
PRECISIONS = ("f32", "bf16", "int8")


def machine() -> dict[str, str]:
    """What advice depends on: the processor's model and the runtime's version."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"processor": model or platform.machine(), "openvino": version("openvino")}


def write_advice(folder: Path, precision: str, measured: dict[str, float]) -> None:
    """Keeps what was best.

    Args:
        folder: of the weights.
        precision: one of ``PRECISIONS``.
        measured: frames a second on one core, by precision.
    """
    path = folder / ADVICE_FILE
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps({"machine": machine(), "precision": precision, "fps": measured}, indent=1))
    unfinished.replace(path)


def advised_precision(folder: Path) -> str | None:
    """The precision advised for these weights on this machine, or None."""
    try:
        advice = json.loads((folder / ADVICE_FILE).read_text())
        fits = advice["machine"] == machine() and advice["precision"] in PRECISIONS
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return advice["precision"] if fits else None
