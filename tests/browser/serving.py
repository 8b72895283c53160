"""The real server in a process of its own, as the browser tests meet it.

Place in the flow: fixtures of the browser tests -> ``serving`` -> ``python -m server`` on a port of its own.

Invariants: it answers when ``serving`` hands it out, and is gone, whatever it did, when ``serving`` ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60.0
END_S = 15.0


@dataclass
class Server:
    """A running server.

    Attributes:
        url: of the page, with a trailing slash.
        process: the server itself.
        data_dir: where it keeps what it was given.
    """

    url: str
    process: subprocess.Popen[bytes]
    data_dir: Path


def free_port() -> int:
    """A TCP port of this machine that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(data_dir: Path, port: int | None = None, **options: object) -> Iterator[Server]:
    """A server.

    Args:
        data_dir: where it keeps what it is given, and its log.
        port: its port; a free one when left out.
        options: of the configuration.
    """
    port = port or free_port()
    settings = {"port": port, "data_dir": data_dir, **options}
    environment = os.environ | {f"VISAVIS_{name.upper()}": str(value) for name, value in settings.items()}
    log = data_dir / "log.txt"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server"], cwd=REPOSITORY, env=environment, stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_until_healthy(url, process, log)
        yield Server(url, process, data_dir)
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        assert process.poll() is None, f"the server ended:\n{log.read_text()}"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}healthz", timeout=2).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"the server is not healthy after {START_S} s:\n{log.read_text()}")
