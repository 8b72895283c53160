"""A process that holds sessions is killed while the avatar speaks: the page shows a moving picture again at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.browser.conftest import REPOSITORY, Server, Visit, wait_until_healthy
from tests.server.gateway.processes import worker_pids


@pytest.fixture
def two_workers(tmp_path):
    """A server with two workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "VISAVIS_PORT": str(port), "VISAVIS_DATA_DIR": str(tmp_path), "VISAVIS_WORKERS": "2",
        "VISAVIS_MAX_SESSIONS": "4", "VISAVIS_GREETING": "",
    }  # fmt: skip
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server"], cwd=REPOSITORY, env=environment, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_until_healthy(url, process, log)
        yield Server(url, process, tmp_path)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
