"""A gateway and workers with fake stages, all in this process, speaking real HTTP with each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from engine.config import Config
from server.gateway.fleet import Wanted, WorkerState, pick
from server.gateway.memory import LocalMemory
from server.gateway.serve import create_gateway
from server.services import SERVICES
from server.worker.internal import DESK, fullness
from server.worker.relay import RelayMemory
from server.worker.serve import create_worker
from tests.server.fakes import FakeStage
from tests.server.serving import AsInProduction, Browser

SECRET = "not to be guessed"


class Workers:
    """A ``Fleet`` of applications in this process."""

    def __init__(self) -> None:
        self.apps: dict[str, web.Application] = {}
        self.servers: dict[str, TestServer] = {}
        self.stages: dict[str, FakeStage] = {}
        self.memory = LocalMemory()
        self.asked_of: list[str] = []
        self.reported: list[str] = []
        self.starting: list[WorkerState] = []

    async def start(self, config: Config, name: str) -> None:
        stage = FakeStage(config)
        stage.cards["tiny"] = dataclasses.replace(stage.cards["ada"], name="tiny", title="Tiny")
        app = create_worker(config, stage, name=name, secret=SECRET)
        server = AsInProduction(app)
        await server.start_server()
        self.stages[name], self.apps[name], self.servers[name] = stage, app, server

    async def remember(self) -> None:
        """What ``LocalFleet`` does with a worker's events."""
        for app in self.apps.values():
            relay = app[DESK].relay
            assert isinstance(relay, RelayMemory)
            for told in relay.take():
                if "keep" in told:
                    await self.memory.keep(told["keep"], told["snapshot"])
                else:
                    await self.memory.forget(told["forget"])

    async def kill(self, name: str) -> None:
        """Nobody is at its address from now on, whatever it holds."""
        app, server = self.apps.pop(name), self.servers.pop(name)
        await server.close()
        await app[SERVICES].sessions.aclose()

    async def workers(self) -> Sequence[WorkerState]:
        shown = []
        for name, app in self.apps.items():
            told = fullness(app)
            address = str(self.servers[name].make_url("")).rstrip("/")
            state = "draining" if told.draining else "ready"
            avatars = frozenset(told.avatars)
            shown.append(
                WorkerState(name, address, SECRET, state, told.places, told.taken, 0.0, avatars, told.yielding)
            )
        return [*shown, *self.starting]

    async def place(self, wanted: Wanted) -> WorkerState:
        worker = pick(await self.workers(), wanted)
        self.asked_of.append(worker.name)
        return worker

    async def lost(self, name: str) -> None:
        self.reported.append(name)


@dataclasses.dataclass
class Behind:
    """Everything together; ``client`` talks to the gateway. Leaving it ends the workers."""

    client: TestClient
    fleet: Workers

    async def __aenter__(self) -> Behind:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        for name in list(self.fleet.apps):
            await self.fleet.kill(name)

    async def open(self, browser: Browser, **more: Any) -> dict[str, Any]:
        response = await self.client.post("/offer", json={**await browser.offer(), **more})
        assert response.status == 200, await response.text()
        answer = await response.json()
        await browser.accept(answer)
        return answer

    def session(self, worker: str) -> Any:
        return self.fleet.stages[worker].sessions[-1]


async def stand(aiohttp_client: Any, avatars_dir: Path, *names: str, **options: Any) -> Behind:
    config = Config(avatars_dir=avatars_dir, **{"max_sessions": 2, **options})
    fleet = Workers()
    for name in names:
        await fleet.start(config, name)
    client = await aiohttp_client(AsInProduction(await create_gateway(config, fleet, fleet.memory)))
    return Behind(client, fleet)
