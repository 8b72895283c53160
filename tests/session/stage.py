"""A session on virtual time with fake models, and what its tests ask about the frames."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import numpy as np

from engine.avatar.bundle import Avatar
from engine.clock import FRAME_S, FrameClock
from engine.session import Session, SessionLimits
from engine.types import AvatarFrame, Event
from engine.voice_stages import VoiceStages
from tests.fakes import FakeLipSync, FakeVoice, VirtualRenderer, VirtualTime


class Stage:
    """A started session on virtual time, with everything that came out of it."""

    def __init__(
        self,
        avatar: Avatar,
        lipsync: FakeLipSync,
        time: VirtualTime,
        limits: SessionLimits,
        stages: VoiceStages | None = None,
    ) -> None:
        self.time = time
        self.lipsync = lipsync
        self.renderer = VirtualRenderer(lipsync, time)
        self.voice = FakeVoice(time_source=time)
        self.clock = FrameClock(source=time)
        self.session = Session(avatar, self.renderer, self.voice, clock=self.clock, limits=limits, stages=stages)
        self.frames: list[AvatarFrame] = []
        self.at_s: list[float] = []
        self.events: list[Event] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._readers: list[asyncio.Task] = []

    async def open(self) -> None:
        await self.session.start()
        subscription = self.session.events()
        self._readers = [asyncio.create_task(self._read_frames()), asyncio.create_task(self._read_events(subscription))]

    async def run(self, frames: int) -> list[AvatarFrame]:
        """Lets so many frames pass; returns them."""
        before = len(self.frames)
        await self.time.advance(frames * FRAME_S)
        return self.frames[before:]

    def of(self, kind: str) -> list[dict]:
        return [dict(event.data) for event in self.events if event.type == kind]

    async def close(self) -> None:
        await self.session.aclose()
        await asyncio.gather(*self._readers)

    async def _read_frames(self) -> None:
        async for frame in self.session:
            self.frames.append(frame)
            self.at_s.append(self.time.now_s())
            await self.reading.wait()

    async def _read_events(self, subscription) -> None:
        async with aclosing(subscription):
            async for event in subscription:
                self.events.append(event)


def sound(frames: list[AvatarFrame]) -> np.ndarray:
    return np.concatenate([frame.audio for frame in frames])


def spoken(frames: list[AvatarFrame]) -> list[AvatarFrame]:
    return [frame for frame in frames if frame.speaking]


async def hear(stage: Stage, samples: np.ndarray) -> list[AvatarFrame]:
    """Speaks into the microphone in 20 ms chunks, in real time."""
    before = len(stage.frames)
    for start in range(0, len(samples) - 959, 960):
        stage.session.hear(samples[start : start + 960])
        await stage.time.advance(0.02)
    return stage.frames[before:]
