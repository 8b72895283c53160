"""The voice of a service, against a fake over real HTTP."""

import asyncio
import time
from contextlib import aclosing

import numpy as np
import pytest

from engine.aio import Tasks
from engine.audio.pcm import PlayoutResampler
from engine.conversation.http import Timeouts
from engine.conversation.tts.openai import OpenAiVoice
from engine.errors import BackendFailed, ConfigInvalid
from engine.feeder import Feeder
from engine.speech import Speech
from tests.conversation.misbehaving import FakeService, Mood
from tests.fakes import FakeLipSync

KEY = "sk-secret-0123456789"
PATIENCE = Timeouts(connect_s=2, first_byte_s=1.5, next_byte_s=1)


@pytest.fixture
async def fake():
    async with FakeService() as fake:
        yield fake


@pytest.fixture
async def voice(fake):
    voice = OpenAiVoice(fake.url, KEY, timeouts=PATIENCE)
    yield voice
    await voice.aclose()


async def pieces_of(voice, text):
    async with aclosing(voice.speak(text)) as pieces:
        return [piece async for piece in pieces]


def sentences_of(pieces):
    """[(text, samples)]: parts joined as playout joins them."""
    sentences, going_on = [], False
    for piece in pieces:
        assert going_on == (piece.text == "")
        if not going_on:
            sentences.append((piece.text, []))
        sentences[-1][1].append(piece.samples)
        going_on = piece.more
    assert not going_on
    return [(text, np.concatenate(parts)) for text, parts in sentences]


async def test_a_sentence_comes_in_parts_of_which_the_first_has_the_text(fake, voice):
    pieces = await pieces_of(voice, "Hello there, my friend. How are you?")
    sentences = sentences_of(pieces)
    assert [text for text, _ in sentences] == ["Hello there, my friend.", "How are you?"]
    assert len(pieces) > 4
    for text, samples in sentences:
        sound = samples[: 24 * 60 * len(text)]
        assert len(sound) == 24 * 60 * len(text) and np.abs(sound).max() == 8000
        np.testing.assert_allclose(sound, 8000 * np.sin(2 * np.pi * 220 * np.arange(len(sound)) / 24_000), atol=1)
    assert [request.json for request in fake.requests] == [
        {"model": "tts-1", "voice": "alloy", "response_format": "pcm", "input": text} for text, _ in sentences
    ]
    assert fake.requests[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_there_is_a_pause_between_sentences_and_none_behind_the_last(voice):
    first, last = sentences_of(await pieces_of(voice, "One. Two."))
    assert len(first[1]) == 24 * (60 * 4 + 220)
    assert len(last[1]) == 24 * 60 * 4


@pytest.mark.alone
async def test_the_first_sound_does_not_wait_for_the_rest(fake, voice):
    fake.moods["speech"] = [Mood(between_s=0.02)]
    started_s = time.perf_counter()
    async with aclosing(voice.speak("A sentence of some length, of which little is needed.")) as pieces:
        piece = await anext(pieces)
        first_s = time.perf_counter() - started_s
        rest = [piece async for piece in pieces]
    assert piece.more and piece.text and piece.duration_ms >= 60
    assert first_s < (time.perf_counter() - started_s) / 3
    assert len(rest) > 5


async def test_the_length_of_a_sentence_is_estimated_ever_better(voice):
    text = "This is a sentence of the usual length."
    errors = []
    for _ in range(6):
        first, *rest = await pieces_of(voice, text)
        length_ms = first.duration_ms + sum(piece.duration_ms for piece in rest)
        errors.append(abs(first.expected_ms / length_ms - 1))
    assert errors[0] < 0.2 and errors[-1] < 0.03


@pytest.mark.parametrize("size", [1, 3, 4097])
async def test_chunks_may_be_cut_within_a_sample(fake, voice, size):
    fake.moods["speech"] = [Mood(piece_bytes=size, body=np.arange(2000, dtype="<i2").tobytes())]
    ((_, samples),) = sentences_of(await pieces_of(voice, "Hi."))
    np.testing.assert_array_equal(samples, np.arange(2000))


async def test_parts_resample_without_a_seam(voice):
    pieces = await pieces_of(voice, "A longer sentence in several parts.")
    resampler = PlayoutResampler(24_000)
    joined = np.concatenate([*(resampler.push(piece.samples) for piece in pieces), resampler.flush()]).astype(float)
    assert np.abs(np.diff(joined[480:-480])).max() < 1.05 * 8000 * 2 * np.pi * 220 / 48_000


async def test_a_session_hears_one_caption_a_sentence_and_its_whole_sound(voice):
    failures = []
    feeder = Feeder(voice, Tasks("test"), lambda error, speech: failures.append(error), failures.append)
    speech = Speech(1, FakeLipSync().window)
    await feeder.text("Hello there, my friend. How are you?", speech)
    captions = speech.captions_until(1_000_000)
    assert failures == []
    assert [caption.text for caption in captions] == ["Hello there, my friend.", "How are you?"]
    first, last = captions
    assert first.start_ms == 0 and last.start_ms == 60 * len(first.text) + 220
    assert abs(last.end_ms - speech.total_samples / 48) < 200


async def test_leaving_early_closes_the_connection_at_once(fake, voice):
    fake.moods["speech"] = [Mood(between_s=0.05, endless=True), Mood()]
    async with aclosing(voice.speak("An endless sentence.")) as pieces:
        await anext(pieces)
    assert await fake.wait_gone() < 0.5
    assert sentences_of(await pieces_of(voice, "Again."))[0][0] == "Again."


async def test_cancelling_while_waiting_closes_the_connection(fake, voice):
    fake.moods["speech"] = [Mood(first_byte_s=30)]
    task = asyncio.create_task(pieces_of(voice, "Hello."))
    await asyncio.sleep(0.2)
    assert len(fake.requests) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await fake.wait_gone() < 0.5


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (Mood(status=401, error_code="invalid_api_key"), "service_rejected_key"),
        (Mood(status=429, headers={"Retry-After": "60"}), "service_rate_limited"),
        (Mood(status=400), "service_failed"),
        (Mood(first_byte_s=5), "service_timeout"),
        (Mood(stall_after=3), "service_timeout"),
        (Mood(die_after=3), "service_failed"),
        (Mood(body=b'{"error": {"message": "no"}}', content_type="application/json"), "service_garbled"),
        (Mood(body=b'{"error": {"message": "no"}}'), "service_garbled"),
        (Mood(body=b"ID3 this is no sound at all", content_type="audio/mpeg"), "service_garbled"),
        (Mood(body=b"<html></html>", content_type="text/html"), "service_garbled"),
        (Mood(body=b""), "service_garbled"),
        (Mood(raw=b"rubbish\r\n\r\n"), "service_garbled"),
    ],
)
async def test_a_misbehaving_service_is_a_typed_error_and_the_voice_goes_on(fake, voice, mood, code):
    fake.moods["speech"] = [mood, Mood()]
    with pytest.raises(BackendFailed) as caught:
        await pieces_of(voice, "A secret sentence.")
    assert caught.value.code == code
    assert KEY not in caught.value.message and "secret" not in caught.value.message
    assert sentences_of(await pieces_of(voice, "Again."))


async def test_a_service_that_is_busy_for_a_moment_is_asked_again(fake, voice):
    fake.moods["speech"] = [Mood(status=503), Mood()]
    assert sentences_of(await pieces_of(voice, "Hello."))


async def test_a_sound_that_broke_off_was_handed_out_before_the_error(fake, voice):
    fake.moods["speech"] = [Mood(die_after=5, between_s=0.01)]
    heard = []
    with pytest.raises(BackendFailed):
        async with aclosing(voice.speak("A sentence that breaks off.")) as pieces:
            async for piece in pieces:
                heard.append(piece)
    assert heard[0].text and all(piece.more for piece in heard)


async def test_options_reach_the_service(fake):
    voice = OpenAiVoice(fake.url, model="kokoro", name="af_bella", rate_wpm=330)
    await pieces_of(voice, "Hello.")
    await voice.aclose()
    assert fake.requests[0].json == {
        "model": "kokoro", "voice": "af_bella", "response_format": "pcm", "speed": 2.0, "input": "Hello."
    }  # fmt: skip
    assert "Authorization" not in fake.requests[0].headers


async def test_what_nobody_reads_is_not_sent(fake, voice):
    assert await pieces_of(voice, "… !!!") == []
    assert fake.requests == []


def test_a_service_without_an_address_is_refused_at_once():
    with pytest.raises(ConfigInvalid):
        OpenAiVoice("")


async def test_many_texts_use_one_connection_after_the_other(fake, voice):
    for _ in range(20):
        await pieces_of(voice, "Hello.")
    assert len(fake.requests) == 20 and not fake.gone
