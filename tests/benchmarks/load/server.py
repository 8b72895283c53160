"""A server to load, started as anybody would start it, and what all its processes cost.

Place in the flow: ramp -> ``LoadedServer`` -> ``python -m server`` (or the rivals' design, see ``rival``).

Invariants: every process that the server has started is counted, and is gone when the measurement is.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.serving import PRODUCT, REPOSITORY, ServerFailed, ServerProcess

_WORKER = re.compile(r'worker="[^"]*",?')
_TICKS_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """All processes of a server at one moment.

    Attributes:
        at_s: monotonic time.
        cpu_s: processor time used so far, processes that have ended included where their parent waited for them.
        machine_busy_s: processor time used so far by everything on the machine.
        pss_mb: memory, what is shared divided among those who share it.
        own_mb: the part of it that is nobody's file: what was allocated.
        rss_mb: memory of the largest process alone.
        threads, files: threads and open file descriptors.
        processes: how many there are.
    """

    at_s: float
    cpu_s: float
    machine_busy_s: float
    pss_mb: float
    own_mb: float
    rss_mb: float
    threads: int
    files: int
    processes: int


class LoadedServer(ServerProcess):
    """A server whose children count, too."""

    def __init__(
        self, log: Path, module: str = PRODUCT, arguments: tuple[str, ...] = (), tree: Path = REPOSITORY
    ) -> None:
        """
        Args:
            log: where its output goes.
            module: what to run.
            arguments: options besides host and port.
            tree: the checkout it is started in.
        """
        super().__init__(log, module, arguments, tree)

    def cost(self) -> Cost:
        """What it has cost so far, and what it holds."""
        family = list(_family(self.pid))
        memory = [_memory_mb(pid) for pid in family]
        return Cost(
            time.monotonic(),
            sum(map(_cpu_s, family)),
            self.usage().machine_busy_s,
            round(sum(one["Pss"] for one in memory), 1),
            round(sum(one["Pss_Anon"] for one in memory), 1),
            round(max((one["Rss"] for one in memory), default=0.0), 1),
            sum(_count(pid, "task") for pid in family),
            sum(_count(pid, "fd") for pid in family),
            len(family),
        )

    def metrics(self) -> dict[str, float]:
        """As of one process, added up over all of them where each tells its own.

        Raises:
            ServerFailed: it did not answer.
        """
        try:
            return added_up(super().metrics())
        except OSError as error:
            raise ServerFailed(f"The server does not tell its metrics ({error}):\n{self.last_words()}") from error

    def stop(self) -> None:
        """Ends it with everything it has started; idempotent."""
        family = list(_family(self.pid))
        super().stop()
        for pid in family[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _family(pid: int) -> Iterator[int]:
    """A process and all its descendants that live."""
    if not Path(f"/proc/{pid}").exists():
        return
    yield pid
    for task in _entries(Path(f"/proc/{pid}/task")):
        for child in _text(task / "children").split():
            yield from _family(int(child))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    # A process may end between two looks at it.
    try:
        return path.read_text()
    except OSError:
        return ""


def _cpu_s(pid: int) -> float:
    fields = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICKS_S if fields else 0.0


def _memory_mb(pid: int) -> dict[str, float]:
    text = _text(Path(f"/proc/{pid}/smaps_rollup"))
    found = {name: re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("Pss", "Pss_Anon", "Rss")}
    return {name: int(match[1]) / 1024 if match else 0.0 for name, match in found.items()}


def _count(pid: int, what: str) -> int:
    return len(_entries(Path(f"/proc/{pid}/{what}")))


def added_up(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without the label ``worker``, which a server of several processes puts first: sums over all workers."""
    sums: dict[str, float] = {}
    for name, value in metrics.items():
        plain = _WORKER.sub("", name).replace("{}", "")
        sums[plain] = sums.get(plain, 0.0) + value
    return sums


def difference(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float:
    """How much a counter of /metrics grew; 0 where there is none."""
    return after.get(name, 0.0) - before.get(name, 0.0)
