"""Whole conversations in virtual time: a real session, real turn-taking and history, fake services."""

import asyncio

import numpy as np
import pytest

from engine.conversation.phrases import ENGLISH
from tests.conversation.conversing import LONG, Talk
from tests.session.stage import sound, spoken


async def test_three_turns_are_heard_answered_and_remembered(talk: Talk) -> None:
    talk.recogniser.texts = ["First question?", "Second question?", "Third question?"]
    talk.model.texts = ["First answer.", "Second answer.", "Third answer."]
    for _ in range(3):
        await talk.speak(0.8)
        await talk.quiet(3.0)
    assert [event["text"] for event in talk.of("caption")] == ["First answer", "Second answer", "Third answer"]
    assert [event["text"] for event in talk.of("transcript") if event["final"]] == talk.recogniser.texts
    assert talk.states() == ["thinking", "speaking", "answered"] * 3
    assert [message.text for message in talk.model.asked[2]] == [
        "Be brief.", "First question?", "First answer", "Second question?", "Second answer", "Third question?",
    ]  # fmt: skip
    assert [event["speaking"] for event in talk.of("user_speaking")] == [True, False] * 3


async def test_every_stage_of_a_turn_is_timed_from_the_end_of_speech(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["What is the time?"], ["Noon."]
    await talk.speak(0.8)
    await talk.quiet(3.0)
    [latency] = talk.of("latency")
    stages = latency["stages_ms"]
    assert list(stages) == ["endpoint", "transcript", "first_token", "first_audio", "first_frame"]
    assert sorted(stages.values()) == list(stages.values())
    assert 240 <= stages["endpoint"] <= 400
    assert abs(stages["first_token"] - stages["endpoint"] - 200) <= 45
    assert stages["first_frame"] - stages["first_token"] <= 120


async def test_the_recogniser_hears_the_beginning_of_the_speech(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["Hello there."], ["Hi."]
    await talk.quiet(1.0)
    await talk.speak(1.0)
    await talk.quiet(1.5)
    assert talk.recogniser.turns[0].samples >= 1.0 * 16_000


async def test_speech_over_the_avatar_interrupts_it_and_only_what_was_heard_is_remembered(talk: Talk) -> None:
    talk.recogniser.texts = ["Tell me a story.", "No, stop, something else please."]
    talk.model.texts = [LONG, "All right."]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    assert talk.states()[-1] == "speaking"
    asked, heard = talk.dialogue.so_far
    assert asked.text == "Tell me a story." and heard.interrupted, "what would go on elsewhere"
    assert heard.text.endswith("…") and LONG.startswith(heard.text.rstrip("…")) and talk.remembered() == []
    before = len(talk.frames)
    await talk.speak(1.2)
    loud = [index for index, frame in enumerate(talk.frames[before:]) if frame.audio.any()]
    assert max(loud) * 0.04 <= 0.35, "silence soon after the person began to speak"
    await talk.quiet(4.0)
    [cut] = talk.of("interrupted")
    assert cut["played_text"] and LONG.startswith(cut["played_text"]) and len(cut["played_text"]) < len(LONG)
    assert talk.states() == ["thinking", "speaking", "interrupted", "thinking", "speaking", "answered"]
    roles = talk.remembered()
    assert roles[1][0] == "assistant" and roles[1][1].startswith(cut["played_text"])
    assert roles[2:] == [("user", "No, stop, something else please."), ("assistant", "All right")]


async def test_a_backchannel_does_not_stop_the_avatar(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["Tell me a story.", "mm-hm"], [LONG]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    await talk.speak(0.4)
    await talk.quiet(8.0)
    assert talk.states() == ["thinking", "speaking", "answered"]
    assert not talk.of("interrupted") and len(talk.model.asked) == 1
    assert talk.remembered()[1][1].split()[-1] == "word39"


async def test_a_noise_over_the_avatar_is_a_false_interruption_and_it_goes_on_where_it_stopped(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["Tell me a story."], [LONG]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    before = len(talk.frames)
    await talk.speak(0.5)
    await talk.quiet(8.0)
    frames = talk.frames[before:]
    silent = [not frame.speaking for frame in frames]
    paused = silent.index(True)
    resumed = silent.index(False, paused)
    assert 0.2 <= (resumed - paused) * 0.04 <= 2.1
    assert talk.states() == ["thinking", "speaking", "answered"]
    assert talk.remembered()[1][1].split()[-1] == "word39"
    heard = sound(spoken(talk.frames))
    assert abs(len(heard) / 48_000 - 4.0) < 0.1, "nothing is lost and nothing is heard twice"


async def test_words_that_go_on_before_the_answer_is_heard_are_answered_together(talk: Talk) -> None:
    talk.recogniser.texts = ["I would like to know.", "How old you are."]
    talk.model.texts, talk.model.delay_s = ["Never heard.", "Young."], 1.0
    await talk.speak(0.8)
    await talk.quiet(0.9)
    assert talk.states() == ["thinking"] and talk.model.open == 1
    await talk.speak(0.8)
    await talk.quiet(4.0)
    assert talk.states() == ["thinking", "withdrawn", "thinking", "speaking", "answered"]
    assert talk.remembered() == [("user", "I would like to know. How old you are."), ("assistant", "Young")]


async def test_words_still_being_recognised_when_the_person_goes_on_are_kept(talk: Talk) -> None:
    talk.recogniser.texts = ["The first half.", "the second half."]
    talk.recogniser.delay_s, talk.model.texts = 1.5, ["Understood."]
    await talk.speak(0.8)
    await talk.quiet(0.7)
    await talk.speak(0.8)
    await talk.quiet(5.0)
    assert talk.remembered()[0] == ("user", "The first half. the second half.")


async def test_typed_text_is_answered_and_interrupts(talk: Talk) -> None:
    talk.model.texts = [LONG, "Short."]
    await talk.session.ask("A long story, please")
    await talk.run(30)
    await talk.session.ask("A short one")
    await talk.run(60)
    assert talk.states() == ["thinking", "speaking", "interrupted", "thinking", "speaking", "answered"]
    assert [event["text"] for event in talk.of("transcript")] == ["A long story, please", "A short one"]
    assert talk.model.open == 0


async def test_typed_text_while_the_avatar_waits_for_words_is_answered_and_not_interrupted(talk: Talk) -> None:
    talk.recogniser.texts, talk.recogniser.delay_s = ["Tell me a story.", "No, wait, not that."], 0.4
    talk.recogniser.partials, talk.model.texts = False, [LONG, "Short one.", "Other one."]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    await talk.speak(0.5)
    await talk.session.ask("Something short, please")
    await talk.quiet(0.3)
    assert talk.session._producer.playlist.held is False
    await talk.quiet(4.0)
    said = [event["text"] for event in talk.of("caption")]
    assert "Short one" in said and talk.states()[-1] == "answered"


async def test_stop_ends_the_answer_and_the_model(talk: Talk) -> None:
    talk.model.texts, talk.model.delay_s = [LONG], 5.0
    await talk.session.ask("Hello")
    await talk.run(5)
    assert talk.model.open == 1
    await talk.session.interrupt()
    await talk.run(2)
    assert talk.model.open == 0 and talk.states() == ["thinking", "interrupted"]
    assert talk.remembered() == []


async def test_a_cough_is_no_turn(talk: Talk) -> None:
    await talk.speak(0.3)
    await talk.quiet(3.0)
    assert not talk.model.asked and talk.states()[-1:] in ([], ["empty"])
    assert not spoken(talk.frames)


async def test_who_speaks_without_being_understood_is_asked_again_once(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["What is that", "What is that", "What is that?"], ["A house."]
    talk.recogniser.doubts = True
    for _ in range(2):
        await talk.speak(1.5)
        await talk.quiet(6.0)
    assert not talk.model.asked and talk.states()[-1] == "empty"
    said = " ".join(event["text"] for event in talk.of("caption"))
    assert said.count("I did not get that") == 1, said
    talk.recogniser.doubts = False
    await talk.speak(1.0)
    await talk.quiet(4.0)
    assert talk.states()[-1] == "answered"


async def test_an_interruption_without_words_is_told_as_a_pause(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["Tell me a story."], [LONG]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    await talk.speak(0.7)
    assert len(talk.of("paused")) == 1 and not talk.of("resumed")
    await talk.quiet(3.0)
    assert len(talk.of("resumed")) == 1 and not talk.of("interrupted") and talk.states()[-1] != "interrupted"
    assert not any("did not get" in event["text"] for event in talk.of("caption"))


async def test_the_greeting_is_said_when_the_person_is_first_heard(talk: Talk) -> None:
    talk.make(greeting="Hello, I am Tiny.")
    assert not spoken(await talk.run(20))
    await talk.quiet(2.0)
    assert [event["text"] for event in talk.of("caption")] == ["Hello, I am Tiny"]
    assert talk.remembered() == [("assistant", "Hello, I am Tiny")] and not talk.of("latency")


@pytest.mark.parametrize("speak_errors", [True, False])
@pytest.mark.parametrize("stage", ["recogniser", "model", "middle"])
async def test_a_service_that_fails_is_told_and_the_next_turn_works(
    talk: Talk, stage: str, speak_errors: bool
) -> None:
    talk.make(speak_errors=speak_errors)
    talk.recogniser.texts = ["One question?", "Another question?"]
    talk.model.texts = ["One answer. It goes on."]
    talk.recogniser.failing = stage == "recogniser"
    talk.model.fails_after = {"recogniser": None, "model": 0, "middle": 3}[stage]
    await talk.speak(0.8)
    await talk.quiet(5.0)
    [error] = talk.of("error")
    assert error["code"] == ("asr_failed" if stage == "recogniser" else "service_failed")
    said = [event["text"] for event in talk.of("caption")]
    assert any(ENGLISH.apology.startswith(text) for text in said) == speak_errors
    assert ("One answer" in said) == (stage == "middle")
    assert talk.states()[-1] == "failed" and not any(ENGLISH.apology[:5] in text for _, text in talk.remembered())
    talk.recogniser.failing, talk.model.fails_after = False, None
    await talk.speak(0.8)
    await talk.quiet(4.0)
    assert talk.states()[-1] == "answered"


async def test_a_voice_that_fails_is_told_and_the_next_turn_works(talk: Talk) -> None:
    talk.model.texts = ["One. Two. Three."]
    talk.voice.broken = True
    await talk.session.ask("Hello")
    await talk.run(40)
    assert [error["code"] for error in talk.of("error")] == ["voice_failed"] and talk.states()[-1] == "failed"
    talk.voice.broken = False
    await talk.session.ask("Again")
    await talk.run(60)
    assert talk.states()[-1] == "answered"


@pytest.mark.parametrize("moment_s", [0.3, 0.9, 1.35, 1.5, 2.0])
async def test_closing_in_the_middle_of_any_stage_leaves_nothing_behind(talk: Talk, moment_s: float) -> None:
    talk.recogniser.texts, talk.model.texts = ["Tell me a story."], [LONG]
    talk.recogniser.delay_s = talk.model.delay_s = talk.voice.delay_s = 0.2
    await talk.speak(min(moment_s, 0.8))
    await talk.quiet(max(0.0, moment_s - 0.8))
    before = asyncio.all_tasks()
    await talk.session.aclose()
    await asyncio.sleep(0)
    named = {task.get_name() for task in asyncio.all_tasks() & before if not task.done()}
    assert not [name for name in named if name.startswith(("dialogue", "session", "producer"))]
    assert talk.model.open == 0 and talk.voice.speaking == 0
    assert all(turn.cancelled or turn.finished for turn in talk.recogniser.turns)


async def test_other_modes_leave_the_dialogue_deaf(talk: Talk) -> None:
    talk.recogniser.texts = ["Never heard."]
    talk.session.set_mode("mirror")
    await talk.speak(0.8)
    assert spoken(talk.frames), "the mirror speaks"
    await talk.quiet(2.0)
    assert not talk.model.asked and not talk.recogniser.turns


async def test_push_to_talk_hears_only_what_is_said_while_the_key_is_down(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["Heard."], ["Yes."]
    talk.session.push_to_talk(False)
    await talk.speak(0.8)
    await talk.quiet(1.5)
    assert not talk.recogniser.turns
    talk.session.push_to_talk(True)
    await talk.speak(0.8)
    talk.session.push_to_talk(False)
    await talk.quiet(2.0)
    assert talk.states() == ["thinking", "speaking", "answered"]


async def test_the_avatar_speaks_low_while_it_is_not_certain_that_it_is_interrupted(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["Tell me a story."], [LONG]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    usual = np.abs(sound(talk.frames[-20:])).max()
    await talk.speak(0.16)
    await talk.quiet(0.06)
    assert 0 < np.abs(talk.frames[-1].audio).max() < 0.5 * usual
    await talk.quiet(1.0)
    assert np.abs(sound(talk.frames[-10:])).max() > 0.8 * usual
    await talk.session.aclose()
