import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.conversation.tts.sentences import MAX_SENTENCE_CHARS, clean_text, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Hello there. How are you?", ["Hello there.", "How are you?"]),
        ("It costs 3.14 dollars. Fine.", ["It costs 3.14 dollars.", "Fine."]),
        ("Dr. Smith met Mrs. Jones. They left.", ["Dr. Smith met Mrs. Jones.", "They left."]),
        ("See https://a.b/c.html?x=1. Then go.", ["See https://a.b/c.html?x=1.", "Then go."]),
        ("J. R. R. Tolkien wrote it.", ["J. R. R. Tolkien wrote it."]),
        ('He said "Stop!" Then he left.', ['He said "Stop!"', "Then he left."]),
        ("Wait... what?", ["Wait... what?"]),
        ("The answer is no. Next.", ["The answer is no.", "Next."]),
        ("你好，世界。我们走吧！", ["你好，世界。", "我们走吧！"]),
        ("はい。わかりました。", ["はい。", "わかりました。"]),
        ("Eggs:\n- one\n- two", ["Eggs:", "- one", "- two"]),
        ("One line\nwrapped here.\n\nNew paragraph", ["One line wrapped here.", "New paragraph"]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("Good. 🎉 !!!", ["Good. 🎉 !!!"]),
        ("   ", []),
    ],
)
def test_text_is_split_where_a_reader_would_pause(text, sentences):
    assert split_sentences(text) == sentences


def test_a_sentence_without_an_end_is_cut_at_a_comma_or_blank():
    pieces = split_sentences("word and, " * 400)
    assert len(pieces) > 5
    assert max(map(len, pieces)) <= MAX_SENTENCE_CHARS
    assert all(piece.endswith((",", "word", "and")) for piece in pieces)


def test_what_cannot_be_spoken_is_dropped():
    assert clean_text("a\x00b\x01c\ud800d\u202ee\ufefff\tg  h") == "abcdef g h"


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=600))
def test_every_letter_and_digit_of_any_text_is_kept_in_order(text):
    pieces = split_sentences(text)
    assert "".join(filter(str.isalnum, "".join(pieces))) == "".join(filter(str.isalnum, clean_text(text)))
    assert all(0 < len(piece) <= MAX_SENTENCE_CHARS for piece in pieces)
