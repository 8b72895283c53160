"""The built-in model and voice in a session: what is live is what is rendered offline."""

import asyncio

import numpy as np
import pytest

from engine.audio.pcm import to_playout
from engine.avatar.bundle import Avatar
from engine.clock import FrameClock
from engine.lipsync.base import LipSync
from engine.offline import render_offline
from engine.registry import create_lipsync, create_voice
from engine.session import Session
from engine.types import AvatarFrame
from tests.fakes import VirtualRenderer, VirtualTime, idle_number


@pytest.fixture(scope="module")
def builtin() -> LipSync:
    return create_lipsync("builtin", threads=1)


@pytest.mark.may_block_loop
async def test_spoken_text_live_equals_offline_bit_for_bit(
    builtin: LipSync, avatar: Avatar, virtual_time: VirtualTime
) -> None:
    voice = create_voice("espeak")
    samples = np.concatenate([to_playout(p.samples, p.sample_rate) async for p in voice.speak("Hello there.")])
    renderer = VirtualRenderer(builtin, virtual_time)
    session = Session(avatar, renderer, voice, clock=FrameClock(source=virtual_time))
    await session.start()
    frames: list[AvatarFrame] = []

    async def read() -> None:
        async for frame in session:
            frames.append(frame)

    reading = asyncio.create_task(read())
    stream = session.open_stream()
    for start in range(0, len(samples), 960):
        await stream.push(samples[start : start + 960])
        await virtual_time.advance(0.017)
    await stream.end()
    await virtual_time.advance(1.0)
    await session.aclose()
    await reading
    live = [frame for frame in frames if frame.speaking]
    offline = list(render_offline(avatar, builtin, samples, start=idle_number(live[0].image)))
    assert len(offline) == len(live) > 10
    for a, b in zip(live, offline, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.mouth, b.mouth)
    assert max(frame.mouth[0] for frame in live) > 0.1, "the jaw opens for a vowel"
