import asyncio

import numpy as np
import pytest

from engine.agenda import STREAM_PATIENCE_S
from engine.errors import Closed
from engine.types import FPS, FRAME_SAMPLES
from tests.fakes import babble, is_silent, mouth_height, silence, tone
from tests.session.stage import Stage, sound, spoken


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


async def test_live_backlog_is_trimmed_until_the_delay_is_small_again(stage: Stage) -> None:
    stream = stage.session.open_stream(live=True)
    samples = babble(6.0)
    await stream.push(samples[: FRAME_SAMPLES * 15])
    delays = []
    for index in range(15, 120):
        await stream.push(samples[FRAME_SAMPLES * index : FRAME_SAMPLES * (index + 1)])
        await stage.run(1)
        delays.append(stage.session._producer.playlist.backlog_ms)
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


async def test_stream_that_gives_no_sound_is_ended_so_that_others_are_heard(stage: Stage) -> None:
    stream = stage.session.open_stream()
    after = stage.session.play(tone(0.2))
    patience = round(STREAM_PATIENCE_S * FPS)
    await stage.run(patience - 3)
    assert not spoken(stage.frames) and not stage.of("error")
    frames = await stage.run(10)
    assert [(e["code"], e["utterance_id"]) for e in stage.of("error")] == [("stream_stalled", stream.utterance_id)]
    assert {frame.utterance_id for frame in spoken(frames)} == {after}
    with pytest.raises(Closed):
        await stream.push(tone(0.1))


async def test_stalled_stream_plays_what_was_pushed_to_its_end(stage: Stage) -> None:
    samples = babble(0.5)
    await stage.session.open_stream().push(samples)
    frames = await stage.run(round(STREAM_PATIENCE_S * FPS) + 30)
    assert np.array_equal(sound(spoken(frames))[: len(samples)], samples)
    assert [event["code"] for event in stage.of("error")] == ["stream_stalled"]
    assert [event["speaking"] for event in stage.of("speaking")] == [True, False]


@pytest.mark.parametrize("live", [False, True])
async def test_stream_may_pause(stage: Stage, live: bool) -> None:
    stream = stage.session.open_stream(live=live)
    for _ in range(3):
        await stream.push(tone(0.2))
        await stage.run(round((STREAM_PATIENCE_S + (5 if live else -0.5)) * FPS))
    await stream.end()
    assert stage.of("error") == []
