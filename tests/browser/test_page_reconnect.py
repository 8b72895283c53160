"""A conversation outlives its connection, and a page outlives its server; the end and the line are counted."""

from __future__ import annotations

import contextlib
import json
import signal

import pytest

from tests.browser.conftest import Visit
from tests.browser.serving import free_port, serving


@pytest.fixture
def own_server(tmp_path):
    """A server that a test may end and start again, on the same port."""
    port = free_port()
    with contextlib.ExitStack() as running:
        yield lambda: running.enter_context(serving(tmp_path, port, greeting=""))


def lines(visited) -> list[str]:
    return visited.js("fetch(`sessions/${visavis.session}/transcript`).then((r) => r.text())").splitlines()


def test_lost_connection_keeps_the_conversation(visit, server):
    visited = visit().alive()
    session = visited.js("visavis.session")
    visited.page.fill("#text", "Hello! Who are you?")
    visited.page.press("#text", "Enter")
    visited.until("!document.querySelector('#captions').hidden")
    visited.js(
        """visavis.addEventListener("state", ({ detail }) => (window.states ??= []).push(
            [detail.state, !document.querySelector("talking-head .still").hidden]));
        visavis.addEventListener("speaking", ({ detail }) => {
            const lost = window.states?.some(([state]) => state === "reconnecting");
            if (detail.speaking && lost) window.spoke = true;
        })"""
    )
    server.process.send_signal(signal.SIGSTOP)
    try:
        visited.until("visavis.state === 'reconnecting'")
    finally:
        server.process.send_signal(signal.SIGCONT)
    visited.alive()
    assert visited.js("window.states.find(([state]) => state === 'reconnecting')[1]"), "the last picture stays"
    assert visited.js("visavis.session") == session
    visited.until("window.spoke")
    visited.until("!visavis.speaking", timeout_s=40)
    said = [(line["role"], line["text"]) for line in map(json.loads, lines(visited))]
    assert ("user", "Hello! Who are you?") in said, "before and after are one conversation"
    assert said[-1][0] == "assistant"


def test_new_connection_takes_no_second_place(visit, server):
    visited = visit().alive()
    session = visited.js("visavis.session")
    for _ in range(3):
        visited.js("visavis.connect()")
        visited.alive()
    assert visited.js("visavis.session") == session
    health = visited.page.request.get(f"{server.url}healthz").json()
    assert health["sessions"] == 1


def test_another_face_is_another_session(visit):
    visited = visit().alive()
    session = visited.js("visavis.session")
    visited.until("document.querySelectorAll('#faces-list input').length >= 2")
    visited.js("document.querySelector('#faces-list input:not(:checked)').click()")
    visited.until("visavis.state === 'live'")
    assert visited.js("visavis.session") != session


def test_page_finds_a_server_that_was_restarted(browser, own_server):
    server = own_server()
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    visited = Visit(page).alive()
    session = visited.js("visavis.session")
    server.process.kill()
    server.process.wait()
    visited.until("visavis.state === 'reconnecting'")
    assert not visited.js("document.querySelector('talking-head .still').hidden"), "veiled, not black"
    visited.until("!document.querySelector('#veil').hidden")
    own_server()
    visited.until("visavis.state === 'live'", timeout_s=40)
    assert visited.js("visavis.session") != session
    assert visited.js("document.querySelector('#veil').hidden")
    context.close()


def test_place_in_the_line_is_told(visit):
    first, second = visit().alive(), visit().alive()
    third = visit()
    third.until("visavis.state === 'waiting'")
    third.until("document.querySelector('#veil-text').textContent === 'You are next.'")
    fourth = visit()
    fourth.until("document.querySelector('#veil-text').textContent === 'You are number 2 in the line.'")
    first.page.goto("about:blank")
    third.until("visavis.state === 'live'")
    fourth.until("document.querySelector('#veil-text').textContent === 'You are next.'")
    assert second.js("visavis.state") == "live"


def test_end_is_counted_down_and_called_off(visit):
    visited = visit().alive()
    visited.js("visavis.dispatchEvent(new CustomEvent('ending', { detail: { reason: 'idle', seconds_left: 60 } }))")
    assert visited.js("!document.querySelector('#ending').hidden")
    told = visited.js("document.querySelector('#ending-spoken').textContent")
    assert "Say or write something to stay" in told
    visited.until("/ends in 0:5\\d/.test(document.querySelector('#ending-text').textContent)")
    assert visited.js("document.querySelector('#ending-spoken').textContent") == told, "not told every second"
    visited.js("visavis.dispatchEvent(new CustomEvent('ending', { detail: { reason: 'idle', seconds_left: null } }))")
    assert visited.js("document.querySelector('#ending').hidden")


@pytest.mark.parametrize(("reason", "stays"), [("idle", True), ("too_long", False)])
def test_speaking_puts_off_the_end_of_who_was_idle(visit, reason, stays):
    visited = visit("?mode=say").alive()
    visited.js(
        "(reason) => visavis.dispatchEvent(new CustomEvent('ending', { detail: { reason, seconds_left: 30 } }))", reason
    )
    visited.page.fill("#text", "Hello.")
    visited.page.press("#text", "Enter")
    visited.until("!document.querySelector('#captions').hidden")
    assert visited.js("document.querySelector('#ending').hidden") is stays


def test_token_of_the_address_lets_in_and_leaves_the_address(visit):
    offers = []
    visited = visit()

    def note(request) -> None:
        if request.url.endswith("/offer"):
            offers.append(request.post_data_json)

    visited.page.on("request", note)
    visited.page.goto(visited.page.url + "#token=vt_secret")
    visited.page.reload()
    visited.until("location.hash === ''")
    visited.until("visavis.state !== 'new' && visavis.state !== 'connecting'")
    assert offers[-1]["token"] == "vt_secret"
