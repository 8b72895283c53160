"""The service's conversation beside the history, and when the sentences of an answer sound."""

import itertools

import pytest

from engine.conversation.llm.base import Message
from engine.conversation.realtime.items import Entry, Items
from engine.conversation.realtime.timing import SpokenWords


def items(*entries: tuple[str, str | None]) -> Items:
    made = Items()
    for number, (role, text) in enumerate(entries):
        made.add(Entry(role, text, [f"i{number}"]))
    return made


def said(*messages: tuple[str, str]) -> list[Message]:
    return [Message(role, text) for role, text in messages]


def test_nothing_is_done_where_both_agree():
    both = [("user", "Hi."), ("assistant", "Hello."), ("user", "Well?")]
    agreed = items(*both).agree(said(*both))
    assert not agreed.created and not agreed.removed


def test_what_is_missing_is_put_where_it_belongs():
    there = items(("user", "Hi."), ("assistant", "Hello."))
    agreed = there.agree(said(("assistant", "Welcome."), ("user", "Hi."), ("assistant", "Hello."), ("user", "Typed.")))
    assert [(made.entry.text, made.after) for made in agreed.created] == [("Welcome.", "root"), ("Typed.", None)]
    assert [entry.text for entry in there.entries] == ["Welcome.", "Hi.", "Hello.", "Typed."]


def test_all_is_put_in_order_into_an_empty_conversation():
    agreed = items().agree(said(("user", "a"), ("assistant", "b"), ("user", "c")))
    assert [(made.entry.text, made.after) for made in agreed.created] == [("a", None), ("b", None), ("c", None)]
    assert len({made.entry.item_ids[0] for made in agreed.created}) == 3


def test_what_the_history_forgot_or_never_had_is_removed():
    there = items(("user", "old"), ("assistant", "older"), ("user", "dropped"), ("user", "now"))
    agreed = there.agree(said(("user", "now")))
    assert [entry.text for entry in agreed.removed] == ["old", "older", "dropped"] and not agreed.created


def test_what_was_said_in_parts_is_one_turn_and_keeps_its_sound():
    there = items(("user", "and then"), ("user", "what happened"))
    agreed = there.agree(said(("user", "and then what happened")))
    assert not agreed.created and not agreed.removed
    assert [entry.item_ids for entry in there.entries] == [["i0", "i1"]]


def test_what_is_still_being_made_and_what_is_not_answered_yet_are_left_alone():
    there = items(("user", "Hi."), ("assistant", "Hello."), ("user", "But"), ("user", None))
    agreed = there.agree(said(("user", "Hi."), ("assistant", "Hello.")), so_far=True)
    assert not agreed.removed and len(there.entries) == 4
    agreed = there.agree(said(("user", "Hi."), ("assistant", "Hello."), ("user", "But")))
    assert not agreed.removed and not agreed.created


def sentences(text: str, ms_per_letter: float, *, lead_ms: float = 0.0) -> SpokenWords:
    """A transcript that comes ``lead_ms`` before its sound, letter by letter."""
    words = SpokenWords()
    for number, letter in enumerate(text):
        words.feed(letter, max(0, round(number * ms_per_letter - lead_ms)))
    words.end()
    return words


TEXT = "One two three. Four five six seven eight nine. Ten."


@pytest.mark.parametrize("ms_per_letter", [45.0, 65.0, 90.0])
def test_sentences_begin_where_the_sound_was_when_their_words_came(ms_per_letter: float):
    words = sentences(TEXT, ms_per_letter)
    starts = [text.start_ms for text in words._done]
    for sentence, start_ms in zip(TEXT.replace(". ", ".|").split("|"), starts, strict=True):
        assert abs(start_ms - TEXT.index(sentence) * ms_per_letter) <= 200


@pytest.mark.parametrize("lead_ms", [1e9, -1e6])
def test_sentences_of_a_transcript_that_comes_all_at_once_are_spread_as_people_speak(lead_ms: float):
    starts = [text.start_ms for text in sentences(TEXT, 65.0, lead_ms=lead_ms)._done]
    assert starts == sorted(starts) and abs(starts[2] - TEXT.index("Ten") * 65) < 0.55 * TEXT.index("Ten") * 65


def test_the_whole_sound_belongs_to_the_sentences_by_their_length():
    timed = sentences(TEXT, 65.0, lead_ms=1e9).timed(5000)
    assert timed[0].start_ms == 0 and timed[-1].end_ms == 5000
    assert all(one.end_ms == other.start_ms for one, other in itertools.pairwise(timed))
    assert " ".join(text.text for text in timed) == TEXT
