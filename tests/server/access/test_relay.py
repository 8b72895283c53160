"""A real coturn takes the credentials, and picture and sound go through it."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

from engine.config import Config
from server.access.turn import SPARE_S, IceServers
from server.signaling import rtc_configuration
from tests.server.serving import Browser, serve

pytestmark = pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn (turnserver) is not installed")

SECRET = "north"


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def coturn(folder: Path) -> AsyncIterator[str]:
    """A relay on the loopback interface; yields its URL."""
    port = free_udp_port()
    process = await asyncio.create_subprocess_exec(
        "turnserver", "-n", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay", "--use-auth-secret",
        f"--static-auth-secret={SECRET}", "--realm=visavis.test", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
        f"--listening-port={port}", "--allow-loopback-peers", "--cli-password=unused", "--log-file=stdout",
        f"--pidfile={folder / 'turn.pid'}", f"--userdb={folder / 'turn.db'}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await answers(port)
        yield f"turn:127.0.0.1:{port}?transport=udp"
    finally:
        process.terminate()
        await process.wait()


async def answers(port: int) -> None:
    """Returns when a STUN binding request is answered."""
    request = bytes.fromhex("000100002112a442") + b"visavis-test"
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        probe.connect(("127.0.0.1", port))
        async with asyncio.timeout(10):
            while True:
                try:
                    await loop.sock_sendall(probe, request)
                    async with asyncio.timeout(0.2):
                        await loop.sock_recv(probe, 1000)
                    return
                except (TimeoutError, ConnectionRefusedError):
                    await asyncio.sleep(0.05)


def only_relayed(description: dict[str, str]) -> dict[str, str]:
    """The description without the addresses under which its author could be reached directly."""
    lines = description["sdp"].splitlines()
    kept = [line for line in lines if not line.startswith("a=candidate") or "typ relay" in line]
    assert any("typ relay" in line for line in kept), "the relay gave no address"
    return {**description, "sdp": "\r\n".join(kept) + "\r\n"}


async def test_a_session_through_the_relay_alone(aiohttp_client, tmp_path):
    async with coturn(tmp_path) as url:
        server = await serve(aiohttp_client, turn_urls=(url,), turn_secret=SECRET)
        async with server.client.post("/tokens", json={}) as response:
            minted = await response.json()
        async with Browser() as browser:
            await browser.connection.close()
            browser.connection = RTCPeerConnection(rtc_configuration(minted["ice_servers"]))
            browser.connection.addTransceiver("audio", "recvonly")
            browser.connection.addTransceiver("video", "recvonly")
            tasks = browser._tasks
            browser.connection.on("track", lambda track: tasks.append(asyncio.create_task(browser._read(track))))
            offer = only_relayed(await browser.offer())
            async with server.client.post("/offer", json={**offer, "token": minted["token"]}) as response:
                answer = await response.json()
            await browser.accept(only_relayed(answer))
            await browser.watch(20)
            transport = browser.connection.getTransceivers()[0].receiver.transport.transport._connection
            pairs = transport._nominated.values()
            assert pairs and all("relay" in (pair.local_candidate.type, pair.remote_candidate.type) for pair in pairs)
            await server.end()


async def relayed(server: dict[str, str]) -> bool:
    """Whether a relay gives an address for credentials."""
    connection = RTCPeerConnection(
        RTCConfiguration([RTCIceServer(server["urls"], server["username"], server["credential"])])
    )
    connection.addTransceiver("audio", "recvonly")
    try:
        await connection.setLocalDescription(await connection.createOffer())
        return bool(re.search("^a=candidate.* typ relay", connection.localDescription.sdp, re.MULTILINE))
    finally:
        await connection.close()


async def test_the_relay_refuses_credentials_that_ended_and_those_of_another_secret(tmp_path):
    async with coturn(tmp_path) as url:
        config = Config(turn_urls=(url,), turn_secret=SECRET, max_session_s=60)
        assert await relayed(IceServers(config).fresh()[0])
        ended = IceServers(config, lambda: time.time() - 60 - SPARE_S - 5).fresh()[0]
        assert not await relayed(ended)
        other = Config(turn_urls=(url,), turn_secret="south")
        assert not await relayed(IceServers(other).fresh()[0])
