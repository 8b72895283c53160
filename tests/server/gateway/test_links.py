"""What a gateway knows of its workers stays fresh, whatever happens while it looks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from server.gateway.fleet import WorkerState
from server.gateway.links import Links
from server.gateway.memory import LocalMemory
from server.gateway.sessions import RemoteSessions
from server.metrics import ServerMetrics
from tests.server.serving import eventually


class Fleet:
    """Has one worker; fails as often as a test says."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails

    async def workers(self) -> Sequence[WorkerState]:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("unforeseen")
        return [WorkerState("w1", "http://127.0.0.1:1", "s", "ready", 4)]


async def test_two_may_close_what_is_not_needed_at_the_same_time():
    links = Links(cast(Any, Fleet()))
    clients = [links.client(WorkerState(name, "http://127.0.0.1:1", "s")) for name in ("w1", "w2", "w3")]
    for client in clients:

        async def slowly(close: Any = client.close) -> None:
            await asyncio.sleep(0.01)
            await close()

        cast(Any, client).close = slowly
    await asyncio.gather(links.retain({"w3"}), links.retain({"w3"}), links.retain(set()))
    await links.aclose()
    assert all(client.closed for client in clients)


async def test_whoever_looks_at_the_workers_goes_on_when_that_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("server.gateway.sessions.LOOK_S", 0.01)
    fleet = cast(Any, Fleet(fails=3))
    sessions = RemoteSessions(fleet, LocalMemory(), Links(fleet), ServerMetrics(CollectorRegistry()))
    watching = asyncio.create_task(sessions.watch(), name="watch")
    try:
        await eventually(lambda: sessions.free == 4)
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    assert watching.cancelled()
