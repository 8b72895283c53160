"""A strict receiver of WHIP made of aiohttp and aiortc: what an SFU would insist on, and ways to misbehave."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import SessionDescription

TOKEN = "publisher's-token"


@dataclass
class WhipReceiver:
    """Use as an async context manager; ``url`` is the endpoint.

    Attributes:
        refuse: status to refuse with, instead of an answer.
        redirects: how often it sends on before it answers.
        links: headers ``Link`` of its answers.
        faults: what was wrong with offers.
        pictures: (arrival, brightness, RTP time in seconds); sounds: (arrival, loudest sample).
    """

    port: int = 0
    refuse: int = 0
    refuse_headers: dict[str, str] = field(default_factory=dict)
    redirects: int = 0
    links: tuple[str, ...] = ()
    faults: list[str] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    pictures: list[tuple[float, float, float]] = field(default_factory=list)
    key_frames: list[float] = field(default_factory=list)
    sounds: list[tuple[float, int]] = field(default_factory=list)
    connections: dict[str, RTCPeerConnection] = field(default_factory=dict)

    async def __aenter__(self) -> WhipReceiver:
        self._tasks: list[asyncio.Task] = []
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def listen(self) -> None:
        app = web.Application()
        app.router.add_post("/{path:(whip|moved.*)}", self._post)
        app.router.add_delete("/resource/{id}", self._delete)
        self._runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/whip"

    async def die(self, silently: bool = False) -> None:
        """Stops; silently, so that nobody is told: the sockets are just gone."""
        await self._runner.cleanup()
        for connection in self.connections.values():
            if silently:
                for transceiver in connection.getTransceivers():
                    transport = transceiver.receiver.transport.transport
                    for protocol in transport._connection._protocols:
                        protocol.transport.abort()
            else:
                await _close(connection)
        if not silently:
            self.connections.clear()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def request_key_frame(self) -> None:
        for connection in self.connections.values():
            for transceiver in connection.getTransceivers():
                if transceiver.kind == "video":
                    for ssrc in list(transceiver.receiver._RTCRtpReceiver__remote_streams):
                        await transceiver.receiver._send_rtcp_pli(ssrc)

    async def _post(self, request: web.Request) -> web.Response:
        self.authorizations.append(request.headers.get("Authorization", ""))
        if self.redirects:
            self.redirects -= 1
            return web.Response(status=307, headers={"Location": f"/moved{self.redirects}"})
        if self.refuse:
            return web.Response(status=self.refuse, headers=self.refuse_headers)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        if request.content_type != "application/sdp":
            return web.Response(status=415)
        offer = await request.text()
        self.offers.append(offer)
        self.faults += faults_of(offer)
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self._read(track))))
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        number = str(len(self.offers))
        self.connections[number] = connection
        answer = web.Response(status=201, text=connection.localDescription.sdp, content_type="application/sdp")
        answer.headers.update({"Location": f"/resource/{number}", "ETag": '"one"'})
        for link in self.links:
            answer.headers.add("Link", link)
        return answer

    async def _delete(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        number = request.match_info["id"]
        self.deleted.append(number)
        if number in self.connections:
            await _close(self.connections.pop(number))
        return web.Response()

    async def _read(self, track: Any) -> None:
        try:
            while True:
                frame = await track.recv()
                now_s = time.monotonic()
                if track.kind == "video":
                    luma = frame.to_ndarray(format="gray")
                    self.pictures.append((now_s, float(luma.mean()), frame.time))
                    if frame.key_frame:
                        self.key_frames.append(now_s)
                else:
                    self.sounds.append((now_s, int(abs(frame.to_ndarray()).max())))
        except MediaStreamError:
            return


def faults_of(sdp: str) -> list[str]:
    """What RFC 9725 would mind in an offer."""
    media = SessionDescription.parse(sdp).media
    found = []
    if sorted(section.kind for section in media) != ["audio", "video"]:
        found.append("not one section of each kind")
    if sdp.count("a=group:BUNDLE") != 1:
        found.append("no single bundle")
    for section, text in zip(media, sdp.split("m=")[1:], strict=True):
        if section.direction != "sendonly":
            found.append(f"{section.kind} is {section.direction}")
        if "a=rtcp-mux\r\n" not in text or "a=rtcp-mux-only\r\n" not in text:
            found.append(f"{section.kind} does not multiplex RTCP")
        if "a=setup:actpass" not in text:
            found.append(f"{section.kind} is not actpass")
        names = {codec.mimeType.lower() for codec in section.rtp.codecs} - {"video/rtx"}
        if names != {"audio/opus" if section.kind == "audio" else "video/h264"}:
            found.append(f"{section.kind} offers {names}")
        if not section.msid:
            found.append(f"{section.kind} has no msid")
    if not media[0].ice_candidates or "a=end-of-candidates" not in sdp:
        found.append("candidates are missing, and none will follow")
    return found


async def _close(connection: RTCPeerConnection) -> None:
    await connection.close()
    for transceiver in connection.getTransceivers():
        await transceiver.receiver.transport.transport._connection.close()
