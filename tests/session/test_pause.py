import numpy as np

from tests.fakes import babble, is_silent, mouth_height, tone
from tests.session.stage import Stage, sound, spoken


async def test_pause_is_silent_within_one_frame_and_the_mouth_eases_shut(stage: Stage) -> None:
    stage.session.play(tone(5))
    await stage.run(20)
    stage.session.pause()
    frames = await stage.run(50)
    assert not any(frame.speaking for frame in frames) and is_silent(sound(frames))
    assert mouth_height(frames[0].image) > 0 and mouth_height(frames[8].image) == 0


async def test_resume_goes_on_where_it_stopped_and_loses_no_sample(stage: Stage) -> None:
    samples = babble(2.0, seed=3)
    stage.session.play(samples)
    await stage.run(17)
    before = sound(spoken(stage.frames))
    stage.session.pause()
    await stage.run(30)
    stage.session.resume()
    after = sound(spoken(await stage.run(60)))
    whole = np.concatenate([before, after])[: len(samples)]
    assert np.array_equal(before, samples[: len(before)])
    # Only the first frame after the pause differs: it rises from silence.
    at = len(before) + 1920
    assert np.array_equal(whole[at:], samples[at:])
    assert abs(int(whole[len(before)])) <= 1


async def test_a_pause_holds_what_is_queued_and_what_is_asked_meanwhile(stage: Stage) -> None:
    stage.session.play(tone(0.4))
    await stage.run(5)
    stage.session.pause()
    second = stage.session.play(tone(0.4))
    assert not spoken(await stage.run(40))
    stage.session.resume()
    assert spoken(await stage.run(40))[-1].utterance_id == second


async def test_an_interrupt_during_a_pause_tells_what_was_played_before_it(stage: Stage) -> None:
    utterance_id = stage.session.play(tone(5))
    await stage.run(20)
    heard = len(spoken(stage.frames))
    stage.session.pause()
    await stage.run(20)
    playback = await stage.session.interrupt()
    assert (playback.utterance_id, playback.played_ms) == (utterance_id, heard * 40)
    stage.session.play(tone(0.4))
    assert spoken(await stage.run(20)), "an interrupt ends the pause"


async def test_ducking_changes_the_sound_and_not_the_mouth(stage: Stage) -> None:
    stage.session.play(tone(3))
    await stage.run(20)
    stage.session.duck(0.25)
    frames = await stage.run(10)
    loud, soft = np.abs(stage.frames[15].audio).max(), np.abs(frames[5].audio).max()
    assert abs(soft / loud - 0.25) < 0.01
    assert mouth_height(frames[5].image) == mouth_height(stage.frames[15].image)
    steps = np.abs(np.diff(sound(stage.frames[10:]).astype(int)))
    assert steps.max() <= np.abs(np.diff(stage.frames[15].audio.astype(int))).max() + 30, "no click"
    stage.session.duck(1.0)
    assert np.abs((await stage.run(5))[-1].audio).max() == loud
