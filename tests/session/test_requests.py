import numpy as np
import pytest

from engine.avatar.bundle import Avatar
from engine.errors import AudioInvalid, Busy, Closed, TextInvalid
from engine.session import SessionLimits
from engine.types import Playback
from tests.fakes import FakeLipSync, VirtualTime, silence, tone
from tests.session.stage import Stage, spoken


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


@pytest.mark.parametrize("text", ["\u200b", "\x07\x00", "\u200d\ufe0f", "\ufeff \n"])
async def test_text_that_no_voice_could_speak_is_refused(stage: Stage, text: str) -> None:
    with pytest.raises(TextInvalid) as refused:
        stage.session.say(text)
    assert refused.value.code == "text_empty"


async def test_sounds_that_wait_are_limited_together(stage: Stage) -> None:
    stage.session.play(silence(12))
    stage.session.play(silence(8))
    with pytest.raises(Busy, match=r"20 s of sound wait.*Interrupt") as refused:
        stage.session.play(silence(1))
    assert refused.value.code == "queue_full"
    await stage.run(30)
    stage.session.play(silence(1))
    await stage.session.interrupt()
    stage.session.play(silence(20))
