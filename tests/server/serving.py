"""A running server around a fake stage, and a browser made of aiortc, for the tests of the server."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from engine.config import Config
from server.api import SERVICES
from server.app import create_app
from tests.server.fakes import FakeSession, FakeStage


@dataclass
class Server:
    """A server in this process: ``client`` talks HTTP to it, ``stage`` and ``session`` show what arrived."""

    client: TestClient
    stage: FakeStage

    @property
    def session(self) -> FakeSession:
        return self.stage.sessions[-1]

    @property
    def services(self):
        return self.client.app[SERVICES]

    async def end(self) -> None:
        """Ends all sessions, as a stopping server does."""
        await self.services.sessions.aclose()
        assert self.services.sessions.taken == 0

    async def offer(self, browser: Browser, **more: Any) -> str:
        """Connects a browser; returns the session's id."""
        response = await self.client.post("/offer", json={**await browser.offer(), **more})
        assert response.status == 200, await response.text()
        answer = await response.json()
        await browser.accept(answer)
        return answer["session_id"]

    async def open_session(self) -> str:
        """A session nobody connects to."""
        async with Browser() as browser:
            offer = await browser.offer()
        # Without addresses, so that the server has nothing to check while a test looks at its tasks.
        lines = [line for line in offer["sdp"].splitlines() if not re.match("a=(candidate|end-of-candidates)", line)]
        response = await self.client.post("/offer", json={"sdp": "\r\n".join(lines) + "\r\n", "type": "offer"})
        return (await response.json())["session_id"]


class AsInProduction(TestServer):
    """aiohttp's own test server cancels handlers whose client went away, which a real one does not."""

    async def _make_runner(self, **options: Any):
        return await super()._make_runner(**{**options, "handler_cancellation": False})


async def serve(aiohttp_client, stage: FakeStage | None = None, **options: Any) -> Server:
    config = Config(**options)
    stage = stage or FakeStage(config)
    client = await aiohttp_client(AsInProduction(create_app(config, stage)))
    return Server(client, stage)


@dataclass
class Received:
    """One frame as the browser got it."""

    at_s: float
    frame: Any


@dataclass
class Browser:
    """An aiortc client that behaves like the page. Use as an async context manager.

    Attributes:
        video_codec: the only one offered: ``H264`` or ``VP8``; None offers both.
        pictures, sounds: what arrived.
        messages: what came over the data channel.
    """

    video_codec: str | None = None
    microphone: Any = None
    with_channel: bool = True
    pictures: list[Received] = field(default_factory=list)
    sounds: list[Received] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)

    async def __aenter__(self) -> Browser:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.opened = asyncio.Event()
        self.channel = self.connection.createDataChannel("visavis") if self.with_channel else None
        if self.channel is not None:
            self.channel.on("message", lambda text: self.messages.append(json.loads(text)))
            self.channel.on("open", self.opened.set)
        self.connection.addTransceiver(self.microphone or "audio", "sendrecv" if self.microphone else "recvonly")
        video = self.connection.addTransceiver("video", "recvonly")
        if self.video_codec:
            codecs = RTCRtpReceiver.getCapabilities("video").codecs
            wanted = (f"video/{self.video_codec}", "video/rtx")
            video.setCodecPreferences([codec for codec in codecs if codec.mimeType in wanted])
        self._tasks: list[asyncio.Task] = []
        self.connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self._read(track))))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()
        # What server/peer.py does, for the same reason.
        await asyncio.sleep(0.05)
        for transceiver in self.connection.getTransceivers():
            await transceiver.sender.stop()
            await transceiver.receiver.stop()
            await transceiver.receiver.transport.transport._connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def offer(self) -> dict[str, str]:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        description = self.connection.localDescription
        return {"sdp": description.sdp, "type": description.type}

    async def accept(self, answer: dict[str, str]) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))

    def send(self, **command: Any) -> None:
        self.channel.send(json.dumps(command))

    async def expect(self, kind: str, timeout_s: float = 15) -> dict[str, Any]:
        """The next message of a type that was not taken yet."""
        async with asyncio.timeout(timeout_s):
            while True:
                for index, message in enumerate(self.messages):
                    if message["type"] == kind:
                        return self.messages.pop(index)
                await asyncio.sleep(0.01)

    async def watch(self, pictures: int, timeout_s: float = 20) -> None:
        """Returns when so many pictures have arrived."""
        async with asyncio.timeout(timeout_s):
            while len(self.pictures) < pictures:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _read(self, track) -> None:
        into = self.pictures if track.kind == "video" else self.sounds
        try:
            while True:
                frame = await track.recv()
                into.append(Received(time.monotonic(), frame))
        except MediaStreamError:
            return


async def eventually(condition, timeout_s: float = 10.0) -> None:
    """Returns when a condition holds; fails when it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
