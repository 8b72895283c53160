"""Looking for language models on this machine."""

import asyncio
import socket
import time

import pytest

from engine.conversation.discover import PORTS, Found, discover
from tests.conversation.misbehaving import HTML, RUBBISH, FakeService, Mood


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_finds_what_runs_with_its_models() -> None:
    async with FakeService() as ollama, FakeService() as empty:
        ollama.models, empty.models = ["qwen3:4b", "nomic-embed-text", "x" * 999], []
        found = await discover(ports={ollama.port: "Ollama", free_port(): "vLLM", empty.port: "LM Studio"})
    assert found == [Found("Ollama", ollama.url, ("qwen3:4b",)), Found("LM Studio", empty.url, ())]
    assert f"VISAVIS_LLM_URL={ollama.url} VISAVIS_LLM_MODEL=qwen3:4b" in found[0].offer
    assert "without a language model" in found[1].offer
    assert "Authorization" not in ollama.requests[0].headers


@pytest.mark.parametrize(
    "mood",
    [
        Mood(status=404), Mood(status=401), Mood(status=500), Mood(status=429), Mood(hang_up=True),
        Mood(body=HTML, content_type="text/html"), Mood(body=RUBBISH), Mood(body=b'{"data": 7}'), Mood(body=b"[]"),
        Mood(raw=b"SSH-2.0\r\n"), Mood(status=302, headers={"Location": "http://example.org/"}),
        Mood(body=b"x" * 99, endless=True, between_s=0.05), Mood(first_byte_s=9), Mood(first_event_s=9),
    ],
)  # fmt: skip
@pytest.mark.alone
async def test_what_is_no_language_model_is_left_alone(mood: Mood) -> None:
    async with FakeService() as other:
        other.moods["models"] = [mood]
        started_s = time.monotonic()
        assert await discover(ports={other.port: "llama.cpp"}) == []
        assert time.monotonic() - started_s < 1.5
        assert len(other.requests) <= 1 + mood.hang_up, "a GET that was hung up on is repeated by the library"


async def test_a_server_without_models_that_writes_null_is_found() -> None:
    async with FakeService() as ollama:
        ollama.moods["models"] = [Mood(body=b'{"object": "list", "data": null}')]
        assert await discover(ports={ollama.port: "Ollama"}) == [Found("Ollama", ollama.url, ())]


@pytest.mark.alone
async def test_all_are_asked_at_the_same_time() -> None:
    async with FakeService() as one, FakeService() as two, FakeService() as three:
        for fake in (one, two, three):
            fake.moods["models"] = [Mood(first_byte_s=0.15)]
        started_s = time.monotonic()
        assert len(await discover(ports={one.port: "a", two.port: "b", three.port: "c"})) == 3
        assert time.monotonic() - started_s < 0.44


async def test_does_not_ask_itself() -> None:
    async with FakeService() as itself:
        assert await discover(itself.port, {itself.port: "llama.cpp"}) == []
        assert itself.requests == []


async def test_can_be_cancelled_and_leaves_nothing_open() -> None:
    async with FakeService() as slow:
        slow.moods["models"] = [Mood(first_byte_s=9)]
        task = asyncio.create_task(discover(ports={slow.port: "a"}))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await slow.wait_gone() < 0.2


def test_knows_the_usual_ports() -> None:
    assert PORTS == {11434: "Ollama", 8080: "llama.cpp", 8000: "vLLM", 1234: "LM Studio"}
