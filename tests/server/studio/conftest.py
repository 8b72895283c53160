"""A server whose studio makes avatars with a script of the test's own, in a real process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine.config import Config
from server.studio.process import WorkerProcess
from server.studio.routes import STUDIO, Studio
from tests.server.fakes import FakeStage
from tests.server.serving import Server, serve
from tests.server.studio import files

START = """
import json, os, pathlib, sys, time
task = json.loads(sys.stdin.readline())
def tell(**line): print(json.dumps(line), flush=True)
def make():
    made = pathlib.Path(task["folder"]) / "made" / task["name"]
    made.mkdir(parents=True)
    (made / "avatar.toml").write_text(
        'title = %s\\nfps = 25\\nsize = [64, 64]\\nlicence = "none"\\nsource = "a test"\\nsynthetic = true\\n'
        % json.dumps(task["title"]))
    (made / "preview.mp4").write_bytes(b"preview")
"""
MAKES = "tell(stage='finding the face', progress=0.25)\nmake()\ntell(made=True)"
HANGS = "tell(stage='finding the face', progress=0.25)\ntime.sleep(600)"
MAYA = {"title": "Maya Two", "synthetic": "yes"}


@dataclass
class Workshop:
    """A server with a studio; ``data`` is its folder of data."""

    server: Server
    data: Path

    @property
    def studio(self) -> Studio:
        return self.server.client.app[STUDIO]

    async def post(
        self, data: bytes | None = None, filename: str = "face.png", **fields: str
    ) -> aiohttp.ClientResponse:
        form = aiohttp.FormData()
        for key, value in (fields or MAYA).items():
            form.add_field(key, value)
        form.add_field("file", files.png() if data is None else data, filename=filename, content_type="image/png")
        return await self.server.client.post("/avatars", data=form)

    async def make(self, **fields: str) -> dict[str, Any]:
        response = await self.post(**fields)
        assert response.status == 202, await response.text()
        return await response.json()

    async def until(self, job: str, *states: str, timeout_s: float = 60) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            while True:
                answer = await (await self.server.client.get(f"/avatars/{job}/job")).json()
                if answer["state"] in states:
                    return answer
                await asyncio.sleep(0.02)

    async def names(self) -> list[str]:
        answer = await (await self.server.client.get("/avatars")).json()
        return [card["name"] for card in answer["avatars"]]

    def remains(self) -> list[str]:
        """Everything in the data folder that is neither a finished avatar nor the workplace's lock."""
        return sorted(
            str(path.relative_to(self.data))
            for path in self.data.rglob("*")
            if path.is_file() and path.name != "lock" and path.relative_to(self.data).parts[0] != "avatars"
        )


@pytest.fixture
def worker_script(tmp_path: Path) -> Callable[[Config, str], WorkerProcess]:
    """Makes a worker of a few lines of Python."""

    def make(config: Config, script: str) -> WorkerProcess:
        path = tmp_path / "worker.py"
        path.write_text(START + script)
        return WorkerProcess(config, [sys.executable, str(path)])

    return make


@pytest.fixture
def workshop(aiohttp_client, monkeypatch, data_home, worker_script) -> Callable[..., Awaitable[Workshop]]:
    """Makes a server: ``await workshop(script, **options)``."""

    async def make(script: str = MAKES, **options: Any) -> Workshop:
        config = Config(**options)
        monkeypatch.setattr("server.app.WorkerProcess", lambda config: worker_script(config, script))
        return Workshop(await serve(aiohttp_client, FakeStage(config), **options), data_home)

    return make


def events(text: str) -> list[dict[str, Any]]:
    """The data of server-sent events."""
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
