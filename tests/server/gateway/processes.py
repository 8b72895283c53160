"""What tests know of a server's processes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def worker_pids(gateway: int) -> dict[str, int]:
    """The workers below a gateway's process by name: the socket of each is called like it."""
    found = {}
    for child in psutil.Process(gateway).children(recursive=True):
        # One that ends meanwhile is none of them any more.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "server.worker" in child.cmdline():
                sockets = [Path(it.laddr).name for it in child.net_connections("unix") if "visavis-" in str(it.laddr)]
                found |= {name: child.pid for name in sockets if name}
    return found
