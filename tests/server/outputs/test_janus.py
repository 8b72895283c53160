"""WHIP into a real SFU: viewers of Janus see and hear the face, late ones too, and it comes back after Janus died."""

from __future__ import annotations

import asyncio

import pytest
from aiortc.mediastreams import MediaStreamError

from server.outputs.base import Output
from server.outputs.whip import WhipDelivery
from tests.server.outputs.janus import Janus, JanusWhip, is_installed
from tests.server.serving import eventually

pytestmark = pytest.mark.skipif(not is_installed(), reason="janus is not installed")


class Viewer:
    def __init__(self) -> None:
        self.pictures: list[float] = []
        self.sounds: list[int] = []
        self.tasks: list[asyncio.Task] = []

    def on_track(self, track) -> None:
        self.tasks.append(asyncio.create_task(self._read(track)))

    async def _read(self, track) -> None:
        try:
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.pictures.append(float(frame.to_ndarray(format="gray").mean()))
                else:
                    self.sounds.append(int(abs(frame.to_ndarray()).max()))
        except MediaStreamError:
            return


async def test_viewers_of_janus_see_and_hear_and_it_comes_back(face, tmp_path, monkeypatch):
    # Janus reports every second.
    monkeypatch.setattr("server.outputs.whip.SILENCE_S", 3.0)
    async with Janus(tmp_path) as janus, JanusWhip(janus, "token") as endpoint:
        output = Output("sfu", WhipDelivery(endpoint.url, "token", tuple), face, lambda state: None)
        await eventually(lambda: output.to_dict()["state"] == "live", 8)
        for _ in range(2):
            viewer = Viewer()
            connection = await janus.watch(endpoint.publishers[-1], viewer.on_track)
            await eventually(lambda viewer=viewer: len(viewer.pictures) > 30 and len(viewer.sounds) > 60, 8)
            assert max(viewer.pictures) > 200 and min(viewer.pictures) < 100 and max(viewer.sounds) > 8000
            await connection.close()
            await asyncio.gather(*viewer.tasks)
        await janus.stop()
        await eventually(lambda: output.to_dict()["state"] == "waiting", 12)
        await janus.start()
        await eventually(lambda: output.to_dict()["state"] == "live" and len(endpoint.publishers) > 1, 12)
        await output.aclose()
        assert output.to_dict()["reconnects"] >= 1
