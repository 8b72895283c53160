"""Actions and listening: what a session does beside speaking, live and offline alike."""

import dataclasses
import itertools
from collections.abc import AsyncIterator

import numpy as np
import pytest

from engine.audio.window import RollingWindows
from engine.avatar.body import ATTENTIVE_FRAMES, Body
from engine.avatar.bundle import Avatar
from engine.avatar.tracks import FADE_FRAMES, MAX_DELAY_FRAMES
from engine.errors import Closed, NotFound
from engine.planner import FramePlanner
from engine.renderer import render_now
from engine.session import Session, SessionLimits
from engine.types import AvatarFrame
from tests.fakes import FakeLipSync, VirtualTime, babble, is_silent, mouth_height, tiny_avatar, tiny_clip, tone
from tests.session.stage import Stage, spoken

NOD = 30


@pytest.fixture(scope="module")
def actor() -> Avatar:
    clips = {"nod": tiny_clip(NOD, 250, shift=5), "thinking": tiny_clip(26, 200, loop=True, shift=-4)}
    return dataclasses.replace(tiny_avatar(), clips=clips)


@pytest.fixture
async def stage(actor: Avatar, lipsync: FakeLipSync, virtual_time: VirtualTime) -> AsyncIterator[Stage]:
    stage = Stage(actor, lipsync, virtual_time, SessionLimits())
    await stage.open()
    yield stage
    await stage.close()


def corner(frame: AvatarFrame) -> float:
    """The shade by which fakes tell their tracks apart."""
    return float(frame.image[2:14, 2:14].mean())


async def test_action_is_shown_once_and_told_about(stage: Stage) -> None:
    await stage.run(5)
    stage.session.act("nod")
    frames = await stage.run(MAX_DELAY_FRAMES + NOD + 10)
    shown = [index for index, frame in enumerate(frames) if corner(frame) == 250]
    assert len(shown) == NOD - 2 * FADE_FRAMES and shown == list(range(shown[0], shown[-1] + 1))
    assert corner(frames[-1]) < 250
    assert stage.of("action_started") == stage.of("action_ended") == [{"name": "nod"}]
    assert stage.session is not None and not stage.of("state")


async def test_body_in_motion_keeps_pace(stage: Stage) -> None:
    stage.renderer.compute_s = 0.02
    await stage.run(5)
    stage.session.act("thinking")
    await stage.run(20)
    stage.session.play(tone(0.8))
    await stage.run(20)
    stage.session.act("nod")
    frames = await stage.run(60)
    assert [frame.pts for frame in frames] == list(range(frames[0].pts, frames[0].pts + len(frames)))
    late_s = [at_s - stage.clock.due_s(frame.pts) for frame, at_s in zip(stage.frames, stage.at_s, strict=True)]
    assert max(late_s) <= 0
    stage.session._narrator.report()
    await stage.run(1)
    assert stage.of("metrics")[-1]["held"] == 0


async def test_speech_is_drawn_on_an_action_and_on_its_fades(stage: Stage) -> None:
    stage.session.play(tone(2.5))
    await stage.run(10)
    stage.session.act("nod")
    frames = spoken(await stage.run(MAX_DELAY_FRAMES + NOD + 5))
    heights = [mouth_height(frame.image) for frame in frames]
    assert {corner(frame) for frame in frames} >= {250.0} and min(heights) > 8
    assert len({round(corner(frame)) for frame in frames}) > 10


async def test_thinking_ends_when_speech_begins(stage: Stage) -> None:
    stage.session.act("thinking")
    frames = await stage.run(60)
    assert corner(frames[-1]) == 200 and stage.of("action_ended") == []
    stage.session.play(tone(1.0))
    frames = await stage.run(FADE_FRAMES + 8)
    assert corner(frames[-1]) != 200 and stage.of("action_ended") == [{"name": "thinking"}]


async def test_action_can_be_stopped(stage: Stage) -> None:
    stage.session.stop_action()
    stage.session.act("thinking")
    await stage.run(20)
    stage.session.stop_action()
    frames = await stage.run(FADE_FRAMES + 6)
    assert corner(frames[-1]) != 200 and stage.of("action_ended") == [{"name": "thinking"}]


async def test_interrupt_takes_back_sound_and_not_the_action(stage: Stage) -> None:
    stage.session.play(tone(3.0))
    await stage.run(10)
    stage.session.act("nod")
    await stage.session.interrupt()
    frames = await stage.run(MAX_DELAY_FRAMES + NOD + 10)
    assert all(is_silent(frame.audio) for frame in frames[2:])
    assert sum(corner(frame) == 250 for frame in frames) == NOD - 2 * FADE_FRAMES
    assert stage.of("action_started") == stage.of("action_ended") == [{"name": "nod"}]


async def test_listening_differs_from_idle_and_ends_with_speech(stage: Stage) -> None:
    idle = {frame.image.tobytes() for frame in await stage.run(24)}
    stage.session.set_listening(True)
    frames = (await stage.run(48))[30:]
    assert not any(frame.image.tobytes() in idle for frame in frames)
    stage.session.play(tone(0.6))
    await stage.run(15 + ATTENTIVE_FRAMES + 5)
    stage.session.set_listening(False)
    frames = (await stage.run(60))[40:]
    assert all(frame.image.tobytes() in idle for frame in frames)
    assert [data["state"] for data in stage.of("state")] == ["listening", "speaking", "idle", "listening", "idle"]


async def test_no_frame_of_a_transition_changes_more_than_a_share_of_a_cut(stage: Stage, actor: Avatar) -> None:
    await stage.run(5)
    start = len(stage.frames)
    stage.session.act("nod")
    stage.session.set_listening(True)
    await stage.run(70)
    images = [frame.image[16:].astype(int) for frame in stage.frames[start - 1 :]]
    changes = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(images)]
    idle = [float(np.abs(b.astype(int) - a).mean()) for a, b in itertools.pairwise(actor.frames)]
    cut = float(np.abs(actor.frames[0].astype(int) - actor.clips["nod"].frames[0])[16:].mean())
    assert max(changes) < max(idle) + 0.3 * cut


async def test_streaming_equals_offline_through_actions_bit_for_bit(stage: Stage, actor: Avatar) -> None:
    samples = babble(3.2)
    stage.session.play(samples)
    await stage.run(10)
    stage.session.act("nod")
    stage.session.set_listening(True)
    await stage.run(90)
    live = spoken(stage.frames)
    lipsync = FakeLipSync()
    prepared = lipsync.prepare(actor)

    def equal(asked_at: int) -> bool:
        planner, windows = FramePlanner(Body(actor)), RollingWindows(lipsync.window)
        windows.push(samples)
        windows.end()
        for _ in range(live[0].pts):
            planner.rest()
        for number, frame in enumerate(live):
            if number == asked_at:
                planner.wishes = dataclasses.replace(planner.wishes.act("nod"), listening=True)
            _, mel, audio = windows.next()
            drawn = render_now(lipsync, planner.speak(mel, audio, 1).job(prepared))
            if not np.array_equal(drawn.image, frame.image):
                return False
        return True

    # Frames that were committed when the action was asked for, at most six, do not know of it.
    asked = 10 - live[0].pts
    assert [equal(asked + ahead) for ahead in range(8)].count(True) == 1
    assert sum(corner(frame) == 250 for frame in live) == NOD - 2 * FADE_FRAMES


async def test_unknown_action_names_those_there_are(stage: Stage) -> None:
    with pytest.raises(NotFound, match="nod, thinking") as caught:
        stage.session.act("somersault")
    assert caught.value.code == "action_unknown"
    await stage.session.aclose()
    for call in (
        lambda: stage.session.act("nod"),
        stage.session.stop_action,
        lambda: stage.session.set_listening(True),
    ):
        with pytest.raises(Closed):
            call()


async def test_session_that_was_not_started_cannot_act(actor: Avatar, stage: Stage) -> None:
    session = Session(actor, stage.renderer, stage.voice)
    with pytest.raises(Closed):
        session.act("nod")
    await session.aclose()
