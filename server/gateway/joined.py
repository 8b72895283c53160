"""What is told of a gateway and its workers together: metrics, and whether all is well.

Place in the flow: ``GET /metrics``, ``GET /healthz`` -> every worker's -> one answer.

Invariants:
    * every worker's series carry the label ``worker``, the gateway's own ``worker="gateway"``, so that sums over all of
      them are right and none is counted twice;
    * a worker that does not answer within a second is left out.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.gateway.fleet import WorkerState
from server.gateway.links import LOST, Links
from server.gateway.sessions import RemoteSessions
from server.services import SERVICES

SCRAPE_S = 1.0
OWN_NAME = "gateway"

_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?( .*)")


class Joined:
    """Handlers of both routes."""

    def __init__(self, sessions: RemoteSessions, links: Links) -> None:
        """Args: sessions: knows the workers; links: to them."""
        self._sessions = sessions
        self._links = links

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """All metrics in one exposition."""
        own = generate_latest(request.app[SERVICES].metrics.registry).decode()
        serving = [worker for worker in self._sessions.workers if worker.state in ("ready", "draining")]
        texts = await asyncio.gather(*(self._scrape(worker) for worker in serving))
        named = [(OWN_NAME, own), *((worker.name, text) for worker, text in zip(serving, texts, strict=True) if text)]
        body = (join(named) + self._fleet_series()).encode()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})

    async def healthz(self, request: web.Request) -> web.StreamResponse:
        """Whether the server works, how full it is, and how each worker is."""
        services = request.app[SERVICES]
        workers = await self._sessions.look()
        ready = any(worker.state == "ready" for worker in workers)
        told = {
            "status": "ok" if ready else "starting",
            "version": services.version,
            "uptime_s": round(time.monotonic() - services.started_s, 1),
            "sessions": self._sessions.taken,
            "max_sessions": self._sessions.places,
            "workers": [
                {
                    "name": worker.name,
                    "state": worker.state,
                    "sessions": worker.taken,
                    "max_sessions": worker.places,
                    "load": worker.load,
                }
                for worker in workers
            ],
        }
        return web.json_response(told, status=200 if ready else 503, headers={"Cache-Control": "no-store"})

    async def _scrape(self, worker: WorkerState) -> str:
        try:
            async with self._links.client(worker).get(
                self._links.url(worker, "/metrics"), timeout=aiohttp.ClientTimeout(total=SCRAPE_S)
            ) as response:
                return await response.text() if response.status == 200 else ""
        except (*LOST, TimeoutError):
            return ""

    def _fleet_series(self) -> str:
        lines = ["# HELP visavis_workers Workers by state", "# TYPE visavis_workers gauge"]
        states = [worker.state for worker in self._sessions.workers]
        for state in ("starting", "ready", "draining"):
            lines.append(f'visavis_workers{{state="{state}"}} {float(states.count(state))}')
        return "\n".join(lines) + "\n"


def join(expositions: Iterable[tuple[str, str]]) -> str:
    """Expositions in Prometheus' text format as one.

    Args:
        expositions: the worker each is of, and its text.
    """
    families: dict[str, tuple[dict[str, str], list[str]]] = {}
    for worker, text in expositions:
        samples: list[str] = []
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                kind, name = line.split(" ", 3)[1:3]
                # All say the same of a family; the first to do so is believed.
                heads, samples = families.setdefault(name, ({}, []))
                heads.setdefault(kind, line)
            elif (match := _SAMPLE.fullmatch(line)) is not None:
                name, labels, value = match.groups()
                samples.append(f'{name}{{worker="{worker}"{"," + labels if labels else ""}}}{value}')
    return "".join("\n".join([*heads.values(), *samples]) + "\n" for heads, samples in families.values())
