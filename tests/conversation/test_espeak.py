import asyncio
import time

import numpy as np
import pytest

from engine.conversation.tts.espeak import EspeakVoice, shared_espeak
from engine.conversation.tts.scripts import language_of
from engine.errors import ConfigInvalid


async def pieces_of(voice, text):
    return [piece async for piece in voice.speak(text)]


async def test_sentences_come_one_by_one_with_sound_and_words_in_time():
    pieces = await pieces_of(EspeakVoice(), "Hello there, I am here. How are you?")
    assert [piece.text for piece in pieces] == ["Hello there, I am here.", "How are you?"]
    for piece in pieces:
        assert piece.samples.dtype == np.int16
        assert 0.15 < np.abs(piece.samples / 32768).max() < 0.75
        starts = [word.start_ms for word in piece.words]
        assert starts == sorted(starts)
        assert all(0 <= word.start_ms < word.end_ms <= piece.duration_ms for word in piece.words)
    assert [word.text for word in pieces[0].words] == ["Hello", "there", "I am", "here"]


async def test_a_number_is_one_word():
    (piece,) = await pieces_of(EspeakVoice(), "It is 3.14 today")
    assert [word.text for word in piece.words] == ["It", "is", "3.14", "today"]


@pytest.mark.parametrize(
    "text",
    ["你好，世界。", "Привет мир", "これは日本語です", "שלום", "مرحبا", "नमस्ते", "ฉันกิน", "안녕", "ñu 😀", "\u202ea"],
)
async def test_text_of_any_language_is_spoken(text):
    pieces = await pieces_of(EspeakVoice(), text)
    assert sum(piece.duration_ms for piece in pieces) > 150


@pytest.mark.parametrize("text", ["", " ", "\x00\x07\ud800", "...", "\u200b\u200b"])
async def test_text_without_anything_to_say_makes_no_piece(text):
    assert await pieces_of(EspeakVoice(), text) == []


async def test_markup_is_read_out_and_not_interpreted():
    (plain,) = await pieces_of(EspeakVoice(), "x")
    (ssml,) = await pieces_of(EspeakVoice(), '<prosody rate="slow">x</prosody>')
    (phonemes,) = await pieces_of(EspeakVoice(), "[[h@l'oU]] x")
    assert ssml.duration_ms > 3 * plain.duration_ms
    assert phonemes.duration_ms > 3 * plain.duration_ms


async def test_a_cancelled_sentence_leaves_the_voice_ready():
    voice = EspeakVoice()
    task = asyncio.create_task(pieces_of(voice, "This is a rather long sentence that takes a while, " * 7))
    await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started_s = time.monotonic()
    (piece,) = await pieces_of(voice, "Hello.")
    assert piece.duration_ms > 200
    assert time.monotonic() - started_s < 2


async def test_two_voices_speak_at_once_without_mixing():
    first, second = EspeakVoice("en-us+m3"), EspeakVoice("de+f2", rate_wpm=220)
    alone = [(await pieces_of(voice, "Guten Morgen, mein Freund."))[0].samples for voice in (first, second)]
    together = await asyncio.gather(*(pieces_of(voice, "Guten Morgen, mein Freund.") for voice in (first, second)))
    for before, (piece,) in zip(alone, together, strict=True):
        assert abs(len(before) - len(piece.samples)) < 0.02 * len(before)


@pytest.mark.parametrize("name", ["xx", "en-us+nosuch", " ", "+f3", "en\n", "../../etc"])
def test_an_unknown_voice_is_refused_with_the_names_there_are(name):
    with pytest.raises(ConfigInvalid) as refused:
        EspeakVoice(name)
    assert "All of them" in refused.value.message


@pytest.mark.parametrize("options", [{"rate_wpm": 5}, {"rate_wpm": 1000}, {"pitch": -1}, {"pitch": 101}])
def test_a_rate_or_pitch_out_of_range_is_refused(options):
    with pytest.raises(ConfigInvalid):
        EspeakVoice(**options)


def test_common_names_of_languages_work():
    for name in ("en-gb", "zh", "en-us", "fr", "pt-br"):
        EspeakVoice(name)


def test_rate_and_pitch_change_the_sound():
    espeak = shared_espeak()
    slow, fast = (espeak.synthesise("How do you do today?", rate_wpm=rate) for rate in (110, 220))
    assert len(slow.samples) > 1.4 * len(fast.samples)


def test_phonemes_cover_the_sound_in_order():
    made = shared_espeak().synthesise("Papa moved the map.")
    assert [p.name.lstrip("',") for p in made.phonemes][:2] == ["p", "A:"]
    assert all(a.end_ms == b.start_ms for a, b in zip(made.phonemes, made.phonemes[1:], strict=False))
    assert made.phonemes[-1].end_ms == pytest.approx(1000 * len(made.samples) / made.sample_rate)


@pytest.mark.parametrize(
    ("sentence", "preferred", "language"),
    [
        ("Hello", "en-us", "en-us"),
        ("Hello", "de", "de"),
        ("Hello", "ru", "en-us"),
        ("Привет", "en-us", "ru"),
        ("Привіт", "uk", "uk"),
        ("日本語です", "en-us", "ja"),
        ("你好", "en-us", "cmn"),
        ("你好", "yue", "yue"),
        ("123 !", "fr", "fr"),
        ("Say 你好 to him", "en-us", "en-us"),
    ],
)
def test_a_sentence_is_read_in_a_language_that_writes_it(sentence, preferred, language):
    assert language_of(sentence, preferred) == language
