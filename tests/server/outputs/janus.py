"""A real Janus on free ports with its video room, and the thin WHIP endpoint that Debian's Janus lacks before it."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from tests.server.outputs.nginx import free_port

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu/janus")
ROOM = 1234

_CORE = """
general: {{ configs_folder = "{folder}"  plugins_folder = "{libraries}/plugins"
  transports_folder = "{libraries}/transports"  events_folder = "{folder}"  loggers_folder = "{folder}"
  debug_level = 3  session_timeout = 60  no_webrtc_encryption = false }}
nat: {{ nice_debug = false  full_trickle = false }}
plugins: {{ disable = "{others}" }}
transports: {{ disable = "{transports}" }}
events: {{ broadcast = false }}
"""
_HTTP = (
    'general: {{ json = "plain"  base_path = "/janus"  http = true  port = {port}\n'
    '  ip = "127.0.0.1"  https = false }}\n'
)
_ROOM = (
    'room-{room}: {{ description = "test"  publishers = 4  bitrate = 3000000  fir_freq = 10\n'
    '  audiocodec = "opus"  videocodec = "h264"  h264_profile = "42e01f"  notify_joining = false }}\n'
)


def is_installed() -> bool:
    return shutil.which("janus") is not None and (LIBRARIES / "plugins/libjanus_videoroom.so").exists()


class Janus:
    """An async context manager around one process and its API."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        others = (path.name for path in (LIBRARIES / "plugins").glob("*.so") if "videoroom" not in path.name)
        transports = (path.name for path in (LIBRARIES / "transports").glob("*.so") if "http" not in path.name)
        core = _CORE.format(
            folder=folder, libraries=LIBRARIES, others=",".join(others), transports=",".join(transports)
        )
        (folder / "janus.jcfg").write_text(core)
        (folder / "janus.transport.http.jcfg").write_text(_HTTP.format(port=self._port))
        (folder / "janus.plugin.videoroom.jcfg").write_text(_ROOM.format(room=ROOM))

    async def __aenter__(self) -> Janus:
        self._http = aiohttp.ClientSession()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._http.close()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            "janus", "-C", str(self._folder / "janus.jcfg"), "-F", str(self._folder), "-N",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(10):
            while True:
                try:
                    await self.ask("", janus="create")
                    return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def ask(self, path: str, **message: Any) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/janus{path}"
        async with self._http.post(url, json={"transaction": secrets.token_hex(6), **message}) as answer:
            return await answer.json(content_type=None)

    async def handle(self) -> str:
        """A new session with the video room attached; its path."""
        session = (await self.ask("", janus="create"))["data"]["id"]
        attached = await self.ask(f"/{session}", janus="attach", plugin="janus.plugin.videoroom")
        return f"/{session}/{attached['data']['id']}"

    async def tell(self, handle: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Sends a message to the room and returns the event that answers it."""
        sent = await self.ask(handle, janus="message", body=body, **more)
        url = f"http://127.0.0.1:{self._port}/janus/{handle.split('/')[1]}"
        while True:
            async with self._http.get(url) as answer:
                event = await answer.json(content_type=None)
            if event.get("janus") == "event" and event.get("transaction") == sent["transaction"]:
                return event

    async def watch(self, publisher: int, on_track: Any) -> RTCPeerConnection:
        """A viewer of somebody in the room, made of aiortc."""
        handle = await self.handle()
        streams = [{"feed": publisher}]
        event = await self.tell(handle, {"request": "join", "ptype": "subscriber", "room": ROOM, "streams": streams})
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.on("track", on_track)
        await connection.setRemoteDescription(RTCSessionDescription(event["jsep"]["sdp"], "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        answer = {"type": "answer", "sdp": connection.localDescription.sdp}
        await self.tell(handle, {"request": "start", "room": ROOM}, jsep=answer)
        return connection


class JanusWhip:
    """A WHIP endpoint whose publishers come into Janus' room."""

    def __init__(self, janus: Janus, token: str) -> None:
        self._janus = janus
        self._token = token
        self.publishers: list[int] = []
        self._handles: dict[str, str] = {}
        self.port = 0

    async def __aenter__(self) -> JanusWhip:
        app = web.Application()
        app.router.add_post("/whip", self._post)
        app.router.add_delete("/resource/{number}", self._delete)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/whip"

    async def _post(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.Response(status=401)
        try:
            handle = await self._janus.handle()
            joined = await self._janus.tell(handle, {"request": "join", "ptype": "publisher", "room": ROOM})
            offer = {"type": "offer", "sdp": await request.text()}
            event = await self._janus.tell(handle, {"request": "publish"}, jsep=offer)
        except (aiohttp.ClientError, KeyError):
            return web.Response(status=502)
        self.publishers.append(joined["plugindata"]["data"]["id"])
        number = str(len(self.publishers))
        self._handles[number] = handle
        answer = web.Response(status=201, text=event["jsep"]["sdp"], content_type="application/sdp")
        answer.headers["Location"] = f"/resource/{number}"
        return answer

    async def _delete(self, request: web.Request) -> web.Response:
        handle = self._handles.pop(request.match_info["number"], None)
        if handle is None:
            return web.Response(status=404)
        await self._janus.ask("/" + handle.split("/")[1], janus="destroy")
        return web.Response()
