import asyncio

import numpy as np
import pytest

from engine.conversation.tts.base import SpeechPiece, Word
from engine.reply import heard_text
from engine.speech import Caption
from tests.session.stage import Stage, sound, spoken


async def test_sentences_are_heard_in_order_while_later_ones_are_added(stage: Stage) -> None:
    reply = stage.session.open_reply()
    reply.add("one two three.")
    await stage.run(8)
    assert spoken(stage.frames)
    reply.add("four five.")
    reply.end()
    await stage.run(40)
    assert [caption["text"] for caption in stage.of("caption")] == ["one two three", "four five"]
    assert reply.played_out and reply.heard_text == "one two three four five"


async def test_a_reply_that_is_cut_off_knows_what_was_heard(stage: Stage) -> None:
    reply = stage.session.open_reply()
    reply.add("one two three four five six seven eight.")
    reply.end()
    await stage.run(13)
    heard_ms = len(spoken(stage.frames)) * 40
    await stage.session.interrupt()
    words = "one two three four five six seven eight".split()
    assert reply.heard_text == " ".join(word for at, word in enumerate(words) if 100 * at + 45 <= heard_ms)
    assert 0 < heard_ms < 700 and reply.played_out


async def test_the_voice_is_not_far_ahead_of_a_long_reply(stage: Stage) -> None:
    reply = stage.session.open_reply()
    for _ in range(30):
        reply.add(" ".join(["word"] * 20) + ".")
    reply.end()
    await stage.run(5)
    assert len(stage.voice.spoken) <= 5
    await stage.session.interrupt()
    assert stage.voice.speaking == 0


async def test_a_reply_that_nobody_feeds_ends_with_the_session(stage: Stage) -> None:
    reply = stage.session.open_reply()
    await stage.run(3)
    await stage.session.aclose()
    await asyncio.sleep(0)
    assert reply.played_out


async def test_sound_that_is_there_already_is_heard_as_it_is_with_its_captions(stage: Stage) -> None:
    reply = stage.session.open_reply()
    rate = 24_000
    for number in range(10):
        if number in (0, 5):
            reply.add(Caption(f"half {number}", 100 * number, 100 * number + 500))
        reply.add(SpeechPiece(np.full(rate // 10, 1000, np.int16), rate, "", more=True))
    reply.add(SpeechPiece(np.zeros(0, np.int16), rate, ""))
    await stage.run(8)
    assert 0 < reply.heard_ms < 1000 and reply.heard_text in ("half", "half 0")
    reply.end()
    await stage.run(40)
    assert reply.heard_ms == 1000 and reply.heard_text == "half 0 half 5" and reply.played_out
    assert [caption["text"] for caption in stage.of("caption")] == ["half 0", "half 5"]
    assert not stage.voice.spoken and len(spoken(stage.frames)) == 25
    assert abs(np.median(sound(spoken(stage.frames))) - 1000) < 5
    reply.time([Caption("better", 0, 1000)])
    assert reply.heard_text == "better"


async def test_what_waits_behind_a_reply_is_said_after_it(stage: Stage) -> None:
    reply = stage.session.open_reply()
    later = stage.session.say("later")
    reply.add("first")
    await stage.run(10)
    reply.end()
    await stage.run(20)
    assert [event["utterance_id"] for event in stage.of("speaking") if event["speaking"]] == [
        reply.utterance_id, later,
    ]


@pytest.mark.parametrize(
    ("heard_ms", "text"),
    [
        (0, ""),
        (400, "Hello,"),
        (1000, "Hello, Ada."),
        (1300, "Hello, Ada. No"),
        (2000, "Hello, Ada. No words here"),
    ],
)
def test_heard_text_is_cut_after_whole_words(heard_ms: int, text: str) -> None:
    captions = [
        Caption("Hello, Ada.", 0, 1000, (Word("Hello", 0, 400), Word("Ada", 500, 900))),
        Caption("No words here", 1000, 2000),
    ]
    assert heard_text(captions, heard_ms) == text
