import numpy as np

from engine.types import Playback
from tests.fakes import babble, is_silent, mouth_height, tone
from tests.session.stage import Stage, sound, spoken


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


async def test_sound_skipped_to_catch_up_was_not_played(stage: Stage) -> None:
    stream = stage.session.open_stream(live=True)
    await stream.push(babble(3.0))
    await stage.run(20)
    heard = len(spoken(stage.frames))
    playback = await stage.session.interrupt()
    assert stage.session._producer.counts.caught_up > 0
    assert (playback.played_ms, playback.dropped_ms) == (heard * 40, 3000 - heard * 40)
