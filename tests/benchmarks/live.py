"""``python -m tests.benchmarks.live`` (``make bench-live``): a live session measured from outside, in a real browser.

Place in the flow: server process <-> Chromium <-> measures -> table on standard output and ``.bench/live.json``.

Invariants: a figure is measured or it is null with its reason; goals are printed beside the figures and decide
nothing: the exit status is 1 only when something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Error as BrowserError

from engine.errors import VisavisError
from tests.benchmarks import measures, model_figures, sounds, sync
from tests.benchmarks.analysis import Unmeasurable
from tests.benchmarks.browser import BrowserMissing, find_chromium, open_browser
from tests.benchmarks.face import mouth_region
from tests.benchmarks.measures import FULL, QUICK, Lengths
from tests.benchmarks.serving import REPOSITORY, ServerFailed, ServerProcess

OUTPUT = REPOSITORY / ".bench" / "live.json"
DEFAULT_PARTS = ("first_frame", "stability", "lips", "interrupts", "skew", "model")
PARTS = (*DEFAULT_PARTS, "stages")


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the table.

    Attributes:
        key: key in live.json, with dots into dictionaries.
        label: what it is, in words.
        part: the measurement it comes from.
        goal: what is wanted, in words; empty for figures without a goal.
        reached: whether a value is good enough.
        unit: after the number.
    """

    key: str
    label: str
    part: str
    unit: str = ""
    goal: str = ""
    reached: Callable[[float], bool] | None = None


ROWS = (
    Goal("decoded_fps", "frames decoded a second", "stability", "", "≥ 24.5", lambda v: v >= 24.5),
    Goal("freezes", "freezes after the first second", "stability", "", "0", lambda v: v == 0),
    Goal("av_skew_ms", "sound after picture, against the baseline", "skew", "ms", "± 45", lambda v: abs(v) <= 45),
    Goal("mic_to_lips_ms.p50", "microphone to moving lips, median", "lips", "ms"),
    Goal("mic_to_lips_ms.p95", "microphone to moving lips, p95", "lips", "ms", "≤ 450", lambda v: v <= 450),
    Goal("interrupt_to_silence_ms.p50", "interrupt to silence, median", "interrupts", "ms"),
    Goal("interrupt_to_silence_ms.p95", "interrupt to silence, p95", "interrupts", "ms", "≤ 250", lambda v: v <= 250),
    Goal("first_frame_ms.p50", "connect to first frame, median", "first_frame", "ms"),
    Goal("first_frame_ms.p95", "connect to first frame, p95", "first_frame", "ms", "≤ 1000", lambda v: v <= 1000),
    Goal("first_frame.page_open_to_first_frame_ms.p95", "page open to first frame, p95", "first_frame", "ms"),
    Goal("lips.mic_to_sound_ms.p50", "microphone to sound back, median", "lips", "ms"),
    Goal("skew.drift_ms", "skew, end less beginning", "skew", "ms"),
    Goal("stability.rss_mb", "server memory in a session", "stability", "MB", "≤ 600", lambda v: v <= 600),
    Goal("stability.server_cpu_percent", "server, share of one core", "stability", "%"),
    Goal("model.parameters", "model parameters", "model"),
    Goal("model.mflops", "model MFLOPs a frame", "model"),
    Goal("model.cpu_ms_per_frame", "model CPU a frame, one thread", "model", "ms"),
    Goal("model.correlation_synthetic", "opening against truth, synthetic speech", "model"),
    Goal("model.lag_synthetic_ms", "  at a lag of", "model", "ms"),
    Goal("model.correlation_talkers", "opening against real talkers", "model"),
    Goal("model.lag_talkers_ms", "  at a lag of", "model", "ms"),
)


def main() -> int:
    """Measures and reports; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.live", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter runs, about three minutes in all")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"any of: {', '.join(PARTS)}")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the figures go (default: .bench/live.json)")
    parser.add_argument("--avatar", default="", help="the face; the server's own choice when left out")
    args = parser.parse_args()
    started_s = time.monotonic()
    report = _Report(args.only or DEFAULT_PARTS)
    lengths = QUICK if args.quick else FULL
    try:
        if set(report.parts) - {"model"}:
            find_chromium()
            _measure_session(report, lengths, args.avatar)
    except (BrowserMissing, BrowserError, ServerFailed) as error:
        report.failed("session", str(error))
    report.measure("model", lambda: model_figures.measure(lengths.clips))
    figures = report.figures(time.monotonic() - started_s, args.quick)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(_table(figures, report.parts))
    for part, reason in report.failures.items():
        print(f"{part}: not measured: {reason}")
    print(f"{figures['duration_s']:.0f} s; written to {args.output}")
    return 1 if report.failures else 0


class _Report:
    """What was measured and what could not be."""

    def __init__(self, parts: tuple[str, ...] | list[str]) -> None:
        self.parts = parts
        self.results: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, str] = {}
        self.setup: dict[str, Any] = {}

    def measure(self, part: str, work: Callable[[], dict[str, Any]]) -> None:
        """Runs one measurement if it is wanted."""
        if part not in self.parts:
            return
        print(f"measuring {part} …", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]
        try:
            self.results[part] = work()
        except (Unmeasurable, ServerFailed, BrowserError, VisavisError) as error:
            self.failed(part, str(error))
        else:
            self.results[part]["load_before"] = round(load, 2)

    def failed(self, part: str, reason: str) -> None:
        """Notes that something could not be measured."""
        self.failures[part] = reason

    def figures(self, duration_s: float, quick: bool) -> dict[str, Any]:
        """Everything for live.json: the figures with a goal first, then each measurement's details."""
        take = self.results.get
        empty: dict[str, Any] = {"p50": None, "p95": None}
        stability, lips = take("stability", {}), take("lips", {})
        return {
            "decoded_fps": stability.get("decoded_fps"),
            "freezes": stability.get("freezes"),
            "av_skew_ms": take("skew", {}).get("av_skew_ms"),
            "mic_to_lips_ms": lips.get("mic_to_lips_ms", empty),
            "interrupt_to_silence_ms": take("interrupts", {}).get("interrupt_to_silence_ms", empty),
            "first_frame_ms": take("first_frame", {}).get("first_frame_ms", empty),
            "model": take("model", {}),
            **{part: self.results[part] for part in PARTS if part in self.results and part != "model"},
            "not_measured": self.failures,
            "quick": quick,
            "duration_s": round(duration_s, 1),
            "machine": machine(),
            **self.setup,
            "method": "tests/benchmarks/README.md",
        }


def _measure_session(report: _Report, lengths: Lengths, avatar: str) -> None:
    arguments = ("--avatar", avatar) if avatar else ()
    with tempfile.TemporaryDirectory(prefix="visavis-bench-") as scratch:
        folder = Path(scratch)
        sources = sounds.load_sources()
        report.setup["speech"] = "recordings" if sources.real else "built-in voice"
        speech = sounds.speech(sources, measures.SETTLE_S + lengths.stability_s + 5)
        bursts = sounds.bursts(sources, lengths.bursts)
        seconds = len(bursts) / sounds.PLAYOUT_RATE
        speech_wav = sounds.write_wav(folder / "speech.wav", speech)
        bursts_wav = sounds.write_wav(folder / "bursts.wav", bursts)
        sounds.write_wav(folder / "tone.wav", sounds.tone(12.0))
        with ServerProcess(folder / "server.log", arguments=arguments) as server:
            report.setup["server_start_s"] = round(server.start_s, 2)
            region = mouth_region(server)
            with open_browser(speech_wav) as browser:
                report.measure("first_frame", lambda: measures.first_frame(server, browser, lengths))
                report.measure("stability", lambda: measures.stability(server, browser, region, lengths))
            with open_browser(bursts_wav) as browser:
                report.measure("lips", lambda: measures.lips(server, browser, region, seconds))
                report.measure("interrupts", lambda: measures.interrupts(server, browser, folder, lengths))
        report.measure("stages", lambda: measures.stages(folder / "trace.log", arguments, bursts_wav, seconds))
        report.measure("skew", lambda: sync.skew(folder / "probe.log", arguments, lengths))


def machine() -> dict[str, Any]:
    """What it was measured on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory) / 2**20, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _table(figures: Mapping[str, Any], parts: tuple[str, ...] | list[str]) -> str:
    lines = [f"{'':44}{'measured':>14}   {'goal':8}"]
    for row in ROWS:
        value = _value(figures, row.key)
        if row.part not in parts or (value is None and not row.goal):
            continue
        shown = "–" if value is None else f"{_number(value)} {row.unit}".rstrip()
        verdict = "" if row.reached is None or value is None else ("reached" if row.reached(value) else "NOT REACHED")
        lines.append(f"{row.label:44}{shown:>14}   {row.goal:8}{verdict}".rstrip())
    return "\n".join(lines)


def _value(figures: Mapping[str, Any], key: str) -> Any:
    value: Any = figures
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
