import pytest

from engine.conversation.own_words import are_own_words

HEARD = "Paris is the capital of France. It lies on the Seine and has two million people, and many more around it"


@pytest.mark.parametrize(
    "text", ["two million people", "many more", "it lies on this sane and has two million", "CAPITAL OF FRANCE"]
)
def test_what_the_avatar_just_said_is_its_own(text: str) -> None:
    assert are_own_words(text, HEARD)


@pytest.mark.parametrize(
    "text",
    ["no", "people", "", "wait a moment please", "what about the Seine", "and how many people live in Berlin",
     "more and", "is it on the Thames"],
)  # fmt: skip
def test_what_a_person_says_about_it_is_not(text: str) -> None:
    assert not are_own_words(text, HEARD)


def test_what_was_said_long_ago_does_not_come_back() -> None:
    assert not are_own_words("the capital of France", HEARD + " word" * 100)
    assert not are_own_words("the capital of France", "")


def test_unspaced_writing_is_compared_by_characters() -> None:
    assert are_own_words("首都是巴黎", "法国的首都是巴黎")
    assert not are_own_words("请等一下", "法国的首都是巴黎")
