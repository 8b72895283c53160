"""Puts a gateway together: the server's own front desk, with other processes behind it.

Place in the flow: Config, ``Fleet``, ``Memory`` -> ``create_gateway`` -> aiohttp; ``python -m server`` runs it with
processes of this machine, a cluster with workers anywhere.

Invariants: it is stateless towards sessions, so any number of gateways may stand in front of one fleet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
from aiohttp import web

from engine.aio import Tasks
from engine.config import Config
from engine.errors import NotFound, VisavisError
from engine.metrics import EngineMetrics
from server.access.gate import ACCESS
from server.app import STATIC_FOLDER, Setting, create_app
from server.broadcast import Broadcasts
from server.broadcast_routes import BROADCASTS
from server.gateway.fleet import Fleet, Memory, WorkerState
from server.gateway.forward import Forwarder
from server.gateway.front import FrontStage
from server.gateway.joined import Joined
from server.gateway.links import Links, WorkerLost
from server.gateway.routing import Routing
from server.gateway.sessions import LOOK_S, RemoteSessions
from server.metrics import ServerMetrics
from server.sessions import Sessions
from server.signaling import Description
from server.worker.wire import About

logger = logging.getLogger(__name__)

ASK_S = 3.0
"""How often a worker is asked what it is able to do: services on this machine come and go."""


class RemoteBroadcasts:
    """The broadcasts of all workers, as far as the front desk needs them."""

    def __init__(self, sessions: RemoteSessions, links: Links) -> None:
        """Args: sessions: knows the workers; links: to them."""
        self._sessions = sessions
        self._links = links

    async def watch(self, broadcast_id: str, sdp: str, kind: str) -> tuple[str, Description]:
        """See ``Broadcasts.watch``."""
        worker = self._sessions.known(broadcast_id)
        try:
            if worker is not None:
                offer = {"sdp": sdp, "type": kind, "watch": broadcast_id}
                told = await self._links.call(worker, "POST", "/offer", offer)
                return str(told["viewer_id"]), Description(str(told["sdp"]), str(told["type"]))
        except WorkerLost:
            logger.info("a broadcast was lost with the worker %s", worker and worker.name)
        raise NotFound("broadcast_not_found", "There is no such broadcast; it may have ended.")


async def create_gateway(
    config: Config, fleet: Fleet, memory: Memory, static_folder: Path = STATIC_FOLDER
) -> web.Application:
    """The application of a gateway in front of workers that serve already, or soon.

    Args:
        config: options; those of the workers are the same.
        fleet: the workers.
        memory: what is left of sessions that were lost.
        static_folder: the page.

    Raises:
        ConfigInvalid: ``avatar_missing``.
        AvatarInvalid: the default avatar cannot be shown.
    """
    stage = await FrontStage.open_front(config, EngineMetrics())
    links = Links(fleet)
    made: list[RemoteSessions] = []

    def sessions_for(metrics: ServerMetrics) -> Sessions:
        made.append(RemoteSessions(fleet, memory, links, metrics))
        # Routes that need more of a session than this are a worker's business.
        return cast(Sessions, made[0])

    upload_bytes = config.max_audio_mb * 1_000_000 + 100_000
    # The application is made with the routing that needs the sessions it makes.
    routing = Routing(links, Forwarder(links, upload_bytes), upload_bytes)
    app = create_app(config, stage, static_folder, Setting(sessions=sessions_for, inner=(routing.middleware,)))
    routing.sessions = sessions = made[0]
    joined = Joined(sessions, links)
    routing.own |= {("GET", "/metrics"): joined.metrics, ("GET", "/healthz"): joined.healthz}
    app[BROADCASTS] = cast(Broadcasts, RemoteBroadcasts(sessions, links))
    routing.count = app[ACCESS].count
    tasks = Tasks("gateway")
    stage.on_forgotten = lambda name: _start(tasks, _forget(sessions, links, name))

    async def run(_app: web.Application) -> AsyncIterator[None]:
        await sessions.look()
        await _ask(stage, sessions, links)
        tasks.start(sessions.watch(), "watch")
        tasks.start(_keep_asking(stage, sessions, links), "ask")
        yield
        await tasks.aclose()
        await links.aclose()

    app.cleanup_ctx.append(run)
    return app


def _start(tasks: Tasks, work: Any) -> None:
    tasks.start(work, "forget")


async def _keep_asking(stage: FrontStage, sessions: RemoteSessions, links: Links) -> None:
    while True:
        await asyncio.sleep(ASK_S)
        await _ask(stage, sessions, links)


async def _ask(stage: FrontStage, sessions: RemoteSessions, links: Links) -> None:
    """What is said of conversations on the page is what a worker says."""
    for worker in sessions.workers:
        if worker.state != "ready":
            continue
        try:
            stage.tell(About.model_validate(await links.call(worker, "GET", "/internal/about", timeout_s=ASK_S)))
            return
        except (WorkerLost, VisavisError):
            continue


async def _forget(sessions: RemoteSessions, links: Links, name: str) -> None:
    """Has every worker forget an avatar that was deleted; one that is starting may have read of it already, and is told
    when it serves."""
    told: set[str] = set()
    while left := [worker for worker in sessions.workers if worker.name not in told]:
        serving = [worker for worker in left if worker.state != "starting"]
        told |= {worker.name for worker in serving}
        await asyncio.gather(*(_have_forgotten(links, worker, name) for worker in serving))
        await asyncio.sleep(LOOK_S)


async def _have_forgotten(links: Links, worker: WorkerState, name: str) -> None:
    try:
        await links.call(worker, "POST", f"/internal/avatars/{name}/forget")
    except (WorkerLost, VisavisError, aiohttp.ClientError) as error:
        logger.info("the worker %s does not forget %s: %s", worker.name, name, error)
