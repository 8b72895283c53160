import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest

from engine.avatar.bundle import Avatar
from engine.clock import FRAME_S, FrameClock
from engine.errors import AudioInvalid, Busy, Closed, TextInvalid
from engine.offline import render_offline
from engine.renderer import Renderer
from engine.session import Session, SessionLimits
from engine.types import FRAME_SAMPLES, AvatarFrame, Event, Playback
from tests.fakes import (
    TINY_FRAMES,
    FakeLipSync,
    FakeVoice,
    VirtualRenderer,
    VirtualTime,
    babble,
    idle_number,
    is_silent,
    mouth_height,
    silence,
    tone,
)


class Stage:
    """A started session on virtual time, with everything that came out of it."""

    def __init__(self, avatar: Avatar, lipsync: FakeLipSync, time: VirtualTime, limits: SessionLimits) -> None:
        self.time = time
        self.lipsync = lipsync
        self.renderer = VirtualRenderer(lipsync, time)
        self.voice = FakeVoice(time_source=time)
        self.clock = FrameClock(source=time)
        self.session = Session(avatar, self.renderer, self.voice, clock=self.clock, limits=limits)
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


@pytest.fixture
async def stage(avatar: Avatar, lipsync: FakeLipSync, virtual_time: VirtualTime) -> AsyncIterator[Stage]:
    stage = Stage(avatar, lipsync, virtual_time, SessionLimits(text_chars=200, queued=3, audio_s=20))
    await stage.open()
    yield stage
    await stage.close()


def sound(frames: list[AvatarFrame]) -> np.ndarray:
    return np.concatenate([frame.audio for frame in frames])


def spoken(frames: list[AvatarFrame]) -> list[AvatarFrame]:
    return [frame for frame in frames if frame.speaking]


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


async def test_interrupt_is_silent_within_one_frame_and_the_mouth_eases_shut(stage: Stage) -> None:
    utterance_id = stage.session.play(tone(5))
    await stage.run(20)
    heard = len(spoken(stage.frames))
    playback = await stage.session.interrupt()
    frames = await stage.run(10)
    assert not any(frame.speaking for frame in frames) and is_silent(sound(frames))
    assert playback == Playback(utterance_id, heard * 40, 5000 - heard * 40)
    heights = [mouth_height(frame.image) for frame in frames]
    assert heights[0] > heights[2] > 0 and heights[6:] == [0] * len(heights[6:])
    assert sorted(heights, reverse=True) == heights


async def test_interrupt_silences_frames_the_consumer_has_not_taken(stage: Stage) -> None:
    stage.session.play(tone(5))
    await stage.run(10)
    stage.reading.clear()
    await stage.run(4)
    heard = len(spoken(stage.frames))
    playback = await stage.session.interrupt()
    stage.reading.set()
    frames = await stage.run(5)
    assert len(frames) == 5 + 3 and is_silent(sound(frames))
    assert playback.played_ms == heard * 40


async def test_interrupt_while_idle_plays_nothing_and_drops_nothing(stage: Stage) -> None:
    await stage.run(5)
    assert await stage.session.interrupt() == Playback(0, 0, 0)


async def test_interrupt_drops_what_is_queued_and_stops_the_voice(stage: Stage) -> None:
    stage.voice.delay_s = 0.15
    stage.session.play(tone(1))
    stage.session.say("never to be heard. nor this")
    await stage.run(5)
    assert stage.voice.speaking == 1
    playback = await stage.session.interrupt()
    assert playback.utterance_id == 1 and stage.voice.speaking == 0
    assert not spoken(await stage.run(40))


async def test_speech_after_an_interrupt_plays_whole(stage: Stage) -> None:
    stage.session.play(tone(2))
    await stage.run(10)
    await stage.session.interrupt()
    samples = babble(0.4, seed=5)
    utterance_id = stage.session.play(samples)
    frames = spoken(await stage.run(20))
    assert {frame.utterance_id for frame in frames} == {utterance_id}
    assert np.array_equal(sound(frames)[: len(samples)], samples)


async def test_utterances_are_heard_in_order_without_a_gap(stage: Stage) -> None:
    ids = [stage.session.play(tone(0.4)), stage.session.play(babble(0.4)), stage.session.play(tone(0.4))]
    frames = await stage.run(50)
    first = next(i for i, frame in enumerate(frames) if frame.speaking)
    assert [frame.utterance_id for frame in frames[first : first + 30]] == [ids[0]] * 10 + [ids[1]] * 10 + [ids[2]] * 10


async def test_text_is_spoken_with_captions_when_they_are_heard(stage: Stage) -> None:
    utterance_id = stage.session.say("one two three. four five.")
    frames = await stage.run(30)
    assert len(spoken(frames)) == 13  # 500 ms in 40 ms frames
    captions = [event for event in stage.events if event.type == "caption"]
    assert [(event.data["text"], event.data["start_ms"], event.data["end_ms"]) for event in captions] == [
        ("one two three", 0, 300),
        ("four five", 300, 500),
    ]
    assert captions[1].data["words"] == [
        {"text": "four", "start_ms": 300, "end_ms": 390},
        {"text": "five", "start_ms": 400, "end_ms": 490},
    ]
    assert captions[0].data["utterance_id"] == utterance_id
    assert 0.24 <= captions[1].at_s - captions[0].at_s <= 0.32


async def test_underrun_pauses_the_sound_and_loses_none_of_it(stage: Stage) -> None:
    samples = tone(0.8)
    stream = stage.session.open_stream()
    await stream.push(samples[: FRAME_SAMPLES * 8])
    frames = await stage.run(20)
    assert 0 < len(spoken(frames)) < 8
    assert is_silent(frames[-1].audio) and mouth_height(frames[-1].image) == 0
    await stream.push(samples[FRAME_SAMPLES * 8 :])
    await stream.end()
    frames += await stage.run(30)
    assert np.array_equal(sound(spoken(frames)), samples)
    assert [event["speaking"] for event in stage.of("speaking")] == [True, False]
    await stage.run(50)
    assert stage.of("metrics")[-1]["underruns"] == 1


async def test_slow_voice_pauses_between_sentences_and_goes_on(stage: Stage) -> None:
    stage.voice.delay_s = 0.8
    stage.session.say("one two. three four.")
    frames = await stage.run(60)
    assert len(spoken(frames)) == 10
    assert len(stage.of("caption")) == 2


async def test_voice_failure_is_an_event_and_the_session_goes_on(stage: Stage) -> None:
    stage.voice.failing = True
    broken = stage.session.say("one. two")
    after = stage.session.play(tone(0.2))
    frames = await stage.run(30)
    assert stage.of("error") == [
        {"code": "voice_failed", "message": "The fake voice was told to fail.", "utterance_id": broken}
    ]
    assert {frame.utterance_id for frame in spoken(frames)} == {broken, after}


async def test_failing_model_shows_the_idle_picture_and_says_so_once(stage: Stage) -> None:
    stage.lipsync.failing = True
    stage.session.play(tone(0.6))
    frames = await stage.run(30)
    assert len(stage.of("error")) == 1 and stage.of("error")[0]["code"] == "render_failed"
    bodies = [idle_number(frame.image) for frame in frames]
    assert all((b - a) % TINY_FRAMES == 1 for a, b in itertools.pairwise(bodies))


async def test_overload_holds_pictures_with_the_right_sound_and_the_clock_does_not_slip(stage: Stage) -> None:
    stage.renderer.compute_s = 0.065
    samples = babble(2.0)
    stage.session.play(samples)
    frames = await stage.run(60)
    assert np.array_equal(sound(spoken(frames))[: len(samples)], samples)
    assert all(-0.011 <= at_s - stage.clock.due_s(f.pts) <= 0 for f, at_s in zip(stage.frames, stage.at_s, strict=True))
    pictures = [id(frame.image) for frame in spoken(frames)]
    fresh = sum(a != b for a, b in itertools.pairwise(pictures))
    assert fresh >= 24, "at 65 ms a picture, half of the frames can have their own"
    report = stage.of("metrics")[-1]
    assert report["held"] > 10 and any(event["degraded"] for event in stage.of("metrics"))


async def test_picture_slower_than_any_deadline_still_moves_the_face(stage: Stage) -> None:
    stage.renderer.compute_s = 0.4
    stage.session.play(babble(3.0))
    frames = spoken(await stage.run(80))
    assert len({id(frame.image) for frame in frames}) >= 4


async def test_stalled_machine_goes_on_from_the_present_and_loses_no_speech(stage: Stage) -> None:
    samples = babble(1.0)
    stage.session.play(samples)
    await stage.run(10)
    before = stage.frames[-1].pts
    stage.time.jump(1.0)
    frames = await stage.run(30)
    assert frames[0].pts - before >= 20
    assert [f.pts for f in frames] == list(range(frames[0].pts, frames[0].pts + len(frames)))
    assert np.array_equal(sound(spoken(stage.frames))[: len(samples)], samples)


async def test_live_backlog_is_trimmed_until_the_delay_is_small_again(stage: Stage) -> None:
    stream = stage.session.open_stream(live=True)
    samples = babble(6.0)
    await stream.push(samples[: FRAME_SAMPLES * 15])
    delays = []
    for index in range(15, 120):
        await stream.push(samples[FRAME_SAMPLES * index : FRAME_SAMPLES * (index + 1)])
        await stage.run(1)
        delays.append(stage.session._producer.backlog_ms)
    lookahead_ms = stage.lipsync.window.lookahead_ms
    assert max(delays[:5]) > 400
    assert max(delays[60:]) <= lookahead_ms + 40 + 80
    assert stage.session._producer.counts.caught_up >= 8


async def test_live_stream_in_step_is_never_trimmed(stage: Stage) -> None:
    stream = stage.session.open_stream(live=True)
    samples = babble(4.0)
    for index in range(100):
        await stream.push(samples[FRAME_SAMPLES * index : FRAME_SAMPLES * (index + 1)])
        await stage.run(1)
    assert stage.session._producer.counts.caught_up == 0
    assert np.array_equal(sound(spoken(stage.frames)), samples[: len(spoken(stage.frames)) * FRAME_SAMPLES])
    assert len(spoken(stage.frames)) >= 94


async def hear(stage: Stage, samples: np.ndarray) -> list[AvatarFrame]:
    """Speaks into the microphone in 20 ms chunks, in real time."""
    before = len(stage.frames)
    for start in range(0, len(samples) - 959, 960):
        stage.session.hear(samples[start : start + 960])
        await stage.time.advance(0.02)
    return stage.frames[before:]


async def test_mirror_speaks_what_the_microphone_hears(stage: Stage) -> None:
    stage.session.set_mirror(True)
    samples = babble(2.0)
    frames = await hear(stage, samples)
    heard = sound([frame for frame in frames if frame.utterance_id])
    assert np.array_equal(heard, samples[: len(heard)]) and len(heard) > 1.7 * 48_000
    assert max(mouth_height(frame.image) for frame in frames) > 5


async def test_silent_mirror_is_idle_and_costs_no_model_time(stage: Stage) -> None:
    stage.session.set_mirror(True)
    rng = np.random.default_rng(1)
    room = rng.normal(0, 20, 48_000 * 2).astype(np.int16)  # -64 dBFS
    frames = await hear(stage, room)
    assert stage.lipsync.predicted == 0
    assert not any(frame.speaking for frame in frames) and not stage.of("speaking")
    await hear(stage, np.concatenate([tone(0.4), room]))
    assert [event["speaking"] for event in stage.of("speaking")] == [True, False]
    assert stage.of("speaking")[0]["label"] == "microphone"


async def test_microphone_is_ignored_without_mirror(stage: Stage) -> None:
    assert not spoken(await hear(stage, tone(0.5)))


async def test_text_takes_over_from_the_mirror_and_gives_it_back(stage: Stage) -> None:
    stage.session.set_mirror(True)
    await hear(stage, tone(0.5))
    text_id = stage.session.say("one two three four")
    frames = await hear(stage, tone(1.5))
    ids = [frame.utterance_id for frame in frames if frame.speaking]
    assert ids.count(text_id) == 10
    assert ids[0] == 1 and ids[-1] == 3


async def test_switching_the_mirror_off_silences_it(stage: Stage) -> None:
    stage.session.set_mirror(True)
    await hear(stage, tone(0.5))
    stage.session.set_mirror(False)
    assert len(spoken(await hear(stage, tone(0.5)))) <= 2


async def test_interrupt_drops_microphone_sound_and_the_mirror_stays_on(stage: Stage) -> None:
    stage.session.set_mirror(True)
    await hear(stage, tone(0.5))
    playback = await stage.session.interrupt()
    assert playback.utterance_id == 1
    assert not spoken(await stage.run(3))
    assert spoken(await hear(stage, tone(0.5)))[0].utterance_id == 2


async def test_state_speaking_and_viseme_events_follow_the_frames(stage: Stage) -> None:
    utterance_id = stage.session.play(tone(0.8), "file")
    await stage.run(40)
    assert stage.of("state") == [{"state": "speaking"}, {"state": "idle"}]
    assert stage.of("speaking") == [
        {"speaking": True, "utterance_id": utterance_id, "label": "file"},
        {"speaking": False, "utterance_id": utterance_id, "label": "file"},
    ]
    visemes = stage.of("viseme")
    assert len(visemes) == 11  # every second of 20 frames, and one at rest
    assert visemes[4]["mouth"]["jawOpen"] > 0.3 and not any(visemes[-1]["mouth"].values())


async def test_metrics_come_every_two_seconds(stage: Stage) -> None:
    await stage.run(150)
    assert len(stage.of("metrics")) == 3


async def test_unusable_requests_are_refused_and_nothing_is_queued(stage: Stage) -> None:
    session = stage.session
    with pytest.raises(TextInvalid, match="no text"):
        session.say(" \n")
    with pytest.raises(TextInvalid) as too_long:
        session.say("x" * 201)
    assert too_long.value.code == "text_too_long"
    for samples, code in [
        (np.zeros(0, np.int16), "audio_empty"),
        (np.zeros(10, np.float32), "audio_format"),
        (np.zeros((10, 2), np.int16), "audio_format"),
        (silence(20.1), "audio_too_long"),
    ]:
        with pytest.raises(AudioInvalid) as refused:
            session.play(samples)
        assert refused.value.code == code
    assert not spoken(await stage.run(10))


async def test_full_queue_is_busy_and_frees_up(stage: Stage) -> None:
    for _ in range(3):
        stage.session.play(tone(0.2))
    with pytest.raises(Busy):
        stage.session.say("one too many")
    await stage.run(20)
    stage.session.say("fits again")


async def test_stream_waits_when_far_ahead_and_is_told_of_an_interrupt(stage: Stage) -> None:
    stream = stage.session.open_stream()
    pushing = asyncio.create_task(stream.push(silence(25)))
    await stage.run(2)
    assert not pushing.done()
    await stage.session.interrupt()
    with pytest.raises(Closed):
        await pushing
    with pytest.raises(Closed):
        await stream.push(silence(0.1))


async def test_stream_that_waited_goes_on_when_there_is_room(stage: Stage) -> None:
    stream = stage.session.open_stream()
    pushing = asyncio.create_task(stream.push(silence(21)))
    await stage.run(2)
    assert not pushing.done()
    await stage.run(40)
    assert pushing.done()


async def test_close_ends_frames_and_events_and_refuses_more(avatar: Avatar, virtual_time: VirtualTime) -> None:
    stage = Stage(avatar, FakeLipSync(), virtual_time, SessionLimits())
    await stage.open()
    stage.session.say("one two three")
    stage.session.set_mirror(True)
    await stage.run(5)
    await stage.close()
    await stage.session.aclose()
    for use in (lambda: stage.session.say("x"), lambda: stage.session.play(tone(1)), stage.session.open_stream):
        with pytest.raises(Closed):
            use()
    stage.session.hear(tone(0.1))
    assert await stage.session.interrupt() == Playback(0, 0, 0)
    assert [event async for event in stage.session.events()] == []


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


async def test_pictures_drawn_ahead_do_not_delay_the_microphone_afterwards(stage: Stage) -> None:
    stage.renderer.compute_s = 0.010
    stage.session.play(tone(1.0))
    await stage.run(40)
    assert stage.session._producer.margin_ms < 20
