import asyncio
import io
import wave

import numpy as np
import pytest

from engine.conversation.asr.openai import OpenAiListening, OpenAiRecogniser
from engine.conversation.http import Timeouts
from engine.errors import BackendFailed, Cancelled, Closed, ConfigInvalid
from tests.conversation.misbehaving import HTML, RUBBISH, FakeService, Mood

RATE = 16_000
KEY = "sk-very-secret"
SPEECH = (0.3 * np.sin(np.arange(RATE) * 0.1)).astype(np.float32)


@pytest.fixture
async def fake():
    async with FakeService() as fake:
        yield fake


@pytest.fixture
async def recogniser(fake: FakeService):
    patience = Timeouts(connect_s=2, first_byte_s=1.5, next_byte_s=1)
    recogniser = OpenAiRecogniser(fake.url, key=KEY, language="en-GB", timeouts=patience)
    yield recogniser
    await recogniser.aclose()


def heard(recogniser: OpenAiRecogniser, sound: np.ndarray = SPEECH) -> OpenAiListening:
    listening = recogniser.listen()
    for at in range(0, len(sound), 512):
        listening.push(sound[at : at + 512])
    return listening


async def test_the_turn_is_sent_as_one_wav_file_when_it_ends(fake: FakeService, recogniser: OpenAiRecogniser):
    fake.key, fake.transcript = KEY, "  what time\nis it "
    listening = heard(recogniser)
    assert await listening.partial() is None
    assert not fake.requests
    transcript = await listening.finish()
    assert (transcript.text, transcript.final, transcript.language) == ("what time is it", True, "en")
    form = fake.requests[0].form
    assert (form["model"], form["language"], form["response_format"]) == ("whisper-1", "en", "json")
    with wave.open(io.BytesIO(form["file"])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.abs(samples / 32768 - SPEECH).max() < 1e-4


async def test_without_a_language_the_service_finds_out(fake: FakeService):
    recogniser = OpenAiRecogniser(fake.url, model="whisper-large")
    transcript = await heard(recogniser).finish()
    assert "language" not in fake.requests[0].form
    assert fake.requests[0].form["model"] == "whisper-large"
    assert transcript.language == "en"
    await recogniser.aclose()


@pytest.mark.parametrize("sound", [np.zeros(0, np.float32), SPEECH[:800], np.zeros(RATE, np.float32)])
async def test_silence_is_not_sent_and_has_no_words(fake: FakeService, recogniser: OpenAiRecogniser, sound):
    assert (await heard(recogniser, sound).finish()).text == ""
    assert not fake.requests


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (Mood(status=401), "service_rejected_key"),
        (Mood(status=429, headers={"Retry-After": "60"}), "service_rate_limited"),
        (Mood(status=500), "service_failed"),
        (Mood(status=400), "service_failed"),
        (Mood(first_byte_s=5), "service_timeout"),
        (Mood(first_event_s=5), "service_timeout"),
        (Mood(piece_bytes=4, die_after=2), "service_failed"),
        (Mood(body=RUBBISH), "service_garbled"),
        (Mood(body=HTML, content_type="text/html"), "service_garbled"),
        (Mood(body=b"[]"), "service_garbled"),
        (Mood(body=b'{"text": 3}'), "service_garbled"),
        (Mood(hang_up=True), "service_unreachable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_service_that_misbehaves_gives_a_typed_error_without_the_key(
    fake: FakeService, recogniser: OpenAiRecogniser, caplog, mood: Mood, code: str
):
    fake.moods["transcriptions"] = [mood]
    with pytest.raises(BackendFailed) as raised:
        await heard(recogniser).finish()
    assert raised.value.code == code
    assert KEY not in raised.value.message + caplog.text
    fake.moods["transcriptions"] = [Mood()]
    assert (await heard(recogniser).finish()).text == fake.transcript


async def test_a_hiccup_is_retried(fake: FakeService, recogniser: OpenAiRecogniser):
    fake.moods["transcriptions"] = [Mood(status=503, headers={"Retry-After": "0"}), Mood()]
    assert (await heard(recogniser).finish()).text == fake.transcript
    assert len(fake.requests) == 2


async def test_giving_up_a_turn_closes_the_connection_and_ends_whoever_waits(
    fake: FakeService, recogniser: OpenAiRecogniser
):
    fake.moods["transcriptions"] = [Mood(first_byte_s=0.5)]
    listening = heard(recogniser)
    waiting = asyncio.create_task(listening.finish())
    await asyncio.sleep(0.1)
    listening.cancel()
    with pytest.raises(Cancelled):
        await waiting
    await fake.wait_gone()


async def test_cancelling_the_wait_closes_the_connection(fake: FakeService, recogniser: OpenAiRecogniser):
    fake.moods["transcriptions"] = [Mood(first_byte_s=0.5)]
    waiting = asyncio.create_task(heard(recogniser).finish())
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await fake.wait_gone()


async def test_a_turn_given_up_before_its_end_is_never_sent(fake: FakeService, recogniser: OpenAiRecogniser):
    listening = heard(recogniser)
    listening.cancel()
    with pytest.raises(Cancelled):
        await listening.finish()
    assert not fake.requests


async def test_closing_ends_whoever_waits(fake: FakeService):
    fake.moods["transcriptions"] = [Mood(first_byte_s=2)]
    recogniser = OpenAiRecogniser(fake.url)
    waiting = asyncio.create_task(heard(recogniser).finish())
    await asyncio.sleep(0.1)
    await recogniser.aclose()
    await recogniser.aclose()
    with pytest.raises(Cancelled):
        await waiting
    with pytest.raises(Closed):
        recogniser.listen()


async def test_a_service_that_is_down_is_said_to_be(fake: FakeService):
    await fake.stop()
    recogniser = OpenAiRecogniser(fake.url)
    with pytest.raises(BackendFailed) as raised:
        await heard(recogniser).finish()
    assert raised.value.code == "service_unreachable" and "asr_url" in raised.value.message
    await recogniser.aclose()


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigInvalid):
        OpenAiRecogniser("not an address")
