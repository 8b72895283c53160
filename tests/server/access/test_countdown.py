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


async def test_a_browser_is_told_before_the_longest_session_ends(aiohttp_client, monkeypatch):
    monkeypatch.setattr(countdown_module, "WARNINGS_S", (9.8, 9.6))
    server = await serve(aiohttp_client, max_session_s=10)
    async with Browser() as browser:
        await server.offer(browser)
        await browser.opened.wait()
        assert (await browser.expect("state"))["state"] == "connected"
        for _ in range(2):
            told = await browser.expect("state")
            assert (told["state"], told["reason"], told["seconds_left"]) == ("ending", "too_long", 10)
        await server.end()


async def test_a_token_s_shorter_session_ends_in_its_time(aiohttp_client, monkeypatch):
    monkeypatch.setattr(countdown_module, "WARNINGS_S", (9.8,))
    server = await serve(aiohttp_client, max_session_s=3600)
    async with server.client.post("/tokens", json={"max_session_s": 10}) as response:
        token = (await response.json())["token"]
    async with Browser() as browser:
        await server.offer(browser, token=token)
        await browser.opened.wait()
        await browser.expect("state")
        assert (await browser.expect("state"))["seconds_left"] == 10
        await server.end()


async def test_a_browser_is_told_before_an_idle_session_ends_and_when_speech_saves_it(aiohttp_client, monkeypatch):
    monkeypatch.setattr(countdown_module, "WARNINGS_S", (9.8,))
    server = await serve(aiohttp_client, idle_session_s=10)
    async with Browser() as browser:
        await server.offer(browser)
        await browser.opened.wait()
        await browser.expect("state")
        told = await browser.expect("state")
        assert (told["state"], told["reason"], told["seconds_left"]) == ("ending", "idle", 10)
        # The page owes a heartbeat a second; at the latest then the server looks again.
        async with asyncio.timeout(10):
            while told["seconds_left"] is not None:
                server.session.publish(Event("speaking", {"speaking": True}))
                browser.send(type="ping", t=1)
                await asyncio.sleep(0.2)
                told = next((message for message in browser.messages if message["type"] == "state"), told)
        await server.end()
