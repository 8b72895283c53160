"""Fixtures of tests about conversations."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine.avatar.bundle import Avatar
from tests.conversation.conversing import Talk
from tests.fakes import FakeLipSync, VirtualTime


@pytest.fixture
async def talk(avatar: Avatar, lipsync: FakeLipSync, virtual_time: VirtualTime) -> AsyncIterator[Talk]:
    talk = Talk(avatar, lipsync, virtual_time)
    await talk.open()
    yield talk
    await talk.close()
