"""A real Ray cluster of three nodes and two gateways on this machine: what dies, what drains, and what stays.

Slow by nature; everything in one cluster, and skipped where Ray is not installed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from engine.config import Config
from tests.server.serving import Browser

pytest.importorskip("ray")

pytestmark = [pytest.mark.timeout(500), pytest.mark.may_block_loop]

OPTIONS: dict[str, Any] = {"worker_cpus": 1.0, "max_sessions": 2, "log_level": "warning"}


@dataclass
class Running:
    """The cluster, and what a test does with it."""

    cluster: Any
    pages: list[str]

    async def status(self) -> dict[str, Any]:
        from server.cluster.ray_fleet import DirectoryClient

        return await DirectoryClient().call("status")

    async def worker(self, session_id: str) -> dict[str, Any]:
        name = session_id.partition("-")[0]
        return next(it for it in (await self.status())["workers"] if it["name"] == name)

    async def free(self) -> int:
        workers = (await self.status())["workers"]
        return sum(it["places"] - it["taken"] for it in workers if it["state"] == "ready")

    async def ready(self, number: int, timeout_s: float = 60) -> None:
        async with asyncio.timeout(timeout_s):
            while True:
                workers = (await self.status())["workers"]
                if sum(it["state"] == "ready" for it in workers) >= number:
                    return
                await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Running]:
    from server.cluster import ray_node
    from server.cluster.local import LocalCluster

    config = Config(data_dir=tmp_path_factory.mktemp("data"), **OPTIONS)
    cluster = LocalCluster(config, nodes=3)
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        pages = [cluster.start_gateway(_free_port()) for _ in range(2)]
        cluster.wait_until_ready(pages)
        node = ray_node.join("auto")
        try:
            yield Running(cluster, pages)
        finally:
            node.leave()
    finally:
        cluster.close()
        os.environ.pop("RAY_ADDRESS")
        if before is not None:
            os.environ["RAY_ADDRESS"] = before


@dataclass
class Visit:
    """One browser in one session, as the page would behave."""

    pages: list[str]
    http: aiohttp.ClientSession
    id: str = ""
    resumed: bool = False
    browser: Browser = field(default_factory=lambda: Browser(video_codec="H264"))

    async def beat(self) -> None:
        """Shows that it is there, as the page does."""
        while True:
            if self.browser.channel is not None and self.browser.channel.readyState == "open":
                self.browser.send(type="ping", t=0)
            await asyncio.sleep(1)

    async def offer(self, page: int) -> None:
        body = {**await self.browser.offer(), **({"session_id": self.id} if self.id else {})}
        until_s = time.monotonic() + 10
        while True:
            async with self.http.post(f"{self.pages[page]}/offer", json=body) as response:
                told = await response.json()
            if response.status == 200:
                break
            # A place that has just been given back is known to be free with its worker's next report.
            assert told["error"]["code"] == "server_full" and time.monotonic() < until_s, told
            await asyncio.sleep(0.2)
        await self.browser.accept(told)
        self.id, self.resumed = told["session_id"], told.get("resumed", False)

    async def come_back(self, page: int) -> float:
        """Offers until there are pictures again; seconds that took."""
        began_s = time.monotonic()
        async with asyncio.timeout(30):
            while True:
                await self.browser.__aexit__()
                self.browser = Browser(video_codec="H264")
                await self.browser.__aenter__()
                try:
                    await self.offer(page)
                    await self.browser.watch(5, timeout_s=5)
                    return time.monotonic() - began_s
                except (AssertionError, TimeoutError):
                    await asyncio.sleep(0.25)

    async def post(self, page: int, path: str, **body: Any) -> None:
        async with self.http.post(f"{self.pages[page]}/sessions/{self.id}/{path}", json=body) as response:
            assert response.status < 300, await response.text()

    async def transcript(self, page: int) -> str:
        async with self.http.get(f"{self.pages[page]}/sessions/{self.id}/transcript?format=text") as response:
            assert response.status == 200
            return await response.text()


@asynccontextmanager
async def visit(running: Running, page: int = 0) -> AsyncIterator[Visit]:
    async with aiohttp.ClientSession() as http:
        guest = Visit(running.pages, http)
        await guest.browser.__aenter__()
        beating = asyncio.create_task(guest.beat())
        try:
            await guest.offer(page)
            await guest.browser.watch(5, timeout_s=20)
            yield guest
        finally:
            async with http.delete(f"{running.pages[page]}/sessions/{guest.id}"):
                pass
            beating.cancel()
            await guest.browser.__aexit__()


async def heard(guest: Visit, page: int, words: str) -> None:
    """Returns when it has been said, and had time to be kept."""
    async with asyncio.timeout(20):
        while words not in await guest.transcript(page):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)


async def test_any_gateway_serves_any_session(running: Running) -> None:
    async with visit(running, page=0) as guest:
        await guest.post(1, "say", text="Hello.")
        await guest.browser.expect("speaking")
        worker = await running.worker(guest.id)
        assert worker["taken"] == 1


async def test_a_killed_worker_takes_no_conversation_with_it(running: Running) -> None:
    await running.ready(3)
    async with visit(running) as guest, visit(running) as other:
        await guest.post(0, "ask", text="Hello there.")
        await heard(guest, 0, "Hello there.")
        former = guest.id
        worker = await running.worker(guest.id)
        assert other.id.partition("-")[0] != worker["name"], "newcomers are spread"
        os.kill(worker["pid"], signal.SIGKILL)
        took_s = await guest.come_back(page=1)
        print(f"after kill -9 of the worker: {took_s:.2f} s to moving pictures")
        assert took_s < 25
        assert guest.id != former and guest.resumed
        assert "Hello there." in await guest.transcript(0)
        pictures = len(other.browser.pictures)
        await other.browser.watch(pictures + 5)


async def test_a_lost_node_takes_no_conversation_with_it(running: Running) -> None:
    await running.ready(3)
    async with visit(running) as guest:
        await guest.post(0, "ask", text="Good evening.")
        await heard(guest, 0, "Good evening.")
        node = (await running.worker(guest.id))["node"]
        index = next(n for n, it in enumerate(running.cluster.nodes) if it.node_id == node)
        await asyncio.to_thread(running.cluster.kill_node, index)
        took_s = await guest.come_back(page=0)
        print(f"after the loss of the node: {took_s:.2f} s to moving pictures")
        assert took_s < 25
        assert guest.resumed
        assert "Good evening." in await guest.transcript(1)


async def test_a_full_cluster_has_one_line_for_all_gateways(running: Running) -> None:
    await running.ready(len(running.cluster.nodes))
    async with AsyncExitStack() as stack:
        guests = [await stack.enter_async_context(visit(running))]
        async with asyncio.timeout(30):
            while await running.free() > 0:
                guests.append(await stack.enter_async_context(visit(running, page=len(guests) % 2)))
                # A place that was reserved is taken for good with its worker's next report.
                await asyncio.sleep(0.7)
        http = guests[0].http
        browser = await stack.enter_async_context(Browser(video_codec="H264"))
        offer = {**await browser.offer(), "ticket": ""}
        tickets = []
        for page in running.pages:
            async with http.post(f"{page}/offer", json=offer) as response:
                assert response.status == 503
                tickets.append((await response.json())["queue"])
        assert [it["position"] for it in tickets] == [1, 2]
        # A ticket is good at the other gateway too.
        async with http.post(f"{running.pages[1]}/offer", json={**offer, "ticket": tickets[0]["ticket"]}) as response:
            assert (await response.json())["queue"] == {**tickets[0]}
        for guest, ticket in zip(guests, tickets, strict=False):
            async with http.delete(f"{running.pages[0]}/sessions/{guest.id}") as response:
                assert response.status == 204
            await _comes_in(http, running.pages[1], {**offer, "ticket": ticket["ticket"]})


async def _comes_in(http: aiohttp.ClientSession, page: str, offer: dict[str, Any]) -> None:
    """Offers until there is a place, and gives it back."""
    async with asyncio.timeout(10):
        while True:
            async with http.post(f"{page}/offer", json=offer) as response:
                told = await response.json()
                if response.status == 200:
                    break
            await asyncio.sleep(0.3)
    async with http.delete(f"{page}/sessions/{told['session_id']}") as response:
        assert response.status == 204


async def test_a_drained_worker_keeps_its_sessions_and_gets_no_more(running: Running) -> None:
    from server.cluster.ray_fleet import DirectoryClient

    await running.ready(2)
    async with visit(running) as guest:
        worker = await running.worker(guest.id)
        assert await DirectoryClient().call("drain", worker["name"]) == [worker["name"]]
        await asyncio.sleep(1.5)
        assert (await running.worker(guest.id))["state"] == "draining"
        async with visit(running, page=1) as newcomer:
            assert newcomer.id.partition("-")[0] != worker["name"]
        pictures = len(guest.browser.pictures)
        await guest.browser.watch(pictures + 10)
    async with asyncio.timeout(15):
        while worker["name"] in {it["name"] for it in (await running.status())["workers"]}:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_the_directory_may_die(running: Running) -> None:
    import ray

    from server.cluster.ray_hands import find_directory

    await running.ready(1)
    async with visit(running) as guest:
        epoch = (await running.status())["epoch"]
        ray.kill(find_directory(), no_restart=False)
        pictures = len(guest.browser.pictures)
        await guest.browser.watch(pictures + 10)
        async with visit(running, page=1) as newcomer:
            assert newcomer.id
        assert (await running.status())["epoch"] != epoch
        async with asyncio.timeout(10):
            while guest.id.partition("-")[0] not in {it["name"] for it in (await running.status())["workers"]}:  # noqa: ASYNC110
                await asyncio.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
