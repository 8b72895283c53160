"""``python -m engine.bench.worker``: one candidate in a process of its own, pinned to its cores, run slice by slice.

Place in the flow: race.py <-> standard input and output of this process.

Every answer is one line of JSON. Once ready it says ``{"ready": true}``. To a number of seconds it answers with frames
a second and the share of its cores that others used meanwhile, to ``draw FILE`` by writing the pasted rows of all
material to an ``.npy`` file, to ``memory`` with megabytes.

Invariants:
    * cores and threads are settled before any library that counts them is imported;
    * it computes only when told to, so that it never disturbs another candidate's slice.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.bench.candidates import Candidate
    from engine.bench.runners import Runner

_WARMUP_DRAWS = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told at its start.

    Attributes:
        candidate: the way to compute.
        weights: folder of Wav2Lip weights, or None for the built-in model.
        scratch: folder of the run.
        cpus: the cores it may use; all when empty.
    """

    candidate: Candidate
    weights: Path | None
    scratch: Path
    cpus: tuple[int, ...]

    @property
    def streams(self) -> int:
        """Calls at once."""
        return max(1, len(self.cpus)) if self.candidate.side_by_side else 1

    @property
    def threads(self) -> int:
        """Threads of one call."""
        return 1 if self.candidate.side_by_side else max(1, len(self.cpus))

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps({
            "candidate": asdict(self.candidate), "weights": self.weights and str(self.weights),
            "scratch": str(self.scratch), "cpus": self.cpus,
        })  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Order:
        """What ``to_json`` wrote."""
        from engine.bench.candidates import Candidate

        content = json.loads(text)
        weights = content["weights"] and Path(content["weights"])
        return cls(Candidate(**content["candidate"]), weights, Path(content["scratch"]), tuple(content["cpus"]))


class Work:
    """A runner, and the measuring of it."""

    def __init__(self, runner: Runner, count: int, batch: int, streams: int) -> None:
        """
        Args:
            runner: what is measured.
            count: rows of the material.
            batch, streams: pictures of a call, calls at once.
        """
        self._runner, self._count, self._batch = runner, count, batch
        self._pool = ThreadPoolExecutor(streams)
        self._streams = streams

    def warm_up(self) -> None:
        """Runs every stream a few times."""
        list(self._pool.map(self._draws, [_WARMUP_DRAWS] * self._streams))

    def slice(self, seconds: float) -> float:
        """Frames a second of all streams together, over at least one call of each."""
        return sum(self._pool.map(self._draw_for, [seconds] * self._streams))

    def draw_all(self) -> Any:
        """(N, h, w, 3) uint8 of all material."""
        import numpy as np

        rows = [self._batch_at(start) for start in range(0, self._count, self._batch)]
        return np.concatenate([self._runner.draw(some) for some in rows])[: self._count]

    def _batch_at(self, start: int) -> list[int]:
        return [(start + k) % self._count for k in range(self._batch)]

    def _draws(self, times: int) -> None:
        for _ in range(times):
            self._runner.draw(self._batch_at(0))

    def _draw_for(self, seconds: float) -> float:
        frames, started_s = 0, time.perf_counter()
        while True:
            self._runner.draw(self._batch_at(frames))
            frames += self._batch
            spent_s = time.perf_counter() - started_s
            if spent_s >= seconds:
                return frames / spent_s


class Others:
    """How much of some cores the rest of the machine uses."""

    def __init__(self, cpus: tuple[int, ...]) -> None:
        """Args: cpus: the cores; nothing is known of none."""
        self._names = {f"cpu{cpu}" for cpu in cpus}
        self._before = self._now()

    def share(self) -> float:
        """Of the cores' time since the last call, what went to others: 0 to 1; 0 where the system does not tell."""
        before, self._before = self._before, self._now()
        spent_s, busy_s, own_s = (now - then for now, then in zip(self._before, before, strict=True))
        return min(1.0, max(0.0, (busy_s - own_s) / max(1e-3, spent_s * max(1, len(self._names)))))

    def _now(self) -> tuple[float, float, float]:
        try:
            lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        except OSError:
            lines = []
        # user, nice, system, then idle and waiting, then interrupts and what other virtual machines took.
        ticks = sum(
            int(value) for name, *values in lines if name in self._names for value in (*values[:3], *values[5:8])
        )  # fmt: skip
        return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()


def memory_mb() -> float:
    """Resident memory of this process, MB; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
    except (OSError, StopIteration):
        return 0.0


def main() -> None:
    """Reads commands until standard input ends."""
    order = Order.from_json(sys.argv[1])
    if order.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, order.cpus)
    import numpy as np

    from engine.bench.material import Material
    from engine.bench.runners import MATERIAL_FILE, open_runner

    # Libraries may print to standard output; answers must not be mixed with that.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    runner = open_runner(order.candidate, order.weights, order.scratch, order.threads)
    count = len(Material.load(order.scratch / MATERIAL_FILE).mels)
    work = Work(runner, count, order.candidate.batch, order.streams)
    work.warm_up()
    others = Others(order.cpus)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "draw":
            np.save(argument, work.draw_all())
            print(json.dumps({"drawn": count}), file=answers)
        elif command == "memory":
            print(json.dumps({"memory_mb": memory_mb()}), file=answers)
        else:
            others.share()
            print(json.dumps({"fps": work.slice(float(command)), "others": others.share()}), file=answers)


if __name__ == "__main__":
    main()
