"""Runs the candidates against each other in short slices, round after round, so that a busy machine hits all alike.

Place in the flow: candidates + folder of the run -> worker processes -> ``Row``s.

Invariants:
    * one candidate computes at a time; the others wait without using the processor;
    * a ratio is taken within a round, between slices that lie seconds apart, and the median over rounds counts;
    * a round in which somebody else used the cores is run again, as long as patience lasts, and counts only when there
      are none better;
    * a candidate that fails is a row with the reason, and costs the others nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from engine.bench.candidates import Candidate
from engine.bench.worker import Order

SLICE_S = 0.7
QUIET = 0.15
"""Share of the cores that others may use in a round that counts."""
_PATIENCE = 2
"""Times as many rounds at most."""
_TOPOLOGY = Path("/sys/devices/system/cpu")
_GOODBYE_S = 10.0


class WorkerFailed(Exception):
    """A worker ended or said nothing sensible; the message is its last line."""


class Contestant(Protocol):
    """A candidate about to compute; every call raises ``WorkerFailed`` when it cannot."""

    def wait(self) -> None:
        """Until it is ready."""
        ...

    def fps(self, seconds: float) -> tuple[float, float]:
        """Frames a second over a slice, and the share of the cores that others used meanwhile."""
        ...

    def pixels(self) -> np.ndarray:
        """(N, h, w, 3) uint8, the pasted rows of all material."""
        ...

    def memory_mb(self) -> float:
        """Resident memory."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class Worker:
    """A contestant in a process of its own."""

    def __init__(self, order: Order) -> None:
        """Starts the process, which loads meanwhile; ``wait`` until it is ready."""
        threads = str(order.threads)
        self._scratch = order.scratch
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "engine.bench.worker", order.to_json()], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._log, text=True, bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )  # fmt: skip

    def wait(self) -> None:
        """See ``Contestant``."""
        self._answer()

    def fps(self, seconds: float) -> tuple[float, float]:
        """See ``Contestant``."""
        answer = self._ask(str(seconds))
        return float(answer["fps"]), float(answer["others"])

    def pixels(self) -> np.ndarray:
        """See ``Contestant``."""
        path = self._scratch / f"pixels-{self._process.pid}.npy"
        self._ask(f"draw {path}")
        pixels = np.load(path)
        path.unlink()
        return pixels

    def memory_mb(self) -> float:
        """See ``Contestant``."""
        return float(self._ask("memory")["memory_mb"])

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def _ask(self, command: str) -> dict[str, Any]:
        try:
            print(command, file=self._process.stdin, flush=True)
        except (BrokenPipeError, ValueError):
            raise WorkerFailed(self._last_line()) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise WorkerFailed(self._last_line()) from None
        return answer

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "the process ended without a word")


@dataclass(slots=True)
class Row:
    """What was measured of one candidate.

    Attributes:
        candidate: which one.
        fps: frames a second, by number of cores; 0 stands for a GPU.
        ratio: times the baseline's, likewise.
        psnr_db: of its pasted pixels against the baseline's; None for the baseline itself.
        memory_mb: resident memory of its process.
        others: share of the cores that others used in the rounds that count, on average, by number of cores.
        failed: why there are no figures; empty when there are.
    """

    candidate: Candidate
    fps: dict[int, float] = field(default_factory=dict)
    ratio: dict[int, float] = field(default_factory=dict)
    psnr_db: float | None = None
    memory_mb: float = 0.0
    others: dict[int, float] = field(default_factory=dict)
    failed: str = ""


def race(
    candidates: Sequence[Candidate], weights: Path | None, scratch: Path, cpus: Sequence[int], rounds: int,
    slice_s: float = SLICE_S, start: Callable[[Order], Contestant] | None = None,
) -> list[Row]:
    """Measures candidates on some cores.

    Args:
        candidates: the baseline first.
        weights: folder of Wav2Lip weights, or None for the built-in model.
        scratch: folder with what ``runners.open_runner`` needs.
        cpus: the cores; empty for a GPU, whose host threads may run anywhere.
        rounds: slices of each candidate.
        slice_s: least length of a slice, seconds.
        start: makes contestants; processes when None.

    Returns:
        One row per candidate, in order.
    """  # fmt: skip
    rows = [Row(candidate) for candidate in candidates]
    with ExitStack() as stack:
        running: dict[int, Contestant] = {}
        orders = [Order(candidate, weights, scratch, tuple(cpus)) for candidate in candidates]
        for index, contestant in enumerate([(start or Worker)(order) for order in orders]):
            stack.callback(contestant.close)
            running[index] = contestant
        for index, contestant in list(running.items()):
            _try(rows[index], running, index, contestant.wait)
        speeds, others = _rounds(rows, running, rounds, slice_s)
        exact = _try(rows[0], running, 0, running[0].pixels) if 0 in running else None
        for index, contestant in list(running.items()):
            _write(rows[index], len(cpus), speeds[:, index], speeds[:, 0])
            rows[index].others[len(cpus)] = others
            rows[index].memory_mb = _try(rows[index], running, index, contestant.memory_mb) or 0.0
            if index and exact is not None:
                drawn = _try(rows[index], running, index, contestant.pixels)
                rows[index].psnr_db = None if drawn is None else psnr_db(exact, drawn)
    return rows


def _rounds(
    rows: Sequence[Row], running: dict[int, Contestant], rounds: int, slice_s: float
) -> tuple[np.ndarray, float]:
    """The rounds that count: (rounds, rows) frames a second, NaN for those that fail, and the share others had."""
    speeds: list[list[float]] = []
    others: list[float] = []
    while len(speeds) < rounds * _PATIENCE and sum(share <= QUIET for share in others) < rounds:
        speeds.append([float("nan")] * len(rows))
        worst = 0.0
        for index, contestant in list(running.items()):
            measured = _try(rows[index], running, index, lambda one=contestant: one.fps(slice_s))  # type: ignore[misc]
            if measured is not None:
                speeds[-1][index] = measured[0]
                worst = max(worst, measured[1])
        others.append(worst)
    best = np.sort(np.argsort(others, kind="stable")[:rounds])
    return np.array(speeds)[best], float(np.mean(np.array(others)[best]))


def _try(row: Row, running: dict[int, Contestant], index: int, ask: Callable[[], Any]) -> Any:
    """What a contestant answers, or None when it failed; it is out of the race then."""
    try:
        return ask()
    except WorkerFailed as error:
        row.failed = str(error)
        running.pop(index, None)
        return None


def _write(row: Row, cores: int, speeds: np.ndarray, baseline: np.ndarray) -> None:
    row.fps[cores] = float(np.median(speeds))
    if not np.isnan(baseline).any():
        row.ratio[cores] = float(np.median(speeds / baseline))


def psnr_db(exact: np.ndarray, other: np.ndarray) -> float:
    """Of pictures of uint8, against the exact ones; 99 for equal ones."""
    squares = np.mean((exact.astype(np.float32) - other.astype(np.float32)) ** 2)
    return min(99.0, float(10 * np.log10(255**2 / max(float(squares), 1e-9))))


def merged(one: Sequence[Row], other: Sequence[Row]) -> list[Row]:
    """The rows of two races of the same material as one list; figures of both where a candidate ran in both."""
    known: Mapping[Candidate, Row] = {row.candidate: row for row in one}
    both = list(one)
    for row in other:
        if (same := known.get(row.candidate)) is None:
            both.append(row)
            continue
        same.fps.update(row.fps)
        same.ratio.update(row.ratio)
        same.others.update(row.others)
        same.memory_mb = max(same.memory_mb, row.memory_mb)
        same.failed = same.failed or row.failed
    return both


def separate_cores(count: int) -> list[int]:
    """Up to ``count`` of the cores this process may use, no two of them threads of one core."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    chosen: list[int] = []
    seen: set[str] = set()
    for cpu in allowed:
        try:
            core = (_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            core = str(cpu)
        if core not in seen:
            seen.add(core)
            chosen.append(cpu)
    return chosen[:count]
