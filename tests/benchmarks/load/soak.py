"""A thousand sessions, one after the other: does anything stay behind?

Place in the flow: ``__main__`` -> ``soak`` -> samples of memory, threads, tasks and files -> ``verdict``.

Every session is a whole one: offer, connection, first complete picture, farewell. What is sampled is sampled while
nobody is there, after a pause in which whatever a session left behind has had time to go.

Invariants: growth is judged after a first fifth, in which caches fill, and by all samples, not by two moments; of
memory only what was allocated counts, because pages of mapped files come and go with others who use them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tests.benchmarks.load.client import Door
from tests.benchmarks.load.crowd import Crowd
from tests.benchmarks.load.scenarios import Setting
from tests.benchmarks.load.server import LoadedServer

SAMPLE_EVERY = 25
PAUSE_S = 1.0
"""Longer than a session's end takes, whose connection is let go a moment after its place is free."""
LEAST_SESSIONS = 300
"""Fewer do not tell growth from the filling of caches."""
FLAT = {"own_mb": 2.0, "threads": 1.0, "tasks": 1.0, "files": 1.0}
"""So much may a figure grow over a thousand sessions and still be called flat."""
MOST_RISE_MB = 32.0
"""So much may memory have risen in all: a few steps of an allocator."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The server with nobody there.

    Attributes:
        sessions: how many have come and gone.
        pss_mb, own_mb, rss_mb: memory of all its processes, the part that was allocated, and that of the largest.
        threads, files: of all its processes.
        tasks: of its event loops.
        at_s: since the first session.
    """

    sessions: int
    pss_mb: float
    own_mb: float
    rss_mb: float
    threads: int
    files: int
    tasks: float
    at_s: float


def soak(setting: Setting, sessions: int) -> dict[str, Any]:
    """Opens and closes sessions.

    Raises:
        ServerFailed, CrowdFailed: the server or a session did not come.
    """
    samples: list[Sample] = []
    with LoadedServer(setting.folder / "soak.log", setting.module, setting.options, setting.tree) as server:
        with Crowd(1) as crowd:
            door = Door(server.url)
            started_s = time.monotonic()

            def sample(count: int) -> None:
                time.sleep(PAUSE_S)
                cost = server.cost()
                samples.append(Sample(
                    count, cost.pss_mb, cost.own_mb, cost.rss_mb, cost.threads, cost.files,
                    server.metrics().get("visavis_tasks", 0.0), round(time.monotonic() - started_s, 1),
                ))  # fmt: skip
                setting.say(str(samples[-1]))

            for count in range(1, sessions + 1):
                crowd.open_to(1, door)
                crowd.first_pictures()
                crowd.close_to(0)
                if count % SAMPLE_EVERY == 0 or count == 1:
                    sample(count)
            seconds = time.monotonic() - started_s
    return {
        "sessions": sessions,
        "seconds": round(seconds, 1),
        **verdict([asdict(one) for one in samples]),
        "samples": [asdict(one) for one in samples],
    }


def verdict(samples: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Growth per thousand sessions after the first fifth, how far memory rose in all, and whether that is flat.

    Args:
        samples: with ``sessions`` and the figures of ``FLAT``.
    """
    last = samples[-1]["sessions"]
    counted = [sample for sample in samples if sample["sessions"] >= last / 5]
    if last < LEAST_SESSIONS or len(counted) < 3:
        return {"growth_per_1000": None, "rise_mb": None, "flat": None}
    at = np.array([sample["sessions"] for sample in counted], float)
    growth = {}
    for name in FLAT:
        values = np.array([sample[name] for sample in counted], float)
        growth[name] = 1000 * (_usual_step(at, values) if name == "own_mb" else _slope(at, values))
    rise_mb = counted[-1]["own_mb"] - counted[0]["own_mb"]
    share = min(1.0, last / 1000)
    flat = rise_mb <= MOST_RISE_MB and all(growth[name] * share <= most for name, most in FLAT.items())
    rounded = {name: round(value, 2) + 0.0 for name, value in growth.items()}
    return {"growth_per_1000": rounded, "rise_mb": round(rise_mb, 1), "flat": flat}


def _usual_step(x: np.ndarray, y: np.ndarray) -> float:
    """The median slope from sample to sample: what every session leaves behind is in every step, and what an
    allocator takes once, at a moment when much happened together, is in one."""
    return float(np.median(np.diff(y) / np.diff(x)))


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """The median of the slopes between all pairs (Theil and Sen): one odd sample changes nothing."""
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))
