"""Real processes: what is started, what dies with what, and what is told; few, because each loads the models."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.server.gateway.processes import worker_pids
from tests.server.serving import Browser
from tests.server.test_main import ROOT, environment, free_port

pytestmark = [pytest.mark.timeout(400), pytest.mark.may_block_loop]


class Running:
    def __init__(self, process: subprocess.Popen, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def health(self) -> dict:
        with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as response:
            return json.load(response)

    def ready(self) -> set[str]:
        return {worker["name"] for worker in self.health()["workers"] if worker["state"] == "ready"}

    @property
    def has_models(self) -> bool:
        return "openvino" in Path(f"/proc/{self.process.pid}/maps").read_text()

    @property
    def pids(self) -> dict[str, int]:
        return worker_pids(self.process.pid)


@contextmanager
def running(avatars_dir, *options: str):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "--port", str(port), "--avatars-dir", str(avatars_dir), "--workers", "2",
         "--max-sessions", "4", "--llm", "host", "--asr", "none", *options],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("Visavis is ready"), process.communicate()
        yield Running(process, port)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it never came true"
        time.sleep(0.1)


async def opened(http: aiohttp.ClientSession, server: Running, browser: Browser, **more) -> dict:
    async with http.post(f"{server.url}/offer", json={**await browser.offer(), **more}) as response:
        answer = await response.json()
        assert response.status == 200, answer
    await browser.accept(answer)
    return answer


async def test_workers_die_and_are_replaced_and_none_outlives_its_gateway(avatars_dir):
    with running(avatars_dir) as server:
        assert server.ready() == {"w1", "w2"}
        assert not server.has_models, "the front desk needs none"
        sockets = [it.laddr for pid in server.pids.values() for it in psutil.Process(pid).net_connections("unix")]
        folder = next(re.match(r"(.*/visavis-[^/]+)/w\d", str(name))[1] for name in sockets if "/visavis-" in str(name))
        assert os.stat(folder).st_mode & 0o077 == 0
        assert all(os.stat(f"{folder}/{name}").st_mode & 0o077 == 0 for name in ("w1", "w2"))
        # Without a channel it owes no heartbeats.
        other = Browser(with_channel=False)
        async with aiohttp.ClientSession() as http, Browser() as one, Browser() as again, other:
            first = await opened(http, server, one)
            second = await opened(http, server, other)
            mine, theirs = (answer["session_id"].partition("-")[0] for answer in (first, second))
            assert {mine, theirs} == {"w1", "w2"}
            await one.opened.wait()
            await one.watch(5)
            async with http.post(f"{server.url}/sessions/{first['session_id']}/ask", json={"text": "Hello!"}) as asked:
                assert asked.status == 202
            await one.expect("speaking", 15)
            await asyncio.sleep(1.2)
            os.kill(server.pids[mine], signal.SIGKILL)
            killed_s = time.monotonic()
            answer = await opened(http, server, again, session_id=first["session_id"])
            await again.watch(1)
            took_s = time.monotonic() - killed_s
            assert answer["resumed"] is True and answer["session_id"].startswith(f"{theirs}-")
            assert took_s < 12, "seconds, on a machine that others use too"
            async with http.get(f"{server.url}/sessions/{answer['session_id']}/transcript") as response:
                lines = [json.loads(line) for line in (await response.text()).splitlines()]
            assert lines[0]["text"] == "Hello!" and lines[1]["interrupted"]
            # The other one noticed nothing.
            pictures = len(other.pictures)
            await other.watch(pictures + 10)
        until(lambda: server.ready() == {theirs, "w3"})
        pids = list(server.pids.values())
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        until(lambda: not any(psutil.pid_exists(pid) and _alive(pid) for pid in pids), 15)


async def test_a_rolling_restart_replaces_all_a_hung_worker_is_ended_and_the_end_is_quick(avatars_dir):
    with running(avatars_dir, "--log-format", "json") as server:
        before = server.pids
        async with aiohttp.ClientSession() as http, Browser() as one, Browser() as again:
            former = (await opened(http, server, one))["session_id"]
            await one.opened.wait()
            # As long as it takes until the gateway has heard of it.
            await one.watch(50)
            server.process.send_signal(signal.SIGHUP)
            # Until it has left, the process of the session takes its browser back itself.
            await asyncio.to_thread(until, lambda: former.partition("-")[0] not in server.pids, 60)
            answer = await opened(http, server, again, session_id=former)
            assert answer["resumed"] is True
            await again.watch(3)
        await asyncio.to_thread(until, lambda: server.ready() == {"w3", "w4"}, 60)
        assert not set(before.values()) & set(server.pids.values())
        os.kill(server.pids["w3"], signal.SIGSTOP)
        await asyncio.to_thread(until, lambda: "w5" in server.ready(), 60)
        told_s = time.monotonic()
        pids = list(server.pids.values())
        server.process.send_signal(signal.SIGTERM)
        _, log = server.process.communicate(timeout=20)
        assert server.process.returncode == 0 and time.monotonic() - told_s < 12
        assert not any(_alive(pid) for pid in pids)
    said = [json.loads(line) for line in log.splitlines()]
    assert {line.get("worker") for line in said} >= {"gateway"}
    assert "Traceback" not in log


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
