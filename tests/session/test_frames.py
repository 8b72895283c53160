import asyncio
import itertools

import numpy as np
import pytest

from engine.avatar.bundle import Avatar
from engine.offline import render_offline
from engine.renderer import Renderer
from engine.session import Session
from engine.types import FRAME_SAMPLES, AvatarFrame
from tests.fakes import (
    TINY_FRAMES,
    FakeLipSync,
    FakeVoice,
    VirtualTime,
    babble,
    idle_number,
    is_silent,
    mouth_height,
    silence,
    tone,
)
from tests.session.stage import Stage, sound, spoken


async def test_idle_frames_come_at_once_and_on_time(stage: Stage) -> None:
    await stage.run(30)
    frames = stage.frames
    assert frames[0].pts == 0 and len(frames) == 31
    assert not any(frame.speaking or frame.utterance_id or not is_silent(frame.audio) for frame in frames)
    late_s = [at_s - stage.clock.due_s(frame.pts) for frame, at_s in zip(frames, stage.at_s, strict=True)]
    assert all(-0.011 <= late <= 0 for late in late_s)


async def test_pts_are_consecutive_and_the_body_never_jumps(stage: Stage) -> None:
    await stage.run(5)
    stage.session.play(babble(0.8))
    await stage.run(30)
    await stage.session.interrupt()
    stage.session.say("two words")
    await stage.run(40)
    frames = stage.frames
    assert [frame.pts for frame in frames] == list(range(frames[0].pts, frames[0].pts + len(frames)))
    bodies = [idle_number(frame.image) for frame in frames]
    assert all((b - a) % TINY_FRAMES == 1 for a, b in itertools.pairwise(bodies))


async def test_no_model_time_is_spent_on_idle_and_digital_silence(stage: Stage) -> None:
    stage.session.play(silence(1.0))
    frames = await stage.run(40)
    assert len(spoken(frames)) == 25
    assert stage.lipsync.predicted == 0


async def test_a_frame_says_when_it_is_a_picture_as_it_is_and_then_only(avatar: Avatar, stage: Stage) -> None:
    await stage.run(5)
    stage.session.play(tone(0.6))
    await stage.run(20)
    stage.session.set_listening(True)
    await stage.run(60)
    stage.session.set_listening(False)
    await stage.run(40)
    told = [frame.still for frame in stage.frames]
    assert [still is not None for still in told] == [
        frame.pose.plain and np.array_equal(frame.image, avatar.picture(frame.pose.index)) for frame in stage.frames
    ]
    assert {still[0] for still in told if still is not None} == {avatar}
    assert all(still is None or still[1] == frame.pose.index for still, frame in zip(told, stage.frames, strict=True))
    assert told[0] and told[-1] and told.count(None) >= 20


async def test_whoever_does_nothing_wakes_once_a_frame(stage: Stage, virtual_time: VirtualTime, monkeypatch) -> None:
    await stage.run(5)
    timers = []
    call_at = virtual_time.call_at
    monkeypatch.setattr(virtual_time, "call_at", lambda *args: (timers.append(1), call_at(*args))[1])
    await stage.run(50)
    assert 50 <= len(timers) <= 52


@pytest.mark.parametrize("early_ms", [35, 20, 12, 6, 1])
async def test_an_action_asked_for_at_any_moment_holds_no_picture(stage: Stage, early_ms: float) -> None:
    await stage.run(5)
    await stage.time.advance((40 - early_ms) / 1000)
    stage.session.set_listening(True)
    await stage.run(40)
    assert stage.session._producer.counts.held == 0


async def test_speech_replaces_idle_and_eases_back(stage: Stage) -> None:
    await stage.run(3)
    stage.session.play(tone(0.6))
    frames = await stage.run(30)
    heights = [mouth_height(frame.image) for frame in frames]
    first = next(i for i, frame in enumerate(frames) if frame.speaking)
    assert len(spoken(frames)) == 15
    assert heights[:first] == [0] * first
    rise = heights[first : first + 3]
    assert 0 < rise[0] < rise[1] < rise[2]
    fall = heights[first + 15 : first + 21]
    assert fall[0] > 0 and sorted(fall, reverse=True) == fall and fall[-2:] == [0, 0]
    assert all(is_silent(frame.audio) for frame in frames[first + 15 :])


async def test_first_sound_comes_within_two_frames(stage: Stage) -> None:
    await stage.run(3)
    stage.session.play(tone(0.6))
    assert sum(frame.speaking for frame in await stage.run(3)) >= 1


async def test_every_sample_is_heard_once_and_in_order(stage: Stage) -> None:
    samples = babble(1.234)
    stage.session.play(samples)
    heard = sound(spoken(await stage.run(40)))
    assert np.array_equal(heard[: len(samples)], samples)
    assert is_silent(heard[len(samples) :]) and len(heard) - len(samples) < FRAME_SAMPLES


@pytest.mark.parametrize("chunks", [[960], [1], [7, 4801, 333], [100_000]], ids=str)
async def test_streaming_equals_offline_bit_for_bit(avatar: Avatar, stage: Stage, chunks: list[int]) -> None:
    samples = np.concatenate([babble(0.7), silence(0.6), tone(0.31)])
    if chunks == [1]:
        samples = samples[:9000]
    stream = stage.session.open_stream()
    position = 0
    for turn in range(len(samples)):
        size = chunks[turn % len(chunks)]
        await stream.push(samples[position : position + size])
        position += size
        if position >= len(samples):
            break
    await stream.end()
    live = spoken(await stage.run(60))
    start = idle_number(live[0].image)
    offline = list(render_offline(avatar, FakeLipSync(), samples, start=start))
    assert len(live) == len(offline) == -(-len(samples) // FRAME_SAMPLES)
    for a, b in zip(live, offline, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.audio, b.audio)


async def test_utterances_are_heard_in_order_without_a_gap(stage: Stage) -> None:
    ids = [stage.session.play(tone(0.4)), stage.session.play(babble(0.4)), stage.session.play(tone(0.4))]
    frames = await stage.run(50)
    first = next(i for i, frame in enumerate(frames) if frame.speaking)
    assert [frame.utterance_id for frame in frames[first : first + 30]] == [ids[0]] * 10 + [ids[1]] * 10 + [ids[2]] * 10


async def test_session_on_real_time_and_threads_keeps_pace(avatar: Avatar) -> None:
    renderer = Renderer(FakeLipSync(compute_s=0.005))
    session = Session(avatar, renderer, FakeVoice())
    await session.start()
    frames: list[AvatarFrame] = []
    try:
        utterance_id = session.say("one two three")
        async with asyncio.timeout(5):
            async for frame in session:
                frames.append(frame)
                if len(frames) == 20:
                    break
    finally:
        await session.aclose()
        await renderer.aclose()
    assert frames[0].pts == 0
    assert {frame.utterance_id for frame in spoken(frames)} == {utterance_id}
    assert max(mouth_height(frame.image) for frame in frames) > 5
