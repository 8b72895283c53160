"""Findings as a table for people and as JSON for programs.

Place in the flow: ``Findings`` -> standard output, file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.bench.networks import Findings
from engine.bench.race import QUIET, Row
from engine.lipsync.wav2lip.advice import machine

_HEAD = (
    f"{'runtime':<14}{'precision':<10}{'rows':<7}{'batch':>5}  {'how':<8}"
    f"{'1 core':>8}{'x':>7}{'2 cores':>9}{'x':>7}{'PSNR dB':>9}{'MB':>7}"
)
_NOTE = """\
fps of the network alone: window and face in, pixels out. x: against the first line, medians of slices taken in turns.
'loop' is one loop with as many threads as cores, 'streams' one single-threaded stream for each core, as sessions are
served. rows 'pasted': only rows that are shown are computed, and the features of the avatar's pictures are kept.
PSNR: shown rows against the first line."""


def table(findings: Findings) -> str:
    """One model's rows, what came of int8, and the recommendation."""
    on_cpu = [row for row in findings.rows if not row.candidate.on_gpu]
    lines = [f"{findings.name} ({findings.network}) on {machine()['processor']}", _HEAD]
    lines += [_line(row, (1, 2)) for row in on_cpu]
    if on_gpu := [row for row in findings.rows if row.candidate.on_gpu]:
        lines += ["", f"{'on the GPU':<46}{'fps':>8}{'x':>7}{'':>16}{'PSNR dB':>9}{'MB':>7}"]
        lines += [_line(row, (0,)) for row in on_gpu]
    if findings.int8:
        lines.append(f"int8: {findings.int8}")
    if findings.advice:
        lines.append(f"recommended here: --lipsync {findings.name} --precision {findings.advice}; 'auto' uses it now")
    shares = {cores: share for row in findings.rows for cores, share in row.others.items() if cores}
    if max(shares.values(), default=0.0) > QUIET:
        words = " and ".join(f"{share:.0%} of {cores} core{'s' * (cores > 1)}" for cores, share in shares.items())
        lines.append(f"others used {words} meanwhile: measure again when the machine has nothing else to do")
    return "\n".join(lines)


def note() -> str:
    """What the columns mean."""
    return _NOTE


def _line(row: Row, cores: Sequence[int]) -> str:
    way = row.candidate
    where = {"openvino": "OpenVINO", "builtin": "built-in", "torch-gpu": "torch", "graphs-gpu": "CUDA graphs"}
    how = "" if way.on_gpu else "streams" if way.side_by_side else "loop"
    name = where.get(way.runtime, way.runtime)
    start = f"{name:<14}{way.precision:<10}{way.rows:<7}{way.batch:>5}  {how:<8}"
    if row.failed:
        return f"{start}  failed: {row.failed}"
    speeds = "".join(
        f"{row.fps[count]:>{8 + (count > 1)}.1f}{row.ratio[count]:>7.1f}" if count in row.fps and count in row.ratio
        else " " * (15 + (count > 1)) for count in cores
    )  # fmt: skip
    quality = "" if row.psnr_db is None else f"{row.psnr_db:.1f}"
    return f"{start}{speeds}{'' if len(cores) > 1 else ' ' * 16}{quality:>9}{row.memory_mb:>7.0f}"


def to_json(all_findings: Sequence[Findings]) -> dict[str, Any]:
    """Everything, for a file."""
    return {
        "machine": machine(),
        "models": [
            {
                "name": findings.name, "network": findings.network, "int8": findings.int8,
                "advice": findings.advice,
                "rows": [_row(row) for row in findings.rows],
            }
            for findings in all_findings
        ],
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    way = row.candidate

    def by_cores(values: dict[int, float], name: str) -> dict[str, float]:
        return {f"{name}_{'gpu' if cores == 0 else f'{cores}core'}": round(value, 3) for cores, value in values.items()}

    return {
        "runtime": way.runtime, "rows": way.rows, "precision": way.precision, "batch": way.batch,
        "side_by_side": way.side_by_side, **by_cores(row.fps, "fps"), **by_cores(row.ratio, "ratio"),
        **by_cores(row.others, "others"),
        "psnr_db": None if row.psnr_db is None else round(row.psnr_db, 2), "memory_mb": round(row.memory_mb),
        **({"failed": row.failed} if row.failed else {}),
    }  # fmt: skip
