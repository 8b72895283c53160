"""The end of a session is announced in time, and called off when it does not come."""

from __future__ import annotations

import asyncio

import pytest

from engine.types import Event
from server import countdown as countdown_module
from server.countdown import Countdown
from server.metrics import EndReason
from tests.server.serving import Browser, serve


@pytest.fixture
def told() -> list:
    return []


@pytest.fixture
def countdown(told) -> Countdown:
    return Countdown(lambda kind, data: told.append((kind, data["state"], data["reason"], data["seconds_left"])),
                     EndReason.IDLE)


def run(countdown: Countdown, left_s: float) -> None:
    """Sleeps exactly as long as it says, to the end."""
    while left_s > 0:
        left_s -= countdown.left(left_s)


def test_it_warns_twice(countdown, told):
    run(countdown, 300.0)
    assert told == [("state", "ending", "idle", 60), ("state", "ending", "idle", 30)]


def test_who_looks_late_is_told_what_is_really_left(countdown, told):
    countdown.left(100.0)
    countdown.left(41.2)
    assert [entry[3] for entry in told] == [42]


def test_speech_calls_it_off_and_it_may_come_again(countdown, told):
    for left_s in (100.0, 55.0, 29.0, 300.0, 200.0, 60.0):
        countdown.left(left_s)
    assert [entry[3] for entry in told] == [55, 29, None, 60]


def test_a_session_that_was_never_to_last_longer_is_not_warned_at_once(countdown, told):
    run(countdown, 20.0)
    assert told == []
    run(Countdown(lambda _kind, data: told.append(data["seconds_left"]), EndReason.TOO_LONG), 45.0)
    assert told == [30]


def test_it_is_looked_at_again_in_time(countdown):
    assert countdown.left(100.0) == 40.0
    assert countdown.left(60.0) == 30.0
    assert countdown.left(30.0) == 30.0


async def ending(browser: Browser, timeout_s: float = 20) -> dict:
    """The next announcement, however many other states come before it."""
    while (told := await browser.expect("state", timeout_s))["state"] != "ending":
        pass
    return told


@pytest.mark.parametrize("by_token", [False, True])
async def test_a_browser_is_told_before_the_longest_session_ends(aiohttp_client, monkeypatch, by_token):
    server = await serve(aiohttp_client, max_session_s=3600 if by_token else 600)
    async with server.client.post("/tokens", json={"max_session_s": 600}) as response:
        token = (await response.json())["token"]
    async with Browser() as browser:
        session_id = await server.offer(browser, **({"token": token} if by_token else {}))
        await browser.opened.wait()
        for warnings in ((1000.0, 30.0), (1000.0, 999.0)):
            # As if so much time had passed: warnings that come earlier.
            monkeypatch.setattr(countdown_module, "WARNINGS_S", warnings)
            server.services.sessions.get(session_id)._news.set()
            told = await ending(browser)
            assert told["reason"] == "too_long" and 500 < told["seconds_left"] <= 600
        await server.end()


async def test_a_browser_is_told_before_an_idle_session_ends_and_when_speech_saves_it(aiohttp_client, monkeypatch):
    server = await serve(aiohttp_client, idle_session_s=600, heartbeat_timeout_s=3)

    speaks = False

    async def live() -> None:
        # The server looks at least as often as a heartbeat may be missed.
        while True:
            browser.send(type="ping", t=1)
            if speaks:
                server.session.publish(Event("speaking", {"speaking": True}))
            await asyncio.sleep(0.3)

    async with Browser() as browser:
        await server.offer(browser)
        await browser.opened.wait()
        heart = asyncio.create_task(live())
        monkeypatch.setattr(countdown_module, "WARNINGS_S", (599.0, 30.0))
        told = await ending(browser)
        assert told["reason"] == "idle" and 500 < told["seconds_left"] <= 599
        speaks = True
        assert (await ending(browser))["seconds_left"] is None
        heart.cancel()
        await server.end()
