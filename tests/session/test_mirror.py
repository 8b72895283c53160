import numpy as np
import pytest

from engine.types import AvatarFrame
from tests.fakes import babble, mouth_height, silence, tone
from tests.session.stage import Stage, hear, sound, spoken


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


async def test_moment_of_quiet_does_not_end_speaking(stage: Stage) -> None:
    stage.session.set_mirror(True)
    frames = await hear(stage, np.concatenate([tone(0.4), silence(0.75), tone(0.4)]))
    first, last = (speaking(frames).index(True), len(frames) - speaking(frames)[::-1].index(True))
    assert False in speaking(frames)[first:last]
    assert [event["speaking"] for event in stage.of("speaking")] == [True]
    assert stage.of("state") == [{"state": "speaking"}]
    await hear(stage, silence(1.5))
    assert [event["speaking"] for event in stage.of("speaking")] == [True, False]
    last_s = max(at_s for frame, at_s in zip(stage.frames, stage.at_s, strict=True) if frame.speaking)
    told_s = next(event.at_s for event in stage.events if event.type == "speaking" and not event.data["speaking"])
    assert 0.3 <= told_s - last_s <= 0.4
    assert not any(stage.of("viseme")[-1]["mouth"].values())


@pytest.mark.parametrize("quiet_s", [0.0, 0.75])
async def test_interrupted_microphone_is_told_at_once(stage: Stage, quiet_s: float) -> None:
    stage.session.set_mirror(True)
    await hear(stage, np.concatenate([tone(0.5), silence(quiet_s)]))
    assert [event["speaking"] for event in stage.of("speaking")] == [True]
    await stage.session.interrupt()
    await stage.run(2)
    assert [event["speaking"] for event in stage.of("speaking")] == [True, False]
    assert stage.of("state")[-1] == {"state": "idle"}


def speaking(frames: list[AvatarFrame]) -> list[bool]:
    return [frame.speaking for frame in frames]
