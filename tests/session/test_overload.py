import itertools

import numpy as np

from tests.fakes import TINY_FRAMES, babble, idle_number, tone
from tests.session.stage import Stage, sound, spoken


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


async def test_pictures_drawn_ahead_do_not_delay_the_microphone_afterwards(stage: Stage) -> None:
    stage.renderer.compute_s = 0.010
    stage.session.play(tone(1.0))
    await stage.run(40)
    assert stage.session._producer.margin_ms < 20
