"""Who may speak, who is answered, and what is left of what was said, in whole conversations in virtual time."""

import math
import time

import numpy as np
import pytest

from engine.conversation.waterfall import REMEMBERED_TURNS
from tests.conversation.conversing import LONG, Talk
from tests.fakes import tone
from tests.session.stage import sound, spoken

# What the person is called by, and what answers it.


async def test_only_who_says_the_name_is_answered(talk: Talk) -> None:
    talk.make(wake_word="maya")
    talk.recogniser.texts, talk.model.texts = ["What a nice day.", "Hey Maya, what time is it?"], ["Noon."]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    assert talk.states() == ["not_addressed"] and not talk.model.asked and not talk.of("transcript")
    await talk.speak(0.8)
    await talk.quiet(2.0)
    assert talk.states()[1:] == ["thinking", "speaking", "answered"]
    assert talk.remembered() == [("user", "what time is it?"), ("assistant", "Noon")]
    assert [event["text"] for event in talk.of("transcript") if event["final"]] == ["Hey Maya, what time is it?"]


async def test_after_an_answer_the_person_goes_on_without_the_name(talk: Talk) -> None:
    talk.make(wake_word="maya")
    talk.recogniser.texts = ["Maya, what time is it?", "And in Tokyo?", "And in Rome?"]
    talk.model.texts = ["Noon.", "Evening."]
    await talk.speak(0.8)
    await talk.quiet(6.0)
    await talk.speak(0.8)
    await talk.quiet(12.0)
    await talk.speak(0.8)
    await talk.quiet(3.0)
    assert talk.states() == [*["thinking", "speaking", "answered"] * 2, "not_addressed"]
    assert [role for role, _ in talk.remembered()] == ["user", "assistant"] * 2


async def test_who_converses_may_interrupt_without_the_name(talk: Talk) -> None:
    talk.make(wake_word="maya")
    talk.recogniser.texts = ["Maya, tell me a story.", "No, stop, something else."]
    talk.model.texts = [LONG, "All right."]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    await talk.speak(1.2)
    await talk.quiet(4.0)
    assert talk.states() == ["thinking", "speaking", "interrupted", "thinking", "speaking", "answered"]


async def test_talk_among_others_does_not_stop_what_the_avatar_was_told_to_say(talk: Talk) -> None:
    talk.make(wake_word="maya")
    talk.recogniser.texts = ["Shall we go to lunch, then?"]
    talk.session.say(LONG)
    await talk.quiet(0.5)
    await talk.speak(1.5)
    await talk.quiet(5.0)
    assert abs(len(sound(spoken(talk.frames))) / 48_000 - 4.0) < 0.1
    assert "not_addressed" in talk.states() and not talk.model.asked


async def test_the_name_itself_interrupts_what_the_avatar_was_told_to_say(talk: Talk) -> None:
    talk.make(wake_word="maya")
    talk.recogniser.texts, talk.model.texts = ["Maya, what time is it?"], ["Noon."]
    talk.session.say(LONG)
    await talk.quiet(0.5)
    await talk.speak(1.0)
    await talk.quiet(3.0)
    assert talk.states() == ["thinking", "speaking", "answered"]
    assert len(sound(spoken(talk.frames))) / 48_000 < 2.5


async def test_typed_text_and_the_talk_key_need_no_name(talk: Talk) -> None:
    talk.make(wake_word="maya")
    talk.recogniser.texts, talk.model.texts = ["And you?"], ["Hello.", "Fine."]
    await talk.session.ask("Hello")
    await talk.quiet(12.0)
    talk.session.push_to_talk(True)
    await talk.speak(0.8)
    talk.session.push_to_talk(False)
    await talk.quiet(2.0)
    assert talk.states() == ["thinking", "speaking", "answered"] * 2


async def test_a_name_and_what_follows_after_a_pause_are_answered_together(talk: Talk) -> None:
    talk.make(wake_word="maya")
    talk.recogniser.texts, talk.model.texts, talk.model.delay_s = ["Hey Maya.", "What time is it?"], ["Noon."], 1.0
    await talk.speak(0.6)
    await talk.quiet(0.9)
    await talk.speak(0.8)
    await talk.quiet(4.0)
    assert talk.states() == ["thinking", "withdrawn", "thinking", "speaking", "answered"]
    assert talk.remembered()[0] == ("user", "What time is it?")


# The greeting.


@pytest.mark.parametrize("interruptible", [True, False])
async def test_speech_over_the_greeting_interrupts_it_or_is_answered_after_it(talk: Talk, interruptible: bool) -> None:
    talk.make(greeting=LONG, greeting_interruptible=interruptible)
    talk.recogniser.texts, talk.model.texts = ["Excuse me, what time is it?"], ["Noon."]
    await talk.quiet(0.6)
    await talk.speak(1.2)
    await talk.quiet(7.0)
    first = "interrupted" if interruptible else "answered"
    assert talk.states() == ["thinking", "speaking", first, "thinking", "speaking", "answered"]
    assert (talk.remembered()[0][1].split()[-1] == "word39") != interruptible
    assert talk.remembered()[1:] == [("user", "Excuse me, what time is it?"), ("assistant", "Noon")]


async def test_a_protected_greeting_is_not_withdrawn_by_speech_that_came_before_its_sound(talk: Talk) -> None:
    talk.make(greeting="Hello there, I am Tiny.", greeting_interruptible=False)
    talk.voice.delay_s = 1.0
    talk.recogniser.texts, talk.model.texts = ["Hello, what time is it?"], ["Noon."]
    await talk.speak(0.7)
    await talk.quiet(6.0)
    assert [role for role, _ in talk.remembered()] == ["assistant", "user", "assistant"]


async def test_stop_ends_a_protected_greeting(talk: Talk) -> None:
    talk.make(greeting=LONG, greeting_interruptible=False)
    await talk.quiet(0.6)
    await talk.session.interrupt()
    assert not spoken((await talk.run(20))[2:])


# What is asked for while it is open whether the avatar is interrupted.


@pytest.mark.parametrize("meant", [True, False])
async def test_what_it_is_told_to_say_while_it_waits_is_said(talk: Talk, meant: bool) -> None:
    talk.recogniser.texts = ["Tell me a story.", "No, wait, not that." if meant else ""]
    talk.recogniser.partials, talk.recogniser.delay_s, talk.model.texts = False, 0.4, [LONG, "Short one."]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    await talk.speak(0.5)
    assert talk.session._producer.playlist.held
    talk.session.say("Lunch is ready.")
    await talk.quiet(9.0)
    said = [event["text"] for event in talk.of("caption")]
    assert said[1:] == (["Lunch is ready", "Short one"] if meant else ["Lunch is ready"])
    assert talk.states()[-1] == "answered"


async def test_what_waits_behind_a_withdrawn_answer_is_said(talk: Talk) -> None:
    talk.recogniser.texts = ["I would like to know.", "How old you are."]
    talk.model.texts, talk.voice.delay_s = ["Never heard.", "Young."], 1.2
    await talk.speak(0.8)
    await talk.quiet(1.0)
    talk.session.say("Lunch is ready.")
    await talk.speak(0.8)
    await talk.quiet(6.0)
    said = [event["text"] for event in talk.of("caption")]
    assert "Never heard" not in said and sorted(said) == ["Lunch is ready", "Young"]


# What the avatar hears of itself.


async def test_its_own_words_coming_back_are_no_interruption(talk: Talk) -> None:
    talk.recogniser.texts = ["Tell me a story.", "word3 word4 word5"]
    talk.model.texts = [LONG]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    await talk.speak(1.4)
    await talk.quiet(8.0)
    assert talk.states() == ["thinking", "speaking", "answered"] and len(talk.model.asked) == 1
    assert [event["text"] for event in talk.of("transcript") if event["final"]] == ["Tell me a story."]
    assert talk.remembered()[1][1].split()[-1] == "word39"


@pytest.mark.parametrize("person", [True, False])
async def test_its_voice_in_the_microphone_is_no_speech_and_a_person_over_it_is(talk: Talk, person: bool) -> None:
    talk.recogniser.texts = ["Tell me a story.", "No, stop, something else."]
    talk.model.texts = [LONG + " " + LONG, "All right."]
    await talk.speak(0.8)
    spoken_over = tone(1.2, frequency_hz=1500.0)
    for step in range(400):
        # The microphone hears the loudspeaker 200 ms late, at a third of its loudness.
        late = talk.frames[-6].audio[960 * (step % 2) :][:960] // 3
        over = spoken_over[960 * (step - 150) :][:960] if person and 150 <= step < 210 else 0
        talk.session.hear((late + over).astype(np.int16))
        await talk.time.advance(0.02)
    assert ("interrupted" in talk.states()) == person
    assert len(talk.model.asked) == 1 + person
    await talk.session.aclose()


# What is left.


async def test_the_transcript_has_both_with_the_time_they_spoke_and_what_was_cut_off(talk: Talk) -> None:
    talk.recogniser.texts = ["Tell me a story.", "No, stop, something else please."]
    talk.model.texts = [LONG, "All right."]
    assert talk.session.transcript() == []
    await talk.speak(0.8)
    await talk.quiet(2.0)
    await talk.speak(1.2)
    await talk.quiet(4.0)
    lines = talk.session.transcript()
    assert [(line.role, line.interrupted) for line in lines] == [
        ("user", False), ("assistant", True), ("user", False), ("assistant", False)
    ]  # fmt: skip
    assert lines[2].text == "No, stop, something else please." and lines[3].text == "All right"
    assert [line.at_s for line in lines] == sorted(line.at_s for line in lines)
    assert abs(lines[-1].at_s - time.time()) < 10


async def test_when_the_answer_was_heard_is_told_with_its_latency(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["What is the time?"], ["Noon."]
    await talk.speak(0.8)
    await talk.quiet(3.0)
    [latency] = talk.of("latency")
    turn_id, frame_ms = latency["turn_id"], latency["stages_ms"]["first_frame"]
    now_s = talk.clock.now_s()
    for impossible_s in (math.nan, now_s + 1, now_s - 100, -math.inf):
        talk.session.heard_by_viewer(turn_id, impossible_s)
    talk.session.heard_by_viewer(turn_id + 1, now_s)
    began_s = next(at_s for frame, at_s in zip(talk.frames, talk.at_s, strict=True) if frame.speaking)
    talk.session.heard_by_viewer(turn_id, began_s + 0.15)
    talk.session.heard_by_viewer(turn_id, began_s + 0.25)
    await talk.run(1)
    first, second = talk.of("latency")
    assert list(second["stages_ms"])[-1] == "first_heard"
    assert abs(second["stages_ms"]["first_heard"] - frame_ms - 150) <= 1
    assert first["stages_ms"].items() <= second["stages_ms"].items()
    count = talk.renderer.metrics.registry.get_sample_value("visavis_turn_ms_count", {"stage": "first_heard"})
    assert count == 1


async def test_only_the_last_turns_are_remembered_for_being_heard(talk: Talk) -> None:
    talk.model.texts = ["Yes."]
    for _ in range(REMEMBERED_TURNS + 1):
        await talk.session.ask("Hello?")
        await talk.run(20)
    told = talk.of("latency")
    assert len(told) == REMEMBERED_TURNS + 1
    for latency in told:
        talk.session.heard_by_viewer(latency["turn_id"], talk.clock.now_s())
    await talk.run(1)
    assert len(talk.of("latency")) - len(told) == REMEMBERED_TURNS
