"""A server process to measure, and what it costs the machine.

Place in the flow: live.py -> ServerProcess -> ``python -m server`` (or the stamped one of probe_server.py).

Invariants: the process is ended with the measurement; figures come from /proc and count all its threads.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]
PRODUCT = "server"
PROBE = "tests.benchmarks.probe_server"
TRACE = "tests.benchmarks.trace_server"
DIARY_MARK = "diary "
"""What lines of the trace server's diary begin with."""
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0

_TICKS_S = 1 / os.sysconf("SC_CLK_TCK")
_METRIC = re.compile(r"^(visavis_\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


class ServerFailed(Exception):
    """The server did not come up, or went away; the message ends with its last words."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A moment in the life of a process.

    Attributes:
        at_s: monotonic time.
        cpu_s: processor time used so far, all threads.
        machine_busy_s: processor time used so far by everything on the machine.
    """

    at_s: float
    cpu_s: float
    machine_busy_s: float


class ServerProcess:
    """Starts a server, waits until it is healthy, ends it."""

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
        self._log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        started_s = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "--host", "127.0.0.1", "--port", str(self.port), *arguments],
                cwd=tree,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - started_s
        """From the start of the process to its first healthy answer, seconds."""

    def __enter__(self) -> Self:
        return self

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _wait_until_healthy(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                raise ServerFailed(f"The server ended with status {self._process.returncode}:\n{self.last_words()}")
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise ServerFailed(f"The server was not healthy within {START_TIMEOUT_S:.0f} s:\n{self.last_words()}")

    def output(self) -> str:
        """What it has written so far."""
        return self._log.read_text("utf-8", "replace")

    def diary(self) -> list[dict[str, Any]]:
        """What the trace server has noted so far."""
        lines = (line for line in self.output().splitlines() if line.startswith(DIARY_MARK))
        return [json.loads(line[len(DIARY_MARK) :]) for line in lines]

    def last_words(self, lines: int = 12) -> str:
        """The end of its output."""
        return "\n".join(self.output().splitlines()[-lines:])

    def stop(self) -> None:
        """Ends it; idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def memory_mb(self) -> dict[str, float]:
        """Resident memory in MB now (``now``) and at its most (``peak``)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()

        def field(name: str) -> float:
            found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
            return round(int(found[1]) / 1024, 1) if found else 0.0

        return {"now": field("VmRSS"), "peak": field("VmHWM")}

    def usage(self) -> Usage:
        """Processor time so far."""
        # The name in parentheses may hold spaces; the fields after it are numbered from 3 in proc(5).
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) * _TICKS_S
        user, nice, system, _idle, _wait, irq, softirq, *_ = map(
            int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        )
        return Usage(time.monotonic(), cpu_s, (user + nice + system + irq + softirq) * _TICKS_S)

    def metrics(self) -> dict[str, float]:
        """Its own counters: sums, counts and plain values of /metrics, without histogram buckets."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as response:
            text = response.read().decode()
        return {
            name + (labels or ""): float(value)
            for name, labels, value in _METRIC.findall(text)
            if not name.endswith(("_bucket", "_created"))
        }
