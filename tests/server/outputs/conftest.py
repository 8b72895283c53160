"""A face that flashes and beeps once a second, as outputs are shown it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from engine.types import AvatarFrame
from server.encoder_pool import EncoderPool
from server.fan import Fan
from tests.server.fakes import FakeSession

BITRATE = 1_000_000


class Face:
    """The part of a live session that is sent, without a server around it."""

    def __init__(self) -> None:
        self.session = FakeSession()
        self.pool = EncoderPool()
        self.fan = Fan(self.session.clock, self.pool, BITRATE)
        self.watchers: set[Callable[[AvatarFrame], None]] = {self.fan.offer}

    async def run(self) -> None:
        async for frame in self.session:
            for watcher in list(self.watchers):
                watcher(frame)


@pytest.fixture
async def face() -> AsyncIterator[Face]:
    """It runs as long as the test."""
    face = Face()
    task = asyncio.create_task(face.run())
    yield face
    await face.session.aclose()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await face.fan.aclose()
    await face.pool.aclose()
