"""What a run found: load.json, the table on standard output, and plots.

Place in the flow: points of each scenario -> ``Report`` -> files.

Invariants: a figure that was not measured is null and its reason is told; ours and the usual design are told by the
same figures, from the same run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.benchmarks.load.plots import Panel, sheet
from tests.benchmarks.load.ramp import FLOOR_FPS, FLOOR_LATE_MS, Point
from tests.benchmarks.load.scenarios import largest

KEYS = {"talking": "talking_sessions", "idle": "idle_sessions", "broadcast": "broadcast_viewers"}
GOALS = {"talking": 6, "idle": 40, "broadcast": 100}
_TITLES = {
    "talking": "sessions that all talk",
    "idle": "sessions that are silent",
    "broadcast": "viewers of one session that talks",
}


@dataclass
class Report:
    """What was measured so far.

    Attributes:
        ours, rival: points of each scenario, of the product and of the usual design.
        soak, sync: what these measured.
        profiles: costs by scenario.
        not_measured: reasons by what failed.
        setup: what it was measured on, and how.
    """

    ours: dict[str, list[Point]] = field(default_factory=dict)
    rival: dict[str, list[Point]] = field(default_factory=dict)
    soak: dict[str, Any] | None = None
    sync: dict[str, Any] | None = None
    profiles: dict[str, Any] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Everything for load.json: the figures with a goal first."""
        return {
            **_numbers(self.ours),
            "per_session": {name: _each(points) for name, points in self.ours.items()},
            "baseline": {
                **_numbers(self.rival),
                "per_session": {name: _each(points) for name, points in self.rival.items()},
                "points": {name: [point.to_dict() for point in points] for name, points in self.rival.items()},
            },
            "floor": {"fps": FLOOR_FPS, "freezes": 0, "late_ms_p95": FLOOR_LATE_MS},
            "points": {name: [point.to_dict() for point in points] for name, points in self.ours.items()},
            "soak": self.soak,
            "sync": self.sync,
            "profiles": self.profiles,
            "not_measured": self.not_measured,
            **self.setup,
            "method": "tests/benchmarks/README.md",
        }

    def write(self, output: Path) -> None:
        """Writes load.json and, beside it, the plots."""
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(self.figures(), indent=2) + "\n")
        if self.ours or self.rival:
            cv2.imwrite(str(output.with_name(f"{output.stem}-ramps.png")), self._ramps())
        if self.soak is not None:
            cv2.imwrite(str(output.with_name(f"{output.stem}-soak.png")), _soak_plot(self.soak["samples"]))

    def _ramps(self) -> np.ndarray:
        rows = []
        for name in KEYS:
            if name not in self.ours and name not in self.rival:
                continue
            both = {"Visavis": self.ours.get(name, []), "usual design": self.rival.get(name, [])}

            def curves(key: str, both: dict[str, list[Point]] = both) -> dict[str, list[tuple[float, float]]]:
                return {who: [(p.viewers, getattr(p, key)) for p in points] for who, points in both.items() if points}

            rows.append([
                Panel(f"{name}: fresh pictures a second, worst", curves("fresh_fps"), FLOOR_FPS),
                Panel(f"{name}: lateness p95 ms, worst", curves("late_ms_p95"), FLOOR_LATE_MS, 4 * FLOOR_LATE_MS),
                Panel(f"{name}: server CPU, % of a core", curves("cpu_percent")),
                Panel(f"{name}: server memory, MB", curves("pss_mb")),
            ])  # fmt: skip
        return sheet(rows)

    def table(self) -> str:
        """For people."""
        lines = [f"{'':36}{'measured':>9}   {'goal':7}{'':13}{'usual design':>12}   {'times':>5}"]
        ours, theirs = _numbers(self.ours), _numbers(self.rival)
        for name, key in KEYS.items():
            value, other = ours[key], theirs[key]
            if value is None and other is None:
                continue
            goal = GOALS[name]
            verdict = "" if value is None else ("reached" if value >= goal else "NOT REACHED")
            times = f"{value / other:.1f}" if value and other else "–"
            lines.append(
                f"{_TITLES[name]:36}{_shown(value):>9}   {f'≥ {goal}':7}{verdict:13}{_shown(other):>12}   {times:>5}"
            )
        for name in KEYS:
            for label, points in (("", self.ours.get(name)), ("usual design, ", self.rival.get(name))):
                if points:
                    each = _each(points)
                    lines.append(
                        f"{label}{name}: {_shown(each['cpu_percent'])} % of a core and {_shown(each['pss_mb'])} MB each"
                        f" at {each['viewers']}; viewers cost {_shown(each['crowd_percent'])} % each"
                    )
        if self.sync is not None:
            lines.append(_in_step(self.sync))
        if self.soak is not None:
            flat = {True: "flat", False: "NOT FLAT", None: "too few to tell"}[self.soak["flat"]]
            lines.append(
                f"{self.soak['sessions']} sessions one after another: {flat}; memory rose by {self.soak['rise_mb']} MB;"
                f" growth per 1,000: {self.soak['growth_per_1000']}"
            )
        for name, profile in self.profiles.items():
            first = ", ".join(f"{place} {share:.0f} %" for place, share in list(profile["places"].items())[:3])
            lines.append(f"largest costs, {name} {profile['viewers']}: {first}")
        return "\n".join(lines)


def _numbers(measured: dict[str, list[Point]]) -> dict[str, int | None]:
    return {key: largest(measured[name]) if name in measured else None for name, key in KEYS.items()}


def _each(points: Sequence[Point]) -> dict[str, float | None]:
    """What one viewer costs: processor time at the largest point that held, memory as a slope over the ramp."""
    held = [point for point in points if point.holds] or list(points)[:1]
    most = held[-1]
    slope = None
    if len(points) > 1 and points[-1].viewers > points[0].viewers:
        x, y = (np.array([getattr(point, key) for point in points], float) for key in ("viewers", "pss_mb"))
        slope = round(float(np.polyfit(x, y, 1)[0]), 2)
    return {
        "viewers": most.viewers,
        "cpu_percent": most.cpu_percent_each,
        "crowd_percent": round(most.crowd_percent / most.viewers, 2),
        "pss_mb": slope,
        "pss_mb_total": most.pss_mb,
        "kbps": most.kbps,
    }


def _in_step(sync: dict[str, Any]) -> str:
    def worst(key: str) -> str:
        return _shown(max((one[key] for one in sync["witnesses"] if one[key] is not None), key=abs, default=None))

    return (
        f"{sync['sessions']} that talk, decoded: sound after picture {worst('av_played_ms')} ms as played,"
        f" {worst('av_arrival_ms')} ms by arrival; age of a picture {worst('age_ms_p50')} ms"
    )


def _soak_plot(samples: Sequence[dict[str, float]]) -> np.ndarray:
    def panel(title: str, *keys: str) -> Panel:
        return Panel(title, {key: [(s["sessions"], s[key]) for s in samples] for key in keys}, across="sessions")

    return sheet([
        [panel("memory with nobody there, MB", "pss_mb", "own_mb"), panel("threads", "threads")],
        [panel("open files", "files"), panel("tasks", "tasks")],
    ])  # fmt: skip


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
