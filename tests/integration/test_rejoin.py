"""A browser that lost its connection comes back to the same session, and one that does not is let go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.types import Event
from server.live_session import LiveSession
from server.peer import Peer
from tests.server.serving import Browser, Server, eventually, serve

HEARTBEAT_S = 2.0


@pytest.fixture
async def server(aiohttp_client) -> Server:
    server = await serve(aiohttp_client, max_sessions=1)
    allow(server, heartbeat_timeout_s=HEARTBEAT_S)
    return server


def allow(server: Server, **options: float) -> None:
    for name, value in options.items():
        object.__setattr__(server.services.sessions._options, name, value)


async def connect_and_fall_silent(server: Server, browser: Browser) -> str:
    """Connects a browser that sends one heartbeat and no more; returns when the server has missed it."""
    session_id = await server.offer(browser)
    async with asyncio.timeout(5):
        await browser.opened.wait()
    browser.send(type="ping", t=0)
    await browser.expect("pong")
    await eventually(lambda: server.session.paused, timeout_s=15)
    return session_id


async def ended_for(server: Server, reason: str) -> bool:
    metrics = await (await server.client.get("/metrics")).text()
    return f'visavis_sessions_ended_total{{reason="{reason}"}} 1.0' in metrics


async def test_a_lost_browser_finds_its_session_as_it_was(server):
    async with Browser() as browser, Browser() as again:
        session_id = await connect_and_fall_silent(server, browser)
        # Who is back says nothing in this test.
        allow(server, heartbeat_timeout_s=30.0)
        assert server.services.sessions.taken == 1 and not server.session.closed.is_set()
        assert await server.offer(again, session_id=session_id) == session_id
        await again.watch(5)
        assert len(server.stage.sessions) == 1, "no other was made"
        assert server.services.sessions.taken == 1, "and no other place taken"
        assert not server.session.paused, "it goes on with what it was saying"
        assert (await again.expect("state"))["session_id"] == session_id
        again.send(type="say", text="still here")
        await again.expect("accepted")
        assert server.session.said == ["still here"]
    await eventually(lambda: server.services.sessions.taken == 0)
    await server.end()


async def test_who_returns_learns_that_it_is_speaking(server):
    async with Browser() as browser, Browser() as again:
        session_id = await server.offer(browser)
        await browser.opened.wait()
        server.session.publish(Event("speaking", {"speaking": True, "utterance_id": 7, "label": "text"}))
        browser.send(type="ping", t=0)
        await browser.expect("speaking")
        await eventually(lambda: server.session.paused, timeout_s=15)
        allow(server, heartbeat_timeout_s=30.0)
        await server.offer(again, session_id=session_id)
        assert (await again.expect("speaking"))["utterance_id"] == 7
    await server.end()


async def test_a_browser_takes_its_session_to_a_new_connection_before_the_old_one_is_missed(server):
    allow(server, heartbeat_timeout_s=30.0)
    async with Browser() as browser, Browser() as again:
        session_id = await server.offer(browser)
        await browser.watch(3)
        assert await server.offer(again, session_id=session_id) == session_id
        await again.watch(5)
        seen = len(browser.pictures)
        await again.watch(15)
        assert len(browser.pictures) <= seen + 5, "frames go to one of them"
        assert server.services.sessions.lives(session_id)
    await server.end()


async def test_a_slow_new_connection_costs_nothing_while_it_is_made(server, monkeypatch):
    allow(server, heartbeat_timeout_s=30.0)
    looks, news, answer = [], LiveSession.news, Peer.answer

    async def counted(live: LiveSession, timeout_s: float) -> None:
        looks.append(timeout_s)
        await news(live, timeout_s)

    async def slow(*asked: Any) -> Any:
        await asyncio.sleep(0.5)
        return await answer(*asked)

    async with Browser() as browser, Browser() as again:
        session_id = await server.offer(browser)
        await browser.watch(3)
        monkeypatch.setattr(LiveSession, "news", counted)
        monkeypatch.setattr(Peer, "answer", slow)
        assert await server.offer(again, session_id=session_id) == session_id
        await again.watch(3)
        assert 0 < len(looks) < 20, "it is told of, not looked for"
    await server.end()


async def test_a_useless_offer_changes_nothing(server):
    allow(server, heartbeat_timeout_s=30.0)
    async with Browser() as browser:
        session_id = await server.offer(browser)
        await browser.watch(3)
        response = await server.client.post("/offer", json={"sdp": "v=0", "type": "offer", "session_id": session_id})
        assert response.status == 400
        await browser.watch(len(browser.pictures) + 5)
    await server.end()


async def test_nobody_is_waited_for_longer_than_that(server):
    allow(server, return_timeout_s=0.5)
    async with Browser() as browser:
        session_id = await connect_and_fall_silent(server, browser)
        await eventually(lambda: server.services.sessions.taken == 0)
        assert await ended_for(server, "vanished")
        async with Browser() as again:
            assert await server.offer(again, session_id=session_id) != session_id, "it begins anew"
    await server.end()


async def test_a_place_that_waits_goes_to_whoever_comes(server):
    async with Browser() as browser, Browser() as other:
        session_id = await connect_and_fall_silent(server, browser)
        assert server.services.sessions.free == 1
        assert await server.offer(other) != session_id
        await other.watch(3)
        assert server.services.sessions.taken == 1
        assert not server.services.sessions.lives(session_id)
    await server.end()


async def test_a_session_that_waits_can_be_closed(server):
    async with Browser() as browser:
        session_id = await connect_and_fall_silent(server, browser)
        assert (await server.client.delete(f"/sessions/{session_id}")).status == 204
        assert server.services.sessions.taken == 0


async def test_who_never_opened_a_channel_is_not_waited_for(server):
    async with Browser(with_channel=False) as browser:
        await server.offer(browser)
        await browser.watch(3)
    await eventually(lambda: server.services.sessions.taken == 0, timeout_s=5)
