import pytest

from engine.conversation.wake import ATTENTION_S, WakeWord


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("hey maya, what time is it", "what time is it"),
        ("Hey Maya! What time is it?", "What time is it?"),
        ("MAYA what time is it", "what time is it"),
        ("um okay maya tell me a story", "tell me a story"),
        ("so hey, Maya: tell me a story.", "tell me a story."),
        ("What time is it, Maya?", "What time is it"),
        ("I think so. Hey Maya, what time is it?", "what time is it?"),
        ("what time is it hey maya", "what time is it"),
        ("hey my a what time is it", "what time is it"),
        ("hey maia what time is it", "what time is it"),
        ("Hey, Maya.", "Hey, Maya."),
        ("maya", "maya"),
        ("I gave it to Maya", None),
        ("what is maya doing there", None),
        ("Maya's house is red", None),
        ("mayan temples are old", None),
        ("may I ask you something", None),
        ("maybe tomorrow", None),
        ("hey there what time is it", None),
        ("the other one", None),
        ("", None),
        ("…", None),
    ],
)
def test_words_are_addressed_only_when_they_call_the_name(said: str, meant: str | None) -> None:
    assert WakeWord("maya").words(said) == meant


@pytest.mark.parametrize(
    ("names", "said", "meant"),
    [
        ("hey maya", "hey, Maya, go on", "go on"),
        ("hey maya", "maya go on", None),
        ("Amara, my friend", "My friend, go on", "go on"),
        ("小雅", "小雅,现在几点", "现在几点"),
        ("小雅", "你好小雅现在几点", "现在几点"),
        ("Zoë", "ZOË go on", "go on"),
        ("leo", "hey lea go on", None),
        ("ra", "hera and sora go on", None),
        ("a.b (c", "a b c go on", "go on"),
        (" , ", "anything at all", "anything at all"),
        ("", "anything at all", "anything at all"),
    ],
)
def test_names_may_be_several_words_or_of_other_scripts(names: str, said: str, meant: str | None) -> None:
    assert WakeWord(names).words(said) == meant


def test_after_an_answer_the_person_goes_on_without_the_name_for_a_while() -> None:
    wake = WakeWord("maya")
    assert not wake.attentive_at(10.0)
    wake.answering(20.0)
    assert wake.attentive_at(20.0 + ATTENTION_S - 0.1)
    assert not wake.attentive_at(20.0 + ATTENTION_S + 0.1)


def test_without_a_name_everybody_is_always_in_conversation() -> None:
    wake = WakeWord("")
    assert wake.attentive_at(1e9) and wake.words("") == ""


def test_a_long_text_is_judged_at_once() -> None:
    assert WakeWord("maya").words("hey um so " * 5000) is None
