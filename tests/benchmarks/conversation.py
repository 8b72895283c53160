"""``python -m tests.benchmarks.conversation`` (``make bench-conversation``): a spoken conversation, measured outside.

Place in the flow: server process and fake language model <-> Chromium <-> conversation_live, conversation_script;
recordings -> conversation_vad, conversation_asr; all -> table on standard output and ``.bench/conversation.json``.

Invariants: a figure is measured or it is null with its reason; goals are printed beside the figures and decide
nothing: the exit status is 1 only when something could not be measured, or a check of the script failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Error as BrowserError

from engine.errors import VisavisError
from tests.benchmarks import (
    conversation_asr,
    conversation_live,
    conversation_script,
    conversation_sounds,
    conversation_vad,
)
from tests.benchmarks.analysis import Unmeasurable
from tests.benchmarks.browser import BrowserMissing, open_browser
from tests.benchmarks.conversation_page import SERVER, instant_model, server_options
from tests.benchmarks.face import mouth_region
from tests.benchmarks.live import machine
from tests.benchmarks.serving import REPOSITORY, ServerFailed, ServerProcess
from tests.benchmarks.sounds import shared_folder

OUTPUT = REPOSITORY / ".bench" / "conversation.json"
PARTS = ("script", "turns", "interruptions", "vad", "asr")


@dataclass(frozen=True, slots=True)
class Lengths:
    """How much is measured."""

    turns: int = 30
    interruptions: int = 10


FULL = Lengths()
QUICK = Lengths(turns=6, interruptions=3)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: a key of conversation.json with dots into dictionaries, in words, and what is wanted."""

    key: str
    label: str
    part: str
    unit: str = ""
    goal: str = ""
    reached: Callable[[float], bool] | None = None


ROWS = (
    Row("turn_ms.p50", "end of speech to sound and lips, median", "turns", "ms", "≤ 700", lambda v: v <= 700),
    Row("turn_ms.p95", "end of speech to sound and lips, p95", "turns", "ms", "≤ 1200", lambda v: v <= 1200),
    Row("turns.sound_ms.p50", "  to the first sound, median", "turns", "ms"),
    Row("turns.lips_ms.p50", "  to the first moving lips, median", "turns", "ms"),
    Row("turns.microphone_to_server_ms.p50", "  end of speech as the server saw it", "turns", "ms"),
    *(
        Row(f"stages_ms.{stage}.p50", f"  server: {stage.replace('_', ' ')}, median", "turns", "ms")
        for stage in ("endpoint", "transcript", "first_token", "first_audio", "first_frame", "first_heard")
    ),
    Row("turns.first_frame_to_sound_ms.p50", "  first frame to sound, median", "turns", "ms"),
    Row("barge_in_ms.p50", "barge-in to silence, median", "interruptions", "ms"),
    Row("barge_in_ms.p95", "barge-in to silence, p95", "interruptions", "ms", "≤ 250", lambda v: v <= 250),
    Row("interruptions.speech_to_silence_ms.p50", "first speech to silence, median", "interruptions", "ms"),
    Row("script.failed", "checks of the script that failed", "script", "", "0", lambda v: v == 0),
    Row("word_error_rate", "words misunderstood", "asr"),
    Row("false_starts_per_minute", "false starts a minute of noise", "vad"),
    Row("missed_speech", "speech missed", "vad"),
)


def main() -> int:
    """Measures and reports; returns the exit code."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.conversation", description=about)
    parser.add_argument("--quick", action="store_true", help="fewer turns, about six minutes in all")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"any of: {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: .bench/conversation.json")
    parser.add_argument("--avatar", default="", help="the face; the server's own choice when left out")
    args = parser.parse_args()
    started_s = time.monotonic()
    report = _Report(args.only or PARTS)
    lengths = QUICK if args.quick else FULL
    _measure_live(report, lengths, args.avatar)
    data = shared_folder() / "data"
    report.measure("vad", lambda: conversation_vad.measure(_needed(data / "speech" / "negatives").parent))
    report.measure("asr", lambda: _understanding(data, 0.0 if args.quick else 1.0))
    figures = report.figures(time.monotonic() - started_s, args.quick)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    print(_table(figures, report.parts))
    failed = [what for what, right in figures["script"].get("passed", {}).items() if not right]
    for what in failed:
        print(f"script: FAILED: {what}")
    for part, reason in report.failures.items():
        print(f"{part}: not measured: {reason}")
    print(f"{figures['duration_s']:.0f} s; written to {args.output}")
    return 1 if report.failures or failed else 0


class _Report:
    """What was measured and what could not be."""

    def __init__(self, parts: tuple[str, ...] | list[str]) -> None:
        self.parts = parts
        self.results: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, str] = {}

    def measure(self, part: str, work: Callable[[], dict[str, Any]]) -> None:
        """Runs one measurement if it is wanted."""
        if part not in self.parts or part in self.failures:
            return
        print(f"measuring {part} …", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]
        try:
            self.results[part] = work()
        except (Unmeasurable, ServerFailed, BrowserError, VisavisError) as error:
            self.failures[part] = str(error)
        else:
            self.results[part]["load_before"] = round(load, 2)

    def figures(self, duration_s: float, quick: bool) -> dict[str, Any]:
        """Everything for conversation.json: the figures with a goal first, then each measurement's details."""
        turns, interruptions, vad, asr, script = (
            self.results.get(part, {}) for part in ("turns", "interruptions", "vad", "asr", "script")
        )
        return {
            "turn_ms": turns.get("turn_ms", conversation_live.EMPTY),
            "barge_in_ms": interruptions.get("barge_in_ms", conversation_live.EMPTY),
            "stages_ms": turns.get("stages_ms", {}),
            "word_error_rate": asr.get("word_error_rate"),
            "false_starts_per_minute": vad.get("false_starts_per_minute"),
            "missed_speech": vad.get("missed_speech"),
            "counts": {
                "turns": turns.get("turn_ms", {}).get("n"),
                "barge_ins": interruptions.get("barge_in_ms", {}).get("n"),
                "words": sum(turn["words"] for turn in asr.get("turns", [])) or None,
                "speech_s": vad.get("speech", {}).get("speech_s"),
                "minutes_without_speech": vad.get("negatives", {}).get("minutes"),
            },
            "turns": turns,
            "interruptions": interruptions,
            "script": script,
            "vad": vad,
            "asr": asr,
            "not_measured": self.failures,
            "quick": quick,
            "duration_s": round(duration_s, 1),
            "machine": machine(),
            "method": "tests/benchmarks/README.md",
        }


def _measure_live(report: _Report, lengths: Lengths, avatar: str) -> None:
    live = [part for part in ("script", "turns", "interruptions") if part in report.parts]
    if not live:
        return
    try:
        with tempfile.TemporaryDirectory(prefix="visavis-bench-") as scratch:
            folder = Path(scratch)
            spoken = conversation_sounds.write_all(folder)
            report.measure("script", lambda: _script(folder, spoken, avatar))
            with (
                instant_model(conversation_live.answer_to) as fake,
                ServerProcess(folder / "server.log", SERVER, server_options(fake, avatar)) as server,
                open_browser() as browser,
            ):
                given = (server, browser, mouth_region(server), folder, spoken)
                report.measure("turns", lambda: conversation_live.turns(*given, lengths.turns))
                report.measure("interruptions", lambda: conversation_live.interruptions(*given, lengths.interruptions))
    except (Unmeasurable, BrowserMissing, BrowserError, ServerFailed) as error:
        for part in live:
            if part not in report.results:
                report.failures.setdefault(part, str(error))


def _script(folder: Path, spoken: dict[str, conversation_sounds.Spoken], avatar: str) -> dict[str, Any]:
    checks = conversation_script.play(folder, spoken, avatar)
    failed = sum(not right for right in checks.passed.values())
    return {"checks": len(checks.passed), "failed": failed, "passed": checks.passed, "figures": checks.figures}


def _understanding(data: Path, speed: float) -> dict[str, Any]:
    return asyncio.run(conversation_asr.measure(_needed(data / "MANIFEST.tsv").parent, speed))


def _needed(path: Path) -> Path:
    if not path.exists():
        raise Unmeasurable(f"needs recordings, and there is no {path}")
    return path


def _table(figures: Mapping[str, Any], parts: tuple[str, ...] | list[str]) -> str:
    lines = [f"{'':44}{'measured':>14}   {'goal':8}"]
    for row in ROWS:
        value: Any = figures
        for name in row.key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if row.part not in parts or (value is None and not row.goal):
            continue
        shown = "–" if value is None else f"{value:g} {row.unit}".rstrip()
        verdict = "" if row.reached is None or value is None else ("reached" if row.reached(value) else "NOT REACHED")
        lines.append(f"{row.label:44}{shown:>14}   {row.goal:8}{verdict}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
