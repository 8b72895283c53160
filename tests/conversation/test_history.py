"""The memory of a conversation: what the model gets, and what is exported."""

import itertools
import json

import pytest

from engine.conversation import history as module
from engine.conversation.history import History, estimate_tokens
from engine.conversation.llm.base import Message

PROMPT = "You are Maya."


def weight(messages: list[Message]) -> int:
    return sum(estimate_tokens(message.text) + 4 for message in messages)


def talked(history: History, exchanges: int, words: int = 20) -> None:
    for number in range(exchanges):
        history.add(Message("user", f"question {number} " + "word " * words))
        history.add_played(f"answer {number} " + "word " * words, cut=False)


def test_a_request_holds_prompt_turns_and_what_is_said_now() -> None:
    history = History(PROMPT)
    history.add(Message("user", "One."))
    history.add(Message("assistant", "Two."))
    assert history.messages("Three.") == [
        Message("system", PROMPT), Message("user", "One."), Message("assistant", "Two."), Message("user", "Three."),
    ]  # fmt: skip
    assert history.messages()[-1] == Message("assistant", "Two."), "asking records nothing"


def test_no_prompt_is_no_message() -> None:
    assert History().messages("Hi") == [Message("user", "Hi")]


@pytest.mark.parametrize(
    ("played", "cut", "kept"),
    [
        ("Hello there, my", True, "Hello there, my…"),
        ("Hello there, ", True, "Hello there…"),
        ("Hello there.", True, "Hello there…"),
        ("你好，", True, "你好…"),
        ("Hello there.", False, "Hello there."),
    ],
)
def test_only_what_was_played_is_kept(played: str, cut: bool, kept: str) -> None:
    history = History()
    history.add_played(played, cut)
    assert history.messages() == [Message("assistant", kept)]


@pytest.mark.parametrize("cut", [True, False])
def test_a_reply_that_nobody_heard_leaves_nothing(cut: bool) -> None:
    history = History()
    history.add_played("  ", cut)
    assert history.messages() == [] and "turns are gone" not in history.to_text()


def test_the_budget_holds_and_the_prompt_stays() -> None:
    history = History(PROMPT, budget_tokens=500)
    for _ in range(10):
        talked(history, 5)
        messages = history.messages("And now?")
        assert weight(messages) <= 500
        assert messages[0] == Message("system", PROMPT)
        assert messages[1].role == "user", "a context begins with the user's turn"
        assert messages[-1] == Message("user", "And now?")
        assert "answer 4" in messages[-2].text, "the newest turns stay"


@pytest.mark.parametrize("long_words", range(10, 60, 7))
def test_no_context_begins_in_the_middle_of_an_exchange(long_words: int) -> None:
    history = History(PROMPT, budget_tokens=400)
    for number in range(12):
        history.add(Message("user", f"question {number}"))
        history.add_played("word " * long_words * (1 + number % 3), cut=False)
        assert history.messages()[1].role == "user"


def test_the_start_of_requests_stays_the_same_for_many_turns() -> None:
    history = History(PROMPT, budget_tokens=1000)
    talked(history, 30)
    starts = []
    for _ in range(40):
        talked(history, 1)
        starts.append(history.messages()[1].text)
    changes = sum(before != after for before, after in itertools.pairwise(starts))
    assert 1 <= changes <= 12


def test_a_turn_over_the_budget_is_sent_all_the_same() -> None:
    history = History(PROMPT, budget_tokens=50)
    talked(history, 3)
    assert history.messages("word " * 200) == [Message("system", PROMPT), Message("user", "word " * 200)]
    history.add(Message("user", "word " * 200))
    assert [message.role for message in history.messages()] == ["system", "user"]


def test_asking_with_a_long_text_counts_it() -> None:
    history = History(PROMPT, budget_tokens=300)
    talked(history, 4)
    assert weight(history.messages("word " * 100)) <= 300


def test_the_prompt_is_not_said() -> None:
    with pytest.raises(ValueError, match="system prompt"):
        History().add(Message("system", "x"))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("The quick brown fox jumps over the lazy dog.", 9, 14),  # 10 with cl100k_base
        ("你好，很高兴认识你。", 9, 14),
        ("こんにちは、お元気ですか。", 8, 14),
        ("Привет, как дела сегодня?", 6, 14),
    ],
)
def test_tokens_are_estimated_with_respect_to_the_script(text: str, low: int, high: int) -> None:
    assert low <= estimate_tokens(text) <= high


def test_export_as_json_has_everything_that_was_heard_and_no_prompt() -> None:
    history = History("secret instructions", budget_tokens=100, now=lambda: 1_800_000_000.25)
    talked(history, 20)
    history.add_played("Well, 你好", cut=True)
    exported = json.loads(history.to_json())
    assert len(exported["turns"]) == 41 and exported["forgotten"] == 0
    assert exported["turns"][-1] == {"role": "assistant", "text": "Well, 你好…", "at": "2027-01-15T08:00:00.250+00:00"}
    assert "secret" not in history.to_json() + history.to_text()


def test_export_as_text_is_a_line_a_turn() -> None:
    history = History(now=lambda: 1_800_000_000.0)
    history.add(Message("user", "One\ntwo."))
    history.add_played("Three", cut=True)
    assert history.to_text(assistant="Maya") == "08:00:00 You: One two.\n08:00:00 Maya: Three…\n"


def test_memory_is_bounded_and_export_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TURNS", 10)
    history = History(budget_tokens=200)
    talked(history, 8)
    assert len(json.loads(history.to_json())["turns"]) == 10
    assert json.loads(history.to_json())["forgotten"] == 6
    assert history.to_text().startswith("[6 earlier turns are gone]\n")
    history.clear()
    assert history.messages() == [] and json.loads(history.to_json()) == {"turns": [], "forgotten": 0}


def test_a_conversation_goes_on_where_another_history_of_it_ended() -> None:
    first = History("Be kind.", now=lambda: 100.0)
    first.add(Message("user", "Hello."), ago_s=3)
    first.add_played("Good morning to", True)
    second = History("Be brief.")
    second.add(Message("user", "What was here before is not of this conversation."))
    second.restore(first.lines)
    assert second.lines == first.lines
    asked = [(message.role, message.text) for message in second.messages("And now?")]
    assert asked == [
        ("system", "Be brief."), ("user", "Hello."), ("assistant", "Good morning to…"), ("user", "And now?")
    ]  # fmt: skip


def test_what_is_restored_keeps_to_the_budget() -> None:
    first = History()
    for _ in range(200):
        first.add(Message("user", "word " * 50))
        first.add(Message("assistant", "word " * 50))
    second = History(budget_tokens=1000)
    second.restore(first.lines)
    assert len(second.lines) == 400 and len(second.messages("Now?")) < 20
