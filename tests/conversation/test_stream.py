import asyncio
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.conversation.tts.espeak import EspeakVoice
from engine.conversation.tts.sentences import MAX_SENTENCE_CHARS, pause_after_ms, split_sentences
from engine.conversation.tts.speakable import Unmarked, speakable
from engine.conversation.tts.stream import SentenceStream

REPLY = """Sure! Here's what **Dr. Smith** wrote, e.g. on p. 12:

1. Pi is 3.14, [roughly](https://a.b/c_(d)?e=1).
2. See https://example.org/x.y?z=1. Then `foo. Bar` it 👋🏽!

```python
print("Not. Read.")
```
| a | b |
|---|---|
| 1 | 2 |

<think>No. Way.</think>He said (well. Maybe.) to us: "Stop!" and left...
你好，世界。「はい。いいえ。」と言った。Ok & done -> end"""


def spoken(deltas, **options):
    stream = SentenceStream(**options)
    return [sentence for delta in deltas for sentence in stream.feed(delta)] + stream.flush()


def cut(text, places):
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


_MARKS = list("*_`~[]()<>|#-=!&$\\\n\r .,;:?\"'“”「」。！？、，0123abcDX好は👋🏽➡\u200d\ufe0f\u0301\ud83d→•【】")
_WORDS = [
    *("https://a.b/c", "www.x.y", "<b>", "</b>", "<think>", "</think>", "<!--", "-->", "&amp;", "```", "~~~", "---"),
    *("Dr.", "e.g.", "3.14", "p. 5", "Hello there. ", "and so on, ", "\n\n", "[a](b)", "![", "| a | b |", "1. "),
]
_PIECES = st.one_of(st.sampled_from(_MARKS), st.sampled_from(_WORDS), st.text(max_size=5))
_TEXTS = st.lists(_PIECES, max_size=60).map("".join)
_CUTS = st.lists(st.integers(0, 10_000), max_size=30)


@settings(max_examples=400, deadline=None)
@given(_TEXTS, _CUTS)
def test_sentences_do_not_depend_on_how_the_text_arrives(text, places):
    whole = spoken([text])
    assert spoken(cut(text, places)) == whole
    assert spoken(text) == whole
    assert all(0 < len(sentence) <= MAX_SENTENCE_CHARS for sentence in whole)


@given(_CUTS)
def test_a_real_reply_does_not_depend_on_how_it_arrives(places):
    assert spoken(cut(REPLY, places)) == [
        "Sure!",
        "Here's what Dr. Smith wrote, e.g. on p. 12:",
        "1. Pi is 3.14, roughly.",
        "2. See link.",
        "Then foo. Bar it!",
        "a, b",
        "1, 2",
        'He said (well. Maybe.) to us: "Stop!" and left...',
        "你好，世界。",
        "「はい。いいえ。」と言った。",
        "Ok & done, end",
    ]


@settings(max_examples=300, deadline=None)
@given(_TEXTS)
def test_one_rule_splits_whole_texts_and_streams(text):
    text = "".join(char for char in text if char != "`")  # in code blanks are protected, in plain text there is no code
    whole = split_sentences(speakable(text))
    streamed = spoken(text, early=False)

    def letters(sentences):
        return ["".join(filter(str.isalnum, sentence)) for sentence in sentences]

    # A whole text keeps what holds no letter at its neighbour; a stream has sent the neighbour off already.
    assert [letter for letter in letters(whole) if letter] == letters(streamed)


@pytest.mark.parametrize(
    ("before", "decisive", "sentence"),
    [
        ("Yes. ", "T", "Yes."),
        ("Really?", " N", "Really?"),
        ("好的。", "我", "好的。"),
        ("A list\n", "\n", "A list"),
        ("He ran 3.14 km. ", "S", "He ran 3.14 km."),
    ],
)
def test_a_sentence_leaves_with_the_first_sign_that_it_is_over(before, decisive, sentence):
    stream = SentenceStream()
    assert [s for char in before for s in stream.feed(char)] == []
    assert [s for char in decisive for s in stream.feed(char)] == [sentence]


def test_the_first_sentence_may_be_a_clause_and_later_ones_not():
    text = "Well, that is a long story about a king, and it ends badly. It began, as they say, long ago, in May. "
    assert spoken([text]) == [
        "Well, that is a long story about a king,",
        "and it ends badly.",
        "It began, as they say, long ago, in May.",
    ]
    assert spoken([text], early=False)[0] == "Well, that is a long story about a king, and it ends badly."


def test_a_new_reply_may_start_with_a_clause_again():
    stream = SentenceStream()
    for _ in range(2):
        assert stream.feed("That is a really good idea, my ") == ["That is a really good idea,"]
        assert stream.flush() == ["my"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("It happened on that day in May 5, 2024, I think", "It happened on that day in May 5, 2024,"),
        ("The price of it was 1,000,000 dollars, I think", "The price of it was 1,000,000 dollars,"),
        ("We met some people (John, Mary, Sue), and left", "We met some people (John, Mary, Sue),"),
        ("我昨天去了北京的故宫，然后回家了", "我昨天去了北京的故宫，"),
        ("我喜欢吃苹果香蕉橘子、梨，还有葡萄", "我喜欢吃苹果香蕉橘子、梨，"),
        ("きのうは友だちといっしょに、えいがを見ました", "きのうは友だちといっしょに、"),
    ],
)
def test_a_clause_ends_at_a_comma_between_words_only(text, first):
    assert spoken([text])[0] == first


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("See No. 5 and Fig. 3. The answer is no. 5 is odd.", ["See No. 5 and Fig. 3.", "The answer is no. 5 is odd."]),
        ("It works (mostly. Not always.) here. Ok.", ["It works (mostly. Not always.) here.", "Ok."]),
        ('"Come in! Sit down." She smiled.', ['"Come in! Sit down."', "She smiled."]),
        ('"Who?" she asked. No.', ['"Who?" she asked.', "No."]),
        ("Sad :( But fine. Ok.", ["Sad :( But fine.", "Ok."]),
        ("It is 5\" long. Ok.", ['It is 5" long.', "Ok."]),
        ("他说：“走吧。好吗？”我们走了。", ["他说：“走吧。好吗？”", "我们走了。"]),
        ("我想……也许吧！走", ["我想……也许吧！", "走"]),
        ("今天下午3.5小时。Hello world. 再见!好", ["今天下午3.5小时。", "Hello world.", "再见!", "好"]),
        ("Am 3. Oktober war es 5. Er kam.", ["Am 3. Oktober war es 5.", "Er kam."]),
        ("„Ja. Gut.“ Er ging. „Nein?“ fragte er.", ["„Ja. Gut.“", "Er ging.", "„Nein?“ fragte er."]),
        ("😀 👋", []),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_stop(text, sentences):
    assert spoken(text, early=False) == sentences


@pytest.mark.parametrize("char", [" word", "好", "x", "*", "`", "[", "(", "<", "~", "_", ")", "\\", "&", "|", "h", '"'])
def test_an_endless_text_is_cut_and_never_piles_up(char):
    stream = SentenceStream()
    sentences = []
    for _ in range(2000 // len(char)):
        sentences += stream.feed(char * 5)
        assert len(stream._waiting) + len(stream._unmarked._held) < 2500
    sentences += stream.flush()
    assert all(len(sentence) <= MAX_SENTENCE_CHARS for sentence in sentences)
    if char == " word":
        assert {word for sentence in sentences for word in sentence.split()} == {"word"}


def test_an_unclosed_bracket_or_quote_holds_a_reply_back_for_a_moment_only():
    stream = SentenceStream()
    text = 'He said "' + "This is a sentence of it. " * 12
    assert len(stream.feed(text)) > 3


def test_half_a_character_of_a_careless_server_does_no_harm():
    assert spoken(["Hi \ud83d", "\ude00 there. ", "Bye."]) == ["Hi there.", "Bye."]


def test_long_texts_are_read_in_linear_time():
    text = REPLY * 40
    started_s = time.perf_counter()
    reader = Unmarked()
    for start in range(0, len(text), 4):
        reader.feed(text[start : start + 4])
    assert time.perf_counter() - started_s < 3


def test_pauses_are_longer_behind_sentences_than_behind_clauses():
    assert pause_after_ms("Yes.") == pause_after_ms("Yes.”") > pause_after_ms("Well,") > 0


async def test_the_first_sound_of_a_reply_comes_before_its_second_sentence():
    stream, voice = SentenceStream(), EspeakVoice()
    (sentence,) = stream.feed("Well, that is a good question, and ")
    piece = await asyncio.wait_for(anext(voice.speak(sentence)), 5)
    assert piece.text == "Well, that is a good question," and piece.duration_ms > 1000
