"""A media worker as a Ray actor: the worker application, told where it is, reporting to the directory.

Place in the flow: directory -> actor -> ``serve_worker``; gateways and browsers talk to it directly.

Invariants:
    * everything runs in the actor's event loop; Ray's own work is in threads of C++ beside it;
    * each life has a name of its own, so what was meant for an earlier one is never taken for this one's;
    * a worker that cannot go on ends its process, and Ray starts it again, not more often than every few seconds.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from engine.config import Config
from engine.errors import BackendFailed, VisavisError
from server.capacity import measured_places
from server.cluster.directory import Orders
from server.cluster.ray_fleet import DirectoryClient
from server.cluster.ray_node import load_ray
from server.cluster.roster import REPORT_S, Report
from server.cluster.settings import Settings
from server.cluster.worker_memory import WorkerMemory
from server.gateway.fleet import WorkerState
from server.log import start_log
from server.memory import keep_small
from server.worker.serve import Worker, serve

logger = logging.getLogger(__name__)

SHORTEST_LIFE_S = 5.0
"""One that fails sooner waits until then, or a wrong option would keep the cluster busy with starting."""
GATHER_S = 0.03
"""What several sessions have to tell at the same time goes in one report."""


class MediaWorker:
    """The actor."""

    def __init__(self, slot: str, settings: Settings) -> None:
        """
        Args:
            slot: its name.
            settings: what it runs with.
        """
        self._slot = slot
        self._settings = settings
        self._task = asyncio.get_running_loop().create_task(self._run(), name="media-worker")

    async def alive(self) -> bool:
        """Answers; Ray makes a class an asynchronous actor for having such a method."""
        return True

    async def _run(self) -> None:
        born_s = time.monotonic()
        try:
            await self._serve()
        except VisavisError as error:
            logger.error("the worker cannot go on: %s", error.message)
        except Exception:
            logger.exception("the worker failed")
        await asyncio.sleep(max(0.0, SHORTEST_LIFE_S - (time.monotonic() - born_s)))
        os._exit(1)

    async def _serve(self) -> None:
        ray = load_ray()
        client = DirectoryClient()
        node = ray.get_runtime_context().get_node_id()
        ip = ray.util.get_node_ip_address()
        name = "n" + secrets.token_hex(5)
        memory = WorkerMemory(lambda session_id: client.call("recall", session_id))
        host = f"[{ip}]" if ":" in ip else ip
        machine_cpus = _cpus_of(await asyncio.to_thread(ray.nodes), node)
        config = await local_config(self._settings, machine_cpus)
        start_log(config, name)
        secret = secrets.token_urlsafe(32)
        keep_small()
        worker = await serve(
            config, name=name, secret=secret, bind=f"http://{host}:0", memory=memory, cores=self._settings.cpus
        )
        logger.info("worker %s listens at %s", name, worker.address)
        await self._report_on(worker, secret, memory, client, node, config.max_session_s)

    async def _report_on(
        self, worker: Worker, secret: str, memory: WorkerMemory, client: DirectoryClient, node: str, longest_s: float
    ) -> None:
        epoch = ""
        leaving: asyncio.Task[None] | None = None
        while True:
            complete = not epoch
            changed = memory.everything() if complete else memory.changes()
            state = WorkerState(
                name=worker.name,
                address=worker.address,
                secret=secret,
                state="ready" if leaving is None else "draining",
                places=worker.places,
                taken=worker.taken,
                load=worker.load,
                avatars=frozenset(worker.avatars),
                yielding=worker.yielding,
            )
            report = Report(
                self._slot, node, self._settings.generation, state, os.getpid(), epoch, changed, complete
            )
            try:
                orders: Orders = await client.call("report", report, self._settings, patience_s=0)
            except BackendFailed:
                # Sessions go on; the directory hears everything when it is there again.
                epoch = ""
                memory.give_back(changed)
                await asyncio.sleep(REPORT_S)
                continue
            if epoch not in ("", orders.epoch):
                epoch = ""
                continue
            epoch = orders.epoch
            if orders.drain and leaving is None:
                leaving = asyncio.create_task(worker.drain(longest_s), name="drain")
                continue
            try:
                async with asyncio.timeout(orders.report_in_s):
                    await memory.news.wait()
                await asyncio.sleep(GATHER_S)
            except TimeoutError:
                pass


async def local_config(settings: Settings, machine_cpus: float) -> Config:
    """The options of a worker on this machine: its share of the cores is what is automatic.

    Args:
        settings: of all workers.
        machine_cpus: cores of this machine that Ray gives away.
    """
    cpus = settings.cpus
    config = settings.config(render_threads=max(1, round(cpus) - 1))
    if config.max_sessions:
        return config
    share = min(1.0, cpus / machine_cpus) if machine_cpus else 1.0
    async with _alone(config.cache_dir):
        places = await measured_places(config, max(1, round(1 / share)))
    return config.model_copy(update={"max_sessions": max(1, int(places * share))})


@asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    """Lets one worker of this machine measure it at a time; those after it find what it remembered."""
    lock = await asyncio.to_thread(_locked, folder)
    try:
        yield
    finally:
        lock.close()


def _locked(folder: Path) -> IO[str]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "measuring.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _cpus_of(nodes: list[dict[str, Any]], node: str) -> float:
    return next((float(it["Resources"].get("CPU", 0.0)) for it in nodes if it["NodeID"] == node), 0.0)
