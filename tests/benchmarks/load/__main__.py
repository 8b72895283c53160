"""``python -m tests.benchmarks.load`` (``make bench-load``): what a crowd does to the server, and where it breaks.

Place in the flow: server process <-> viewers in processes of their own -> points -> table, ``.bench/load.json``, plots.

Invariants: a figure is measured or it is null with its reason; goals are printed beside the figures and decide
nothing: the exit status is 1 only when something could not be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.live import machine
from tests.benchmarks.load import profile, scenarios
from tests.benchmarks.load.crowd import CrowdFailed
from tests.benchmarks.load.report import Report
from tests.benchmarks.load.scenarios import RIVAL_POINTS, SCENARIOS, Scene, Setting
from tests.benchmarks.load.soak import soak
from tests.benchmarks.load.sync import sync
from tests.benchmarks.serving import REPOSITORY, ServerFailed

OUTPUT = REPOSITORY / ".bench" / "load.json"
RIVAL = "tests.benchmarks.load.rival"
DEFAULT_PARTS = ("talking", "idle", "broadcast", "baseline", "sync", "profile", "soak")
SOAK_SESSIONS = 1000
PROFILE_POINTS = {"talking": 6, "idle": 40, "broadcast": 100}
SYNC_SESSIONS = 4


def main() -> int:
    """Measures and reports; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scenario", nargs="+", choices=DEFAULT_PARTS, default=DEFAULT_PARTS, metavar="NAME",
        help=f"any of: {', '.join(DEFAULT_PARTS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--points", nargs="+", type=int, help="numbers of viewers, all of which are measured;"
        " of a profile one for each of its scenarios")
    parser.add_argument("--seconds", type=float, default=20.0, help="each point is watched for so long (default: 20)")
    parser.add_argument("--sessions", type=int, default=SOAK_SESSIONS, help="of the soak (default: 1000)")
    parser.add_argument("--workers", help="the server's option of the same name (default: auto; another tree's own)")
    parser.add_argument("--crowd", type=int, default=0, help="processes of viewers (default: one for every 60)")
    parser.add_argument("--tree", type=Path, default=REPOSITORY, help="another checkout whose server is measured")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the figures go (default: .bench/load.json)")
    parser.add_argument("server", nargs="*", metavar="OPTION", help="further options of the server, after --")
    args = parser.parse_args()
    started_s = time.monotonic()
    workers = args.workers or ("auto" if args.tree == REPOSITORY else "")
    options = (*(("--workers", workers) if workers else ()), *args.server)
    report = Report(setup={"machine": machine(), "load_before": os.getloadavg()[0], "server_options": options})
    with tempfile.TemporaryDirectory(prefix="visavis-load-") as folder:
        setting = Setting(Path(folder), args.seconds, tree=args.tree, options=options, processes=args.crowd, say=_say)
        for part, work in _parts(report, setting, args.points, args.sessions, args.output).items():
            if part in args.scenario:
                _measure(report, part, work)
    report.setup["duration_s"] = round(time.monotonic() - started_s, 1)
    report.write(args.output)
    print(report.table())
    for part, reason in report.not_measured.items():
        print(f"{part}: not measured: {reason}")
    print(f"{report.setup['duration_s']:.0f} s; written to {args.output}")
    return 1 if report.not_measured else 0


def _parts(
    report: Report, setting: Setting, points: list[int] | None, sessions: int, output: Path
) -> dict[str, Callable[[], None]]:
    """What can be measured, in this order."""

    def ramp(name: str) -> None:
        report.ours[name] = scenarios.climb(name, setting, points or SCENARIOS[name], to_the_end=bool(points))

    def baseline() -> None:
        usual = replace(setting, module=RIVAL, tree=REPOSITORY, options=())
        for name, steps in RIVAL_POINTS.items():
            setting.say(f"the usual design, {name}")
            report.rival[name] = scenarios.climb(name, usual, points or steps, to_the_end=bool(points))

    def in_step() -> None:
        # Frames are stamped in one process, not in those that it starts.
        alone = replace(setting, options=(*setting.options, "--workers", "1"))
        report.sync = sync(alone, (points or [SYNC_SESSIONS])[-1])

    def profiles() -> None:
        for name, count in zip(PROFILE_POINTS, points or PROFILE_POINTS.values(), strict=False):
            report.profiles[name] = _profile(name, setting, count, output)

    def soaking() -> None:
        report.soak = soak(setting, sessions)

    return {
        **{name: lambda name=name: ramp(name) for name in SCENARIOS},  # type: ignore[misc]
        "baseline": baseline,
        "sync": in_step,
        "profile": profiles,
        "soak": soaking,
    }


def _profile(name: str, setting: Setting, count: int, output: Path) -> dict[str, object]:
    stacks = output.with_name(f"{output.stem}-profile-{name}.txt")
    stacks.parent.mkdir(parents=True, exist_ok=True)
    with Scene(name, setting, count) as scene:
        scene.gather(count)
        watch = scene.crowd.start(setting.seconds)
        profile.sample(scene.server.pid, setting.seconds, stacks)
        watch()
    return {"viewers": count, **profile.costs(stacks.read_text("utf-8", "replace").splitlines())}


def _measure(report: Report, part: str, work: Callable[[], None]) -> None:
    _say(f"measuring {part} …")
    try:
        work()
    except (ServerFailed, CrowdFailed, profile.NoProfiler) as error:
        report.not_measured[part] = str(error)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
