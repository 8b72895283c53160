"""Language models behind /v1/chat/completions, over real HTTP: dialects, failures and cancellation."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.conversation.http import Timeouts
from engine.conversation.llm.base import Message
from engine.conversation.llm.openai import MAX_REPLY_CHARS, OpenAiModel, as_chat
from engine.errors import BackendFailed
from tests.conversation.misbehaving import HTML, RUBBISH, FakeService, Mood

KEY = "sk-secret-0123456789"
PROMPT = "the innermost thoughts of a customer"
ASKED = [Message("system", "You are Maya."), Message("user", PROMPT)]
PATIENCE = Timeouts(connect_s=2, first_byte_s=1.5, next_byte_s=1)


@pytest.fixture
async def fake() -> AsyncIterator[FakeService]:
    async with FakeService() as fake:
        yield fake


@contextlib.asynccontextmanager
async def talker(fake: FakeService, model: str = "m", timeouts: Timeouts = PATIENCE) -> AsyncIterator[OpenAiModel]:
    language_model = OpenAiModel(fake.url, model, KEY, timeouts)
    try:
        yield language_model
    finally:
        await language_model.aclose()


async def deltas(model: OpenAiModel, heard: list[str] | None = None, **options: Any) -> list[str]:
    heard = [] if heard is None else heard
    async with contextlib.aclosing(model.reply(ASKED, **options)) as reply:
        async for delta in reply:
            heard.append(delta)
    return heard


def stream(*events: Any, end: str = "data: [DONE]\n\n") -> Mood:
    body = "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events)
    return Mood(body=(body + end).encode(), content_type="text/event-stream")


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


async def test_streams_the_reply_word_by_word(fake: FakeService) -> None:
    async with talker(fake) as model:
        assert await deltas(model, temperature=0.3) == ["Hello.", " It", " is", " a", " quarter", " past", " three."]
    sent = fake.requests[0]
    assert sent.json == {
        "model": "m",
        "stream": True,
        "temperature": 0.3,
        "messages": [{"role": "system", "content": "You are Maya."}, {"role": "user", "content": PROMPT}],
    }
    assert sent.headers["Authorization"] == f"Bearer {KEY}"


async def test_the_first_word_does_not_wait_for_the_last(fake: FakeService) -> None:
    fake.moods["chat"] = [Mood(between_s=0.5)]
    async with talker(fake) as model:
        started_s = time.monotonic()
        async with contextlib.aclosing(model.reply(ASKED)) as reply:
            assert await anext(reply) == "Hello."
        assert time.monotonic() - started_s < 1.5


async def test_temperature_is_left_to_the_service_unless_given(fake: FakeService) -> None:
    async with talker(fake) as model:
        await deltas(model)
    assert "temperature" not in fake.requests[0].json


@pytest.mark.parametrize("piece_bytes", [1, 7])
async def test_letters_split_over_packets_arrive_whole(fake: FakeService, piece_bytes: int) -> None:
    fake.reply = "现在三点一刻。 ¿Ça va? 😀"
    fake.moods["chat"] = [Mood(piece_bytes=piece_bytes)]
    async with talker(fake) as model:
        assert "".join(await deltas(model)) == fake.reply


@pytest.mark.parametrize(
    ("mood", "text"),
    [
        # OpenAI: a role first, usage last without choices
        (stream(chunk(role="assistant", content="", refusal=None), chunk(content="Hi"), chunk("stop"),
                {"choices": [], "usage": {"total_tokens": 3}}), "Hi"),
        # OpenAI declines in a field of its own
        (stream(chunk(content=None, refusal="I can"), chunk(refusal="not."), chunk("stop")), "I cannot."),
        # vLLM, DeepSeek: reasoning beside a null content
        (stream(chunk(content=None, reasoning_content="Hm, let me see"), chunk(content=None, reasoning="Hm"),
                chunk(content="Hi"), chunk("stop")), "Hi"),
        # Ollama: the last text and the reason in one chunk, reasons that are empty before
        (stream(chunk("", content="H"), chunk("stop", content="i")), "Hi"),
        # reasoning in the text, cut anywhere
        (stream(chunk(content="\n<th"), chunk(content="ink>secret </thi"), chunk(content="nk>\n"),
                chunk(content="\nHi"), chunk("stop")), "Hi"),
        (stream(chunk(content="<"), chunk(content="3 you"), chunk("stop")), "<3 you"),
        (stream(chunk(content="<th"), chunk("stop")), "<th"),
        # Azure: a content filter's chunk; Mistral: parts
        (stream({"choices": [], "prompt_filter_results": []}, chunk(content=[{"type": "text", "text": "Hi"}]),
                chunk("stop")), "Hi"),
        # comments, no blank lines, no [DONE]
        (Mood(body=b": OPENROUTER PROCESSING\r\n\r\ndata:" + json.dumps(chunk(content="Hi")).encode() + b"\r\ndata: "
              + json.dumps(chunk("stop")).encode(), content_type="text/event-stream"), "Hi"),
        # no reason, but [DONE]
        (stream(chunk(content="Hi")), "Hi"),
        # cut for its length: what there is counts
        (stream(chunk(content="Hi"), chunk("length")), "Hi"),
        # a service that does not stream
        (Mood(body=json.dumps({"choices": [{"message": {"content": "<think>x</think>Hi"}}]}).encode(),
              content_type="application/json"), "Hi"),
    ],
)  # fmt: skip
async def test_understands_the_dialects(fake: FakeService, mood: Mood, text: str) -> None:
    fake.moods["chat"] = [mood]
    async with talker(fake) as model:
        assert "".join(await deltas(model)) == text


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (stream(chunk(content="Well"), {"error": {"message": PROMPT, "type": "server_error"}}), "service_failed"),
        (stream({"error": {"message": KEY, "code": 429}}), "service_rate_limited"),
        (stream({"error": {"message": KEY, "code": "invalid_api_key"}}), "service_rejected_key"),
        (stream({"error": PROMPT}), "service_failed"),
        (stream({"object": "error", "message": PROMPT, "type": "BadRequestError", "code": 400}), "service_failed"),
        (Mood(body=b'{"error": {"message": "loading"}}', content_type="application/json"), "service_failed"),
        (stream("{rubbish"), "service_garbled"),
        (stream("[1, 2]"), "service_garbled"),
        (stream(chunk(role="assistant"), chunk("stop")), "service_garbled"),
        (stream(chunk(content="<think>for ever"), chunk("length")), "service_garbled"),
        (Mood(body=RUBBISH, content_type="text/event-stream"), "service_garbled"),
        (Mood(body=HTML, content_type="text/html"), "service_garbled"),
        (Mood(body=b"[]", content_type="application/json"), "service_garbled"),
        (stream(chunk(content="Well"), end=""), "service_failed"),
        (Mood(die_after=3), "service_failed"),
        (Mood(stall_after=3), "service_timeout"),
        (Mood(first_byte_s=9), "service_timeout"),
        (Mood(status=401), "service_rejected_key"),
        (Mood(status=429, headers={"Retry-After": "99"}), "service_rate_limited"),
    ],
)
async def test_each_failure_has_its_error_and_tells_no_secret(
    fake: FakeService, mood: Mood, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fake.moods["chat"] = [mood]
    started_s = time.monotonic()
    async with talker(fake) as model:
        with pytest.raises(BackendFailed) as caught:
            await deltas(model)
    assert caught.value.code == code
    assert time.monotonic() - started_s < 5
    logging.getLogger("test").error("turn failed", exc_info=caught.value)
    assert not any(secret in caplog.text + caught.value.message for secret in (KEY, PROMPT))


async def test_what_came_before_a_failure_is_kept(fake: FakeService) -> None:
    fake.moods["chat"] = [Mood(die_after=4)]
    heard: list[str] = []
    async with talker(fake) as model:
        with pytest.raises(BackendFailed):
            await deltas(model, heard)
    assert heard == ["Hello.", " It", " is"]
    assert len(fake.requests) == 1


async def test_a_break_after_the_last_word_is_no_failure(fake: FakeService) -> None:
    fake.moods["chat"] = [Mood(die_after=9)]  # everything but [DONE]
    async with talker(fake) as model:
        assert len(await deltas(model)) == 7


async def test_answers_again_after_a_failure(fake: FakeService) -> None:
    fake.moods["chat"] = [Mood(die_after=3), Mood()]
    async with talker(fake) as model:
        with pytest.raises(BackendFailed):
            await deltas(model)
        assert len(await deltas(model)) == 7


async def test_a_reply_without_end_is_cut(fake: FakeService) -> None:
    fake.reply = "bla " * 500
    fake.moods["chat"] = [Mood(endless=True)]
    async with talker(fake) as model:
        assert MAX_REPLY_CHARS <= len("".join(await deltas(model))) < MAX_REPLY_CHARS + 10
    await fake.wait_gone()


@pytest.mark.parametrize("mood", [Mood(first_byte_s=9), Mood(stall_after=3), Mood(endless=True, between_s=0.01)])
async def test_cancelling_a_reply_reaches_the_service_at_once(fake: FakeService, mood: Mood) -> None:
    fake.moods["chat"] = [mood]
    async with talker(fake, timeouts=Timeouts(9, 9, 9)) as model:
        task = asyncio.create_task(deltas(model))
        await asyncio.sleep(0.15)
        task.cancel()
        assert await fake.wait_gone() < 0.2
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_closing_a_reply_between_words_reaches_the_service_at_once(fake: FakeService) -> None:
    fake.moods["chat"] = [Mood(endless=True, between_s=0.01)]
    async with talker(fake) as model:
        reply = model.reply(ASKED)
        await anext(reply)
        await reply.aclose()
        assert await fake.wait_gone() < 0.2


async def test_takes_the_only_model_when_none_is_named(fake: FakeService) -> None:
    fake.models = ["nomic-embed-text", "llama3.2:1b"]
    async with talker(fake, model="") as model:
        await deltas(model)
        await deltas(model)
    assert [request.endpoint for request in fake.requests] == ["models", "chat", "chat"]
    assert fake.requests[1].json["model"] == "llama3.2:1b"


@pytest.mark.parametrize("models", [[], ["a", "b"]])
async def test_does_not_choose_between_models(fake: FakeService, models: list[str]) -> None:
    fake.models = models
    async with talker(fake, model="") as model:
        with pytest.raises(BackendFailed, match="VISAVIS_LLM_MODEL") as caught:
            await deltas(model)
    assert caught.value.code == "model_not_chosen"
    assert all(name in caught.value.message for name in models)


def test_conversations_fit_the_strictest_templates() -> None:
    said = [
        Message("system", "You are Maya."),
        Message("assistant", "Hello!"),
        Message("user", "One."),
        Message("user", "Two."),
        Message("assistant", " "),
        Message("assistant", "Three…"),
        Message("user", "Four."),
    ]
    assert as_chat(said) == [
        {"role": "system", "content": "You are Maya.\n\nYou opened the conversation with: Hello!"},
        {"role": "user", "content": "One.\nTwo."},
        {"role": "assistant", "content": "Three…"},
        {"role": "user", "content": "Four."},
    ]


def test_a_conversation_without_a_user_asks_for_a_greeting() -> None:
    assert [message["role"] for message in as_chat([Message("system", "You are Maya.")])] == ["system", "user"]
