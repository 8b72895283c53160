"""A process that holds sessions is killed while the avatar speaks: the page shows a moving picture again at once."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.browser.conftest import Visit
from tests.browser.serving import serving
from tests.server.gateway.processes import worker_pids


@pytest.fixture
def two_workers(tmp_path):
    """A server with two workers."""
    with serving(tmp_path, workers=2, max_sessions=4, greeting="") as running:
        yield running


def test_conversation_goes_on_in_another_process(browser, two_workers):
    context = browser.new_context()
    page = context.new_page()
    page.goto(two_workers.url)
    visited = Visit(page).alive()
    former = visited.js("visavis.session")
    page.fill("#text", "Hello! Who are you?")
    page.press("#text", "Enter")
    visited.until("visavis.speaking")
    time.sleep(1.5)
    visited.js("visavis.addEventListener('state', ({ detail }) => (window.states ??= []).push(detail.state))")
    os.kill(worker_pids(two_workers.process.pid)[former.partition("-")[0]], signal.SIGKILL)
    killed_s = time.monotonic()
    visited.until("window.states?.includes('reconnecting')")
    noticed_s = time.monotonic() - killed_s
    visited.alive()
    back_s = time.monotonic() - killed_s
    print(f"noticed after {noticed_s:.2f} s, moving again after {back_s:.2f} s")
    session = visited.js("visavis.session")
    assert session != former and session.partition("-")[0] != former.partition("-")[0]
    assert back_s < 15, "seconds, not a timeout"
    lines = visited.js(f"fetch('sessions/{session}/transcript').then((r) => r.text())").splitlines()
    said = [(line["role"], line["text"], line["interrupted"]) for line in map(json.loads, lines)]
    assert said[0] == ("user", "Hello! Who are you?", False)
    assert said[1][0] == "assistant" and said[1][2], "what was heard of the answer, and no more"
    visited.js("visavis.ask('And what can you do?')")
    visited.until("visavis.speaking")
    assert visited.js("document.querySelector('#veil').hidden")
    context.close()
