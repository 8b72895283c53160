"""What a gateway of a cluster has in place of processes of its own: Ray's fleet and memory.

Place in the flow: ``python -m server --cluster ADDRESS`` -> ``open_cluster`` -> the gateway's application.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from engine.config import Config
from server.access.gate import Access
from server.cluster import ray_node
from server.cluster.ray_fleet import DirectoryClient, RayFleet, RayMemory
from server.cluster.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Cluster:
    """The cluster as one gateway holds it.

    Attributes:
        fleet, memory: for the gateway's application.
    """

    fleet: RayFleet
    memory: RayMemory
    _node: ray_node.Node

    def share(self, access: Access) -> None:
        """Has a gateway's gate use the line and the tokens of all gateways."""
        access.shared = True
        self.fleet.on_token_key(access.tokens.share)

    async def aclose(self) -> None:
        """Leaves the cluster, which goes on, unless it was started for this process."""
        await self.fleet.aclose()
        await asyncio.to_thread(self._node.leave)


async def open_cluster(config: Config) -> Cluster:
    """Joins the cluster of the option ``cluster`` and returns when it has a worker that takes sessions.

    Raises:
        ConfigInvalid: ``ray_missing``, ``option_invalid``.
        BackendFailed: ``cluster_unreachable``.
    """
    settings = Settings.of(config)
    # On a thread: it takes seconds, and Ray would take over the signals of the main one.
    node = await asyncio.to_thread(ray_node.join, config.cluster)
    client = DirectoryClient()
    fleet = RayFleet(client)
    cluster = Cluster(fleet, RayMemory(client), node)
    try:
        await fleet.open(settings)
    except BaseException:
        await cluster.aclose()
        raise
    return cluster
