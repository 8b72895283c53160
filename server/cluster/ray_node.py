"""Becoming part of a Ray cluster: the one this machine is in, another one, or a new one of its own.

Place in the flow: ``--cluster ADDRESS`` -> ``join`` -> everything else here can use Ray.

Invariants:
    * nothing is told to Ray's authors: its usage statistics are off, whatever the machine says;
    * a gateway that joins takes none of the cluster's work;
    * whatever was started here ends with this process.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from engine.errors import BackendFailed, ConfigInvalid

NAMESPACE = "visavis"
"""Names of our actors are apart from those of others who use the same cluster."""
OBJECT_STORE_BYTES = 80_000_000
"""About the least that Ray accepts: no frame and no sound ever goes through its store."""
STOP_S = 5.0
ROOT = Path(__file__).resolve().parents[2]

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray keeps an idle Python process for each core, 80 MB each; actors come at once only when there is a crowd.
    "RAY_prestart_worker_first_driver": "0",
    # A machine that stops answering is given up after 5 s, not after a quarter of a minute.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1500",
    "RAY_health_check_failure_threshold": "4",
}


def environment() -> dict[str, str]:
    """Variables for processes of Ray that are started here; what is set already counts more, but for the statistics."""
    return {**_ENVIRONMENT, **os.environ, "RAY_USAGE_STATS_ENABLED": "0"}


def load_ray() -> ModuleType:
    """The package ``ray``.

    Raises:
        ConfigInvalid: ``ray_missing``.
    """
    os.environ.update({name: value for name, value in environment().items() if name in _ENVIRONMENT})
    try:
        import ray
    except ImportError as error:
        raise ConfigInvalid(
            "ray_missing",
            "Many machines need Ray, which is not installed: python -m pip install -r server/cluster/requirements.txt",
        ) from error
    return ray


def join(address: str) -> Node:
    """Connects this process to a cluster.

    Args:
        address: ``local`` starts one here, ``auto`` is the one this machine is in (or what ``RAY_ADDRESS`` says),
            ``host:port`` another one, of which this machine becomes a part.

    Raises:
        ConfigInvalid: ``ray_missing``.
        BackendFailed: ``cluster_unreachable``.
    """
    ray = load_ray()
    # Not for whoever runs this: how it is joined is our business.
    logging.getLogger("ray").setLevel(logging.ERROR)
    own = None if address in ("local", "auto") else _start_node(address)
    options = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            **options,
        )
    except Exception as error:  # Ray raises ConnectionError, ValueError or RuntimeError for what is the same to us
        _stop_node(own)
        raise _unreachable(address, str(error)) from error
    return Node(own)


class Node:
    """This process's part in a cluster."""

    def __init__(self, own: subprocess.Popen[bytes] | None) -> None:
        """Args: own: a node of the cluster that was started on this machine for it."""
        self._own = own

    def leave(self) -> None:
        """Disconnects; ends the node, or the cluster, that was started for this process."""
        load_ray().shutdown()
        _stop_node(self._own)
        self._own = None


def ray_command(*words: str) -> list[str]:
    """A command of Ray's, with the Python that runs this."""
    return [sys.executable, "-m", "ray.scripts.scripts", *words]


def _start_node(address: str) -> subprocess.Popen[bytes]:
    """Makes this machine a node without resources. Ray waits for it when it connects."""
    return subprocess.Popen(
        ray_command(
            "start", "--block", f"--address={address}", "--num-cpus=0", "--num-gpus=0",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
        ),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _stop_node(own: subprocess.Popen[bytes] | None) -> None:
    if own is not None:
        own.terminate()
        try:
            own.wait(STOP_S)
        except subprocess.TimeoutExpired:
            own.kill()


def _unreachable(address: str, reason: str) -> BackendFailed:
    return BackendFailed(
        "cluster_unreachable",
        f"No Ray cluster can be joined at {address}: {reason or 'no answer'}. Start one with ray start --head, or use"
        " --cluster local; a cluster whose Ray asks for a token needs it here too (RAY_AUTH_TOKEN).",
    )
