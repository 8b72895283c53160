"""Closing a session runs every stage to its end, whatever becomes of one of them."""

import asyncio

import pytest

from engine.avatar.bundle import Avatar
from engine.session import SessionLimits
from tests.fakes import FakeLipSync, VirtualTime
from tests.session.stage import Stage


class BadlyClosing:
    """Somebody who answers, and does not close as one should."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs

    def published(self, published: object) -> None:
        pass

    async def aclose(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        raise RuntimeError("This fake was told to fail.")


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_stage_that_hangs_or_fails_keeps_none_of_the_others_running(
    avatar: Avatar, lipsync: FakeLipSync, virtual_time: VirtualTime, hangs: bool
) -> None:
    stage = Stage(avatar, lipsync, virtual_time, SessionLimits())
    await stage.open()
    stage.session.converse(BadlyClosing(hangs=hangs))
    stage.session.say("one two three four five")
    await stage.run(5)
    metrics = stage.renderer.metrics.registry
    assert metrics.get_sample_value("visavis_sessions") == 1
    with pytest.raises(TimeoutError if hangs else RuntimeError):
        await asyncio.wait_for(stage.session.aclose(), 0.05)
    _, unended = await asyncio.wait(stage._readers, timeout=2.0)
    assert not unended, "frames and events end"
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert not [name for name in names if name.startswith(("session", "producer"))]
    assert metrics.get_sample_value("visavis_sessions") == 0
    await stage.session.aclose()
