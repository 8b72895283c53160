"""Who has the floor when words come late, over what the avatar was told to say, or several at once."""

import asyncio

import pytest

from engine.conversation.llm.base import Message
from tests.conversation.conversing import LONG, Talk
from tests.session.stage import sound, spoken

LONGER = f"{LONG} {LONG} {LONG}"


def open_turns() -> list[str]:
    """Turns of a dialogue that have not ended."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("dialogue")]


def closing(talk: Talk) -> dict[int, list[str]]:
    """The states each turn was in, by its id."""
    states: dict[int, list[str]] = {}
    for event in talk.of("turn"):
        states.setdefault(event["turn_id"], []).append(event["state"])
    return states


# Over what the avatar was told to say: no turn has the floor.


async def test_words_that_come_late_interrupt_what_it_was_told_to_say_and_are_answered(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["No, what time is it?"], ["Noon."]
    talk.recogniser.partials, talk.recogniser.delay_s = False, 0.6
    talk.session.say(LONGER)
    await talk.quiet(1.5)
    await talk.speak(0.5)
    await talk.quiet(4.0)
    assert talk.states() == ["thinking", "speaking", "answered"]
    assert talk.remembered() == [("user", "No, what time is it?"), ("assistant", "Noon")]
    assert len(talk.of("paused")) == 1 and not talk.of("resumed")
    assert len(sound(spoken(talk.frames))) / 48_000 < 3.0 and not open_turns()


async def test_both_parts_of_a_question_over_what_it_was_told_to_say_are_answered(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["I would like to know", "what time it is."], ["Noon."]
    talk.recogniser.partials, talk.recogniser.delay_s = False, 1.5
    talk.session.say(LONGER)
    await talk.quiet(1.5)
    await talk.speak(0.5)
    await talk.quiet(0.7)
    assert talk.recogniser.turns and not talk.recogniser.turns[0].finished
    talk.recogniser.partials = True
    await talk.speak(0.9)
    await talk.quiet(6.0)
    assert sorted(closing(talk).values()) == [["thinking", "speaking", "answered"], ["thinking", "withdrawn"]]
    assert talk.remembered()[0] == ("user", "I would like to know what time it is.")
    assert len(talk.model.asked) == 1 and not open_turns()


async def test_an_apology_for_words_that_were_not_understood_can_be_interrupted(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["Never heard.", "No, stop, something else."], ["All right."]
    talk.recogniser.failing = True
    await talk.speak(0.8)
    await talk.quiet(0.9)
    assert talk.states() == ["thinking", "speaking"]
    talk.recogniser.failing = False
    await talk.speak(1.2)
    await talk.quiet(4.0)
    assert talk.states() == ["thinking", "speaking", "interrupted", "thinking", "speaking", "answered"]
    assert not open_turns()


# Several at once.


async def test_of_two_texts_typed_at_once_the_later_is_answered_and_the_other_ends(talk: Talk) -> None:
    talk.model.texts, talk.voice.delay_s = ["The answer."], 0.2
    talk.session.say(LONG)
    await talk.run(3)
    assert talk.voice.speaking == 1, "stopping takes a while"
    first, second = await asyncio.gather(talk.session.ask("The first?"), talk.session.ask("The second?"))
    await talk.run(100)
    assert closing(talk) == {first: ["thinking", "interrupted"], second: ["thinking", "speaking", "answered"]}
    assert talk.remembered() == [("user", "The second?"), ("assistant", "The answer")]
    assert not open_turns() and talk.voice.speaking == 0


# Words that come after a false interruption was called, and a noise meanwhile.


async def doubted(talk: Talk, text: str, delay_s: float) -> None:
    """Something was said over a long answer, its words are awaited, and the avatar goes on."""
    talk.recogniser.texts = ["Tell me a story.", text, "", "And tomorrow?"]
    talk.model.texts = [LONGER, "All right."]
    await talk.speak(0.8)
    await talk.quiet(2.0)
    talk.recogniser.partials, talk.recogniser.delay_s = False, delay_s
    await talk.speak(0.5)
    await talk.quiet(2.4)
    assert len(talk.of("resumed")) == 1 and not talk.recogniser.turns[1].finished
    await talk.speak(0.2)
    assert [event["speaking"] for event in talk.of("user_speaking")][-1], "the noise seems to be speech"


@pytest.mark.parametrize("delay_s", [2.4, 4.0], ids=["in the noise", "after it"])
async def test_late_words_interrupt_although_there_was_a_noise_meanwhile(talk: Talk, delay_s: float) -> None:
    await doubted(talk, "No, something else please.", delay_s)
    await talk.quiet(6.0)
    assert len(talk.of("interrupted")) == 1 and talk.states()[-2:] == ["speaking", "answered"]
    assert talk.remembered()[2:] == [("user", "No, something else please."), ("assistant", "All right")]
    assert not open_turns()


@pytest.mark.parametrize("delay_s", [2.4, 4.0], ids=["in the noise", "after it"])
async def test_a_late_back_channel_is_not_put_in_front_of_the_next_question(talk: Talk, delay_s: float) -> None:
    await doubted(talk, "mm-hm", delay_s)
    await talk.quiet(12.0)
    assert closing(talk)[1] == ["thinking", "speaking", "answered"] and len(talk.model.asked) == 1
    talk.recogniser.delay_s = 0.1
    await talk.speak(0.8)
    await talk.quiet(3.0)
    assert talk.remembered()[2:] == [("user", "And tomorrow?"), ("assistant", "All right")]
    assert not open_turns()


# What fails.


async def test_a_turn_whose_words_the_next_one_awaits_is_closed_when_the_recogniser_fails(talk: Talk) -> None:
    talk.recogniser.texts, talk.model.texts = ["The first half.", "the second half."], ["Understood."]
    talk.recogniser.delay_s, talk.recogniser.failing = 2.5, True
    await talk.speak(0.8)
    await talk.quiet(0.7)
    await talk.speak(0.8)
    await talk.quiet(2.0)
    assert [event["code"] for event in talk.of("error")] == ["asr_failed"]
    talk.recogniser.failing = False
    await talk.quiet(4.0)
    assert sorted(closing(talk).values()) == [["thinking", "failed"], ["thinking", "speaking", "answered"]]
    assert talk.remembered() == [("user", "the second half."), ("assistant", "Understood")]


async def test_a_recogniser_that_does_not_close_leaves_no_model_open(talk: Talk) -> None:
    model = SpeakingFake()
    talk.model = model
    talk.make()

    async def fail() -> None:
        raise RuntimeError("This fake was told to fail.")

    usual, talk.recogniser.aclose = talk.recogniser.aclose, fail
    with pytest.raises(RuntimeError):
        await talk.dialogue.aclose()
    assert model.closed
    talk.recogniser.aclose = usual


class SpeakingFake:
    """A model that would speak itself."""

    closed = False

    def answer(self, messages: list[Message], *, temperature: float | None = None) -> None:
        raise AssertionError("nobody is to ask it")

    def remember(self, messages: list[Message], heard_ms: int | None = None) -> None:
        pass

    async def aclose(self) -> None:
        self.closed = True
