from collections.abc import AsyncIterator

import pytest

from engine.avatar.bundle import Avatar
from engine.session import SessionLimits
from tests.fakes import FakeLipSync, VirtualTime
from tests.session.stage import Stage


@pytest.fixture
async def stage(avatar: Avatar, lipsync: FakeLipSync, virtual_time: VirtualTime) -> AsyncIterator[Stage]:
    """A started session that may hold 200 characters, 3 utterances and 20 s of sound."""
    stage = Stage(avatar, lipsync, virtual_time, SessionLimits(text_chars=200, queued=3, audio_s=20))
    await stage.open()
    yield stage
    await stage.close()
