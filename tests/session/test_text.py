from tests.fakes import tone
from tests.session.stage import Stage, spoken


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


async def test_text_that_makes_no_sound_is_told_and_holds_up_nothing(stage: Stage) -> None:
    mute = stage.session.say("...")
    after = stage.session.say("one two")
    frames = await stage.run(20)
    assert [(event["code"], event["utterance_id"]) for event in stage.of("error")] == [("nothing_to_say", mute)]
    assert {frame.utterance_id for frame in spoken(frames)} == {after}


async def test_text_cut_off_before_its_first_sound_is_no_error(stage: Stage) -> None:
    stage.voice.delay_s = 1.0
    stage.session.say("one two")
    await stage.run(5)
    await stage.session.interrupt()
    await stage.run(5)
    assert stage.of("error") == []
