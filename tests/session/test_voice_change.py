"""The voice of a session is changed between what speaks and what is heard, and nothing is out of time for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from engine.avatar.bundle import Avatar
from engine.conversation.voice.base import VoiceChange
from engine.errors import BackendFailed, InvalidInput, NotFound
from engine.session import SessionLimits
from engine.voice_stages import VoiceStages
from tests.fakes import FakeLipSync, VirtualTime, tone
from tests.session.stage import Stage, sound, spoken

HELD_SAMPLES = 1000


class Inverted:
    """Turns sound upside down and holds some of it back, as a real stage does."""

    delay_s = HELD_SAMPLES / 16_000

    def __init__(self) -> None:
        self._held = np.zeros(0, np.int16)

    def open(self, sample_rate: int, *, live: bool = True) -> Inverted:
        assert (sample_rate, live) == (16_000, True)
        return Inverted()

    async def push(self, samples: np.ndarray) -> np.ndarray:
        held = np.concatenate([self._held, samples])
        certain = max(0, len(held) - HELD_SAMPLES)
        self._held = held[certain:]
        return -held[:certain]

    async def flush(self) -> np.ndarray:
        rest, self._held = self._held, np.zeros(0, np.int16)
        return -rest


class Broken(Inverted):
    """Fails on its first sound."""

    def open(self, sample_rate: int, *, live: bool = True) -> Broken:
        return Broken()

    async def push(self, samples: np.ndarray) -> np.ndarray:
        raise BackendFailed("conversion_failed", "The fake stage was told to fail.")


class FakeStages(VoiceStages):
    """Knows one conversion and one that fails."""

    async def stage(self, change: VoiceChange) -> Inverted | None:
        known = {"": None if not change.changes else Inverted(), "upside-down": Inverted(), "broken": Broken()}
        if change.conversion not in known:
            raise NotFound("voice_conversion_unknown", "There is no such voice.")
        return known[change.conversion]


@pytest.fixture
async def stage(avatar: Avatar, lipsync: FakeLipSync, virtual_time: VirtualTime) -> AsyncIterator[Stage]:
    stage = Stage(avatar, lipsync, virtual_time, SessionLimits(text_chars=200, queued=8, audio_s=20), FakeStages())
    await stage.open()
    yield stage
    await stage.close()


async def said(stage: Stage, text: str) -> np.ndarray:
    """The frames in which a text is heard."""
    stage.session.say(text)
    return sound(spoken(await stage.run(30)))


async def test_a_changed_voice_is_as_long_and_in_time(stage: Stage) -> None:
    plain = await said(stage, "one two three. four five.")
    captions = [(data["text"], data["start_ms"], data["end_ms"]) for data in stage.of("caption")]
    await stage.session.set_voice(pitch=2)
    changed = await said(stage, "one two three. four five.")
    assert np.abs(changed.astype(int) + plain).max() <= 1
    assert [(data["text"], data["start_ms"], data["end_ms"]) for data in stage.of("caption")] == 2 * captions


async def test_a_reply_is_changed_too(stage: Stage) -> None:
    plain = await said(stage, "one two")
    await stage.session.set_voice(conversion="upside-down")
    reply = stage.session.open_reply()
    reply.add("one two")
    reply.end()
    assert np.abs(sound(spoken(await stage.run(30))).astype(int) + plain).max() <= 1


async def test_what_a_person_plays_is_left_as_it_is(stage: Stage) -> None:
    await stage.session.set_voice(pitch=2)
    stage.session.play(tone(0.4))
    assert np.array_equal(sound(spoken(await stage.run(15)))[: len(tone(0.4))], tone(0.4))


async def test_the_change_can_be_taken_back(stage: Stage) -> None:
    plain = await said(stage, "one two")
    await stage.session.set_voice(pitch=2)
    assert stage.session.voice_change == VoiceChange(2)
    await stage.session.set_voice()
    assert stage.session.voice_change == VoiceChange()
    assert np.array_equal(await said(stage, "one two"), plain)


@pytest.mark.parametrize("change", [{"conversion": "nobody"}, {"pitch": 12.5}, {"formant": float("nan")}])
async def test_a_change_that_cannot_be_changes_nothing(stage: Stage, change: dict) -> None:
    await stage.session.set_voice(pitch=2)
    with pytest.raises((NotFound, InvalidInput)):
        await stage.session.set_voice(**change)
    assert stage.session.voice_change == VoiceChange(2)


async def test_a_stage_that_fails_is_an_event_and_the_session_goes_on(stage: Stage) -> None:
    await stage.session.set_voice(conversion="broken")
    assert not len(spoken(stage.frames))
    stage.session.say("one two")
    await stage.run(20)
    assert [data["code"] for data in stage.of("error")] == ["conversion_failed"]
    await stage.session.set_voice()
    assert len(await said(stage, "one two"))
