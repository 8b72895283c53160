"""The HTTP client against a service that misbehaves, over real HTTP."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from engine.conversation.http import Service, Timeouts
from engine.conversation.service_url import base_url
from engine.conversation.sse import EventParser
from engine.errors import BackendFailed, Closed, ConfigInvalid
from tests.conversation.misbehaving import HTML, RUBBISH, FakeService, Mood

KEY = "sk-secret-0123456789"
PROMPT = "the innermost thoughts of a customer"
PATIENCE = Timeouts(connect_s=0.5, first_byte_s=0.6, next_byte_s=0.3)


@pytest.fixture
async def fake() -> AsyncIterator[FakeService]:
    async with FakeService() as fake:
        yield fake


@contextlib.asynccontextmanager
async def client(fake: FakeService, timeouts: Timeouts = PATIENCE, **options: object) -> AsyncIterator[Service]:
    service = Service("language model", "llm", fake.url, KEY, timeouts, **options)  # type: ignore[arg-type]
    try:
        yield service
    finally:
        await service.aclose()


async def chat(service: Service) -> list[str]:
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    async with service.ask("/chat/completions", json=body) as answer:
        return [data async for data in answer.events()]


async def fails(fake: FakeService, *moods: Mood, timeouts: Timeouts = PATIENCE) -> BackendFailed:
    fake.moods["chat"] = list(moods)
    async with client(fake, timeouts) as service:
        with pytest.raises(BackendFailed) as caught:
            await chat(service)
    assert "127.0.0.1" not in caught.value.message and str(fake.port) not in caught.value.message
    return caught.value


async def test_streams_events_to_the_end_and_keeps_the_connection(fake: FakeService) -> None:
    async with client(fake) as service:
        first, second = await chat(service), await chat(service)
    assert first == second and len(first) == 9  # role, seven words, reason
    assert fake.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    assert fake.gone == []


async def test_no_key_sends_no_header(fake: FakeService) -> None:
    service = Service("language model", "llm", fake.url)
    async with service.ask("/models") as answer:
        assert (await answer.json())["data"][0]["id"] == "llama3.2:1b"
    await service.aclose()
    assert "Authorization" not in fake.requests[0].headers


async def test_sends_a_form_again_when_it_is_retried(fake: FakeService) -> None:
    fake.moods["transcriptions"] = [Mood(status=503), Mood()]
    form = {"model": "whisper-1", "file": ("speech.wav", b"RIFF....", "audio/wav")}
    async with client(fake) as service, service.ask("/audio/transcriptions", form=form) as answer:
        assert (await answer.json())["text"] == fake.transcript
    assert [dict(request.form) for request in fake.requests] == [{"model": "whisper-1", "file": b"RIFF...."}] * 2


async def test_streams_sound_before_all_of_it_is_there(fake: FakeService) -> None:
    fake.moods["speech"] = [Mood(stall_after=2)]
    async with client(fake) as service, service.ask("/audio/speech", json={"input": "Hello there."}) as answer:
        async for chunk in answer.chunks():
            assert chunk
            break
    await fake.wait_gone()


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (Mood(status=401), "service_rejected_key"),
        (Mood(status=403), "service_rejected_key"),
        (Mood(status=404), "service_failed"),
        (Mood(status=400), "service_failed"),
        (Mood(status=307, headers={"Location": "http://127.0.0.1:9/v1"}), "service_failed"),
        (Mood(status=429, error_code="insufficient_quota"), "service_rate_limited"),
        (Mood(status=429, headers={"Retry-After": "60"}), "service_rate_limited"),
        (Mood(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "service_garbled"),
        (Mood(body=HTML, content_type="text/html"), "service_garbled"),
        (Mood(body=b"data: " + b"x" * (2 << 20)), "service_garbled"),
        (Mood(die_after=3), "service_failed"),
    ],
)
async def test_a_failure_that_stays_is_reported_at_once(fake: FakeService, mood: Mood, code: str) -> None:
    started_s = time.monotonic()
    error = await fails(fake, mood)
    assert error.code == code
    assert time.monotonic() - started_s < 2
    assert len(fake.requests) == 1


@pytest.mark.alone
@pytest.mark.parametrize(
    ("mood", "code", "within_s"),
    [
        (Mood(first_byte_s=30), "service_timeout", 0.6),
        (Mood(first_event_s=30), "service_timeout", 0.6),
        (Mood(stall_after=4), "service_timeout", 0.3),
        (Mood(body=b": still here\n\n", between_s=0.05, endless=True), "service_timeout", 0.6),
    ],
)
async def test_slowness_ends_in_time_and_is_not_retried(
    fake: FakeService, mood: Mood, code: str, within_s: float
) -> None:
    started_s = time.monotonic()
    error = await fails(fake, mood)
    assert error.code == code
    assert within_s - 0.05 < time.monotonic() - started_s < within_s + 2
    assert len(fake.requests) == 1
    await fake.wait_gone()


async def test_slow_but_steady_is_no_failure(fake: FakeService) -> None:
    fake.moods["chat"] = [Mood(first_byte_s=0.1, between_s=0.1)]
    async with client(fake) as service:
        assert len(await chat(service)) == 9


async def test_a_slow_consumer_is_no_slow_service(fake: FakeService) -> None:
    async with client(fake, Timeouts(0.5, 0.2, 0.1)) as service:
        fake.moods["chat"] = [Mood(between_s=0.02)]
        async with service.ask("/chat/completions", json={"stream": True}) as answer:
            count = 0
            async for _ in answer.events():
                await asyncio.sleep(0.15 if count == 0 else 0)
                count += 1
    assert count == 9


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_failure_that_passes_is_retried(fake: FakeService, status: int) -> None:
    fake.moods["chat"] = [Mood(status=status), Mood()]
    async with client(fake, Timeouts()) as service:
        assert len(await chat(service)) == 9
    assert len(fake.requests) == 2


async def test_retries_end(fake: FakeService) -> None:
    error = await fails(fake, Mood(status=500), timeouts=Timeouts())
    assert error.code == "service_failed"
    assert len(fake.requests) == 3


async def test_a_connection_that_is_hung_up_is_tried_again(fake: FakeService) -> None:
    fake.moods["chat"] = [Mood(hang_up=True), Mood()]
    async with client(fake, Timeouts()) as service:
        assert len(await chat(service)) == 9


@pytest.mark.alone
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_waits_as_long_as_the_service_asks(fake: FakeService, form: str) -> None:
    date = format_datetime(datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2), usegmt=True)
    header = {"Retry-After": "1" if form == "seconds" else date}
    fake.moods["chat"] = [Mood(status=429, headers=header), Mood()]
    started_s = time.monotonic()
    async with client(fake, Timeouts()) as service:
        await chat(service)
    assert 0.9 < time.monotonic() - started_s < 2.5


async def test_does_not_wait_longer_than_people_do(fake: FakeService) -> None:
    started_s = time.monotonic()
    error = await fails(fake, Mood(status=429, headers={"Retry-After": "6"}), timeouts=Timeouts())
    assert error.code == "service_rate_limited"
    assert time.monotonic() - started_s < 2


async def test_nothing_is_retried_once_an_answer_began(fake: FakeService) -> None:
    await fails(fake, Mood(die_after=1), Mood())
    assert len(fake.requests) == 1


async def test_a_service_that_is_down_is_unreachable(fake: FakeService) -> None:
    await fake.stop()
    error = await fails(fake, timeouts=Timeouts())
    assert error.code == "service_unreachable"
    assert "VISAVIS_LLM_URL" in error.message


async def test_works_again_when_the_service_is_back(fake: FakeService) -> None:
    async with client(fake) as service:
        await chat(service)
        await fake.stop()
        with pytest.raises(BackendFailed):
            await chat(service)
        async with fake:
            assert len(await chat(service)) == 9


@pytest.mark.parametrize("mood", [Mood(first_byte_s=30), Mood(first_event_s=30), Mood(between_s=30)])
async def test_cancelling_reaches_the_service_at_once(fake: FakeService, mood: Mood) -> None:
    fake.moods["chat"] = [mood]
    async with client(fake, Timeouts(30, 30, 30)) as service:
        task = asyncio.create_task(chat(service))
        await asyncio.sleep(0.1)
        assert fake.requests
        task.cancel()
        assert await fake.wait_gone() < 0.2
        with pytest.raises(asyncio.CancelledError):
            await task
    assert fake.gone == ["chat"]


async def test_leaving_an_answer_early_reaches_the_service(fake: FakeService) -> None:
    fake.moods["chat"] = [Mood(endless=True, between_s=0.01)]
    async with client(fake) as service:
        async with service.ask("/chat/completions", json={"stream": True}) as answer:
            async for _ in answer.events():
                break
        assert await fake.wait_gone() < 0.2


async def test_a_closed_service_says_so(fake: FakeService) -> None:
    async with client(fake) as service:
        await service.aclose()
        with pytest.raises(Closed):
            await chat(service)


async def test_json_that_is_none_is_garbled(fake: FakeService) -> None:
    fake.moods["models"] = [Mood(body=RUBBISH)]
    async with client(fake) as service:
        with pytest.raises(BackendFailed, match="no JSON") as caught:
            async with service.ask("/models") as answer:
                await answer.json()
    assert caught.value.code == "service_garbled"


async def test_a_body_beyond_the_limit_is_garbled(fake: FakeService) -> None:
    fake.moods["models"] = [Mood(body=b"x" * 1000, endless=True)]
    async with client(fake) as service:
        with pytest.raises(BackendFailed) as caught:
            async with service.ask("/models") as answer:
                await answer.read(5000)
    assert caught.value.code == "service_garbled"


@pytest.mark.parametrize(
    "mood",
    [
        Mood(status=401), Mood(status=400), Mood(status=404), Mood(status=429), Mood(status=500), Mood(hang_up=True),
        Mood(body=HTML, content_type="text/html"), Mood(raw=b"rubbish\r\n"), Mood(first_event_s=9), Mood(die_after=1),
    ],
)  # fmt: skip
async def test_neither_key_nor_prompt_appears_anywhere(
    fake: FakeService, mood: Mood, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = await fails(fake, mood)
    logging.getLogger("test").error("turn failed", exc_info=error)
    text = caplog.text + error.message + repr(error)
    assert KEY not in text and PROMPT not in text


@pytest.mark.parametrize("mood", [Mood(status=401), Mood(hang_up=True), Mood(first_event_s=9), Mood(die_after=1)])
async def test_only_the_log_tells_the_address(fake: FakeService, mood: Mood, caplog: pytest.LogCaptureFixture) -> None:
    error = await fails(fake, mood)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == [f"the language model at {fake.url} failed: {error.code}"]


def test_a_service_hides_its_key() -> None:
    service = Service("voice", "voice", "https://api.example.org", KEY)
    assert KEY not in repr(service) and KEY not in str(service)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "\x00"])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        Service("voice", "voice", "https://api.example.org", f"a{key}b")
    assert caught.value.code == "service_key_invalid"
    assert key not in caught.value.message


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://localhost:11434/", "http://localhost:11434/v1"),
        (" https://api.openai.com/v1/ ", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://open.bigmodel.cn/api/paas/v4/", "https://open.bigmodel.cn/api/paas/v4"),
        ("https://host/v1beta/openai/", "https://host/v1beta/openai"),
        ("http://[::1]:8080", "http://[::1]:8080/v1"),
    ],
)
def test_base_urls_are_completed(url: str, base: str) -> None:
    assert base_url(url, "llm_url") == base


def test_other_services_keep_their_path() -> None:
    assert base_url("http://127.0.0.1:50000/", "voice_url", versioned=False) == "http://127.0.0.1:50000"


@pytest.mark.parametrize(
    "url",
    ["", "localhost:11434", "ftp://host/v1", "http://", "http:///v1", "http://host:99999", "http://user:pass@host/v1",
     "https://host/v1?key=pass", "https://host/v1#pass", "file:///etc/passwd", "http://[::1"],
)  # fmt: skip
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        base_url(url, "llm_url")
    assert caught.value.code == "service_url_invalid"
    assert "llm_url" in caught.value.message and "pass" not in caught.value.message.replace("password", "")


STREAM = (
    "\ufeff: hello\r\ndata: {\"a\": \"日本語 😀 \u2028\"}\r\n\r\nevent: x\nid: 7\ndata:two\n\n"
    "data: [DONE]\n\ndata: last"
)
DATA = ['{"a": "日本語 😀 \u2028"}', "two", "[DONE]", "last"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_events_do_not_depend_on_how_bytes_are_cut(size: int) -> None:
    body, parser = STREAM.encode(), EventParser()
    found = [data for at in range(0, len(body), size) for data in parser.feed(body[at : at + size])]
    assert found + parser.end() == DATA
    assert parser.end() == []
