"""What the directory has done by Ray: actors started, ended and counted; and the directory itself as an actor.

Place in the flow: ``find_directory`` -> named actor -> ``Directory`` -> ``RayHands`` -> media workers.

Invariants:
    * actors outlive whoever started them, and Ray starts them again when they or their machines die;
    * the directory lives on the head node: when that is lost, so is the cluster's own memory, and not before.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from server.cluster.directory import Directory
from server.cluster.ray_node import NAMESPACE, ROOT, load_ray
from server.cluster.settings import Settings

logger = logging.getLogger(__name__)

DIRECTORY = "visavis-directory"
TICK_S = 1.0
_SLOT = "worker-"

RUNTIME = {"env_vars": {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}}
"""Every machine has Visavis in the same folder, as it has with one image for all."""


class DirectoryActor(Directory):
    """The directory with a pulse of its own."""

    def __init__(self) -> None:
        """Starts to look after the cluster; runs in the actor's event loop."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        super().__init__(RayHands())
        self._pulse = asyncio.get_running_loop().create_task(self._beat(), name="directory-pulse")

    async def _beat(self) -> None:
        while True:
            try:
                await self.tick()
            except Exception:
                # The next one finds the same state and tries again.
                logger.exception("looking after the cluster failed")
            await asyncio.sleep(TICK_S)


def find_directory() -> Any:
    """The handle of the cluster's directory, which is started if there is none. May take a second: not on a loop."""
    ray = load_ray()
    return (
        ray.remote(DirectoryActor)
        .options(
            name=DIRECTORY,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            num_cpus=0,
            max_concurrency=1000,
            resources={"node:__internal_head__": 0.001},
            runtime_env=RUNTIME,
        )
        .remote()
    )


class RayHands:
    """``Hands`` by Ray."""

    async def start(self, slot: str, settings: Settings, avoid: frozenset[str]) -> None:
        """See ``Hands``."""
        from server.cluster.media_worker import MediaWorker

        options: dict[str, Any] = {}
        if avoid:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"}
        load_ray().remote(MediaWorker).options(
            name=slot,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            runtime_env=RUNTIME,
            **options,
        ).remote(slot, settings)

    async def stop(self, slot: str) -> None:
        """See ``Hands``."""
        ray = load_ray()
        try:
            handle = await asyncio.to_thread(ray.get_actor, slot, NAMESPACE)
        except ValueError:
            return
        ray.kill(handle, no_restart=True)

    async def slots(self) -> set[str]:
        """See ``Hands``."""
        names = await asyncio.to_thread(load_ray().util.list_named_actors)
        return {name for name in names if name.startswith(_SLOT)}

    async def room(self, settings: Settings, avoid: frozenset[str]) -> int:
        """See ``Hands``."""
        nodes = await asyncio.to_thread(load_ray().nodes)
        total = 0
        for node in nodes:
            if node["Alive"] and node["NodeID"] not in avoid:
                has = node["Resources"]
                fits = int(has.get("CPU", 0) / settings.cpus + 1e-6)
                if settings.gpus:
                    fits = min(fits, int(has.get("GPU", 0) / settings.gpus + 1e-6))
                total += fits
        return total

    async def demand(self, settings: Settings, workers: int) -> None:
        """See ``Hands``."""
        from ray.autoscaler.sdk import request_resources

        bundle = {"CPU": settings.cpus, **({"GPU": settings.gpus} if settings.gpus else {})}
        await asyncio.to_thread(request_resources, bundles=[bundle] * workers)
