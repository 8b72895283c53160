"""A cluster of several nodes on one machine: real Ray nodes and real gateways, to try things out and for tests.

Place in the flow: ``make cluster``, tests -> ``LocalCluster`` -> ``ray.cluster_utils`` and ``python -m server``.

Invariant: everything that was started ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.errors import BackendFailed
from server.cluster.ray_node import OBJECT_STORE_BYTES, ROOT, STOP_S, environment, load_ray
from server.cluster.settings import Settings

START_S = 120.0


class LocalCluster:
    """A head without resources, so many nodes with room for so many workers, and gateways."""

    def __init__(self, config: Config, nodes: int, workers_on_each: int = 1) -> None:
        """Starts head and nodes.

        Args:
            config: options; those that were set are the gateways'.
            nodes: how many.
            workers_on_each: for how many workers each has room.
        """
        load_ray()
        # Only now: Ray reads its variables when it is imported.
        from ray.cluster_utils import Cluster

        self._config = config
        self._room = {
            "num_cpus": workers_on_each * config.worker_cpus,
            "num_gpus": workers_on_each * config.worker_gpus,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        self._ray = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = [self._ray.add_node(wait=False, **self._room) for _ in range(nodes)]
        self._ray.wait_for_nodes(START_S)
        self.gateways: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """Of the cluster, for ``RAY_ADDRESS``."""
        return self._ray.address

    def add_node(self) -> None:
        """Starts one more node."""
        self.nodes.append(self._ray.add_node(wait=True, **self._room))

    def kill_node(self, index: int) -> None:
        """Ends all processes of a node at once, as a machine that loses its power does."""
        node = self.nodes.pop(index)
        # Ray would leave the actors a few seconds to notice.
        for started in node.all_processes.get("raylet", ()):
            for pid in _children(started.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._ray.remove_node(node, allow_graceful=False)

    def start_gateway(self, port: int, *words: str) -> str:
        """Starts a gateway; the address of its page. See ``wait_for_gateways``."""
        said = [word for name, value in _set_options(self._config).items() for word in (f"--{name}", value)]
        command = [sys.executable, "-m", "server", *said, "--cluster", "auto", "--port", str(port), *words]
        self.gateways.append(
            subprocess.Popen(command, cwd=ROOT, env={**environment(), "RAY_ADDRESS": self.address})
        )
        return f"http://127.0.0.1:{port}"

    def wait_until_ready(self, addresses: Sequence[str], timeout_s: float = START_S) -> None:
        """Returns when all pages are there.

        Raises:
            BackendFailed: ``gateway_missing``.
        """
        until_s = time.monotonic() + timeout_s
        for address in addresses:
            while not _answers(f"{address}/healthz"):
                if time.monotonic() >= until_s or any(it.poll() is not None for it in self.gateways):
                    raise BackendFailed("gateway_missing", f"No gateway answers at {address}; the log says why.")
                time.sleep(0.2)

    def close(self) -> None:
        """Ends everything. Idempotent."""
        for gateway in self.gateways:
            gateway.terminate()
        for gateway in self.gateways:
            try:
                gateway.wait(STOP_S)
            except subprocess.TimeoutExpired:
                gateway.kill()
        self.gateways.clear()
        with contextlib.suppress(Exception):  # whatever is left of nodes that were killed
            self._ray.shutdown()


def run(config: Config, nodes: int, gateways: int) -> int:
    """Starts it, prints where the page is, and waits to be interrupted."""
    cluster = LocalCluster(config, max(1, nodes))
    try:
        addresses = [cluster.start_gateway(config.port + number) for number in range(max(1, gateways))]
        cluster.wait_until_ready(addresses)
        print(f"A cluster of {nodes} nodes is ready: {', '.join(addresses)}")
        print(f"RAY_ADDRESS={cluster.address} python -m server.cluster status", flush=True)
        for gateway in cluster.gateways:
            gateway.wait()
    finally:
        cluster.close()
    return 0


def _set_options(config: Config) -> dict[str, str]:
    """The options that were set, as flags."""
    said = json.loads(Settings.of(config).options)
    flags = {}
    for name, value in said.items():
        flags[name.replace("_", "-")] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return flags


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return response.status == 200
    except OSError:
        return False
