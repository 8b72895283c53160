"""Places that are kept for browsers that were lost, and who gets them."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from server.gateway.fleet import Wanted, WorkerState, pick
from server.metrics import EndReason
from server.services import SERVICES
from server.worker.internal import fullness
from server.worker.wire import SECRET_HEADER
from tests.server.gateway.behind import SECRET, Behind, stand
from tests.server.gateway.test_fleet import ready
from tests.server.serving import Browser, eventually


@pytest.fixture
async def behind(aiohttp_client, avatars_dir):
    return await stand(aiohttp_client, avatars_dir, "w1", max_sessions=1)


def test_a_place_that_is_kept_for_a_lost_browser_is_free_and_given_last():
    assert ready("w1", 4, yielding=1).free == 1 and ready("w1", 3, yielding=1).free == 2
    assert WorkerState("w1", "unix:/w1", "s", "draining", 4, 4, yielding=1).free == 0
    assert pick([ready("w1", 4, yielding=2), ready("w2", 3)], Wanted()).name == "w2"
    assert pick([ready("w1", 4, yielding=2), ready("w2", 4)], Wanted()).name == "w1"


async def test_somebody_who_is_here_comes_before_a_browser_that_was_lost(behind: Behind):
    async with behind, Browser() as lost, Browser() as newcomer:
        await behind.open(lost)
        await lost.opened.wait()
        app = behind.fleet.apps["w1"]
        sessions = app[SERVICES].sessions
        live = next(iter(sessions.live))
        await eventually(lambda: live.peer.channel.known)
        told = fullness(app)
        assert (told.taken, told.yielding) == (1, 0)
        live.peer._end(EndReason.VANISHED)
        await eventually(lambda: live.lost)
        told = fullness(app)
        assert (told.taken, told.yielding) == (1, 1), "a worker with somebody who may come back is not empty"
        await behind.client.get("/healthz")
        assert (await behind.open(newcomer))["session_id"] != live.id
        assert live.ended.done() and (sessions.taken, sessions.free) == (1, 0)


async def test_a_change_of_what_yields_is_among_the_events(behind: Behind):
    async with behind, Browser() as browser:
        worker = (await behind.open(browser))["session_id"].partition("-")[0]
        await browser.opened.wait()
        app = behind.fleet.apps[worker]
        live = next(iter(app[SERVICES].sessions.live))
        await eventually(lambda: live.peer.channel.known)
        async with aiohttp.ClientSession(headers={SECRET_HEADER: SECRET}) as http, asyncio.timeout(10):
            async with http.get(behind.fleet.servers[worker].make_url("/internal/events")) as events:
                live.peer._end(EndReason.VANISHED)
                async for line in events.content:
                    if json.loads(line).get("state", {}).get("yielding") == 1:
                        break
