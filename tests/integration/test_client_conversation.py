"""The whole product from the outside: a server as a person starts it, real model and voice, and the Python client."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

from engine.types import PLAYOUT_RATE
from server.client import Sound, TalkingHead
from tests.server.test_main import free_port, running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    with running("--port", str(port), "--greeting", "", "--asr", "none") as process:
        assert "ready" in _first_line(process)
        yield f"http://127.0.0.1:{port}"


def _first_line(process: subprocess.Popen) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def loudness(sound: Sound) -> float:
    """Root mean square of 20 ms."""
    return float(np.sqrt(np.mean(sound.samples.astype(float) ** 2)))


async def silence_s(head: TalkingHead, seconds: float) -> bool:
    """Whether the next sound is silence, after a moment for what is on its way."""
    await asyncio.sleep(0.5)
    sounds = head.audio()
    heard = [loudness(await sounds.get()) for _ in range(round(seconds / 0.02))]
    await sounds.aclose()
    return max(heard) < 60


async def test_what_is_said_is_heard_seen_and_captioned(url):
    async with TalkingHead(url, mode="say") as head:
        sounds, events, pictures = head.audio(), head.events(), head.frames()
        utterance = await head.say("Good morning, everybody.")
        mouths, captions = [], []
        async with asyncio.timeout(20):
            async for event in events:
                if event.type == "caption":
                    captions.append(event.data["text"])
                if event.type == "viseme":
                    mouths.append(event.data["mouth"]["jawOpen"])
                if event.type == "speaking" and not event.data["speaking"]:
                    assert event.data["utterance_id"] == utterance
                    break
        assert captions == ["Good morning, everybody."]
        assert max(mouths) > 0.1, "the mouth opens"
        loud = [loudness(await sounds.get()) for _ in range(len(sounds))]
        assert sum(one > 300 for one in loud) * 0.02 > 0.6, "more than half a second of it is speech"
        image = (await pictures.get()).image
        assert image.shape[2] == 3 and image.std() > 10


async def test_a_question_is_answered_and_an_interrupt_is_silence(url):
    async with TalkingHead(url, avatar="leo") as head:
        answering = asyncio.create_task(head.until("turn", lambda event: event.data["state"] == "speaking"))
        await asyncio.sleep(0)
        turn = await head.ask("What is your name?")
        async with asyncio.timeout(20):
            assert (await answering).data["turn_id"] == turn
            await asyncio.sleep(0.6)
            playback = await head.interrupt()
        assert 0 < playback.played_ms < 20 * 1000
        assert await silence_s(head, 0.6)
        transcript = await head.transcript()
        assert "What is your name?" in transcript and "Leo" in transcript


async def test_a_microphone_in_mirror_mode_comes_back(url):
    async with TalkingHead(url, mode="mirror") as head:
        sounds = head.audio()
        seconds = np.arange(2 * PLAYOUT_RATE) / PLAYOUT_RATE
        vowel = sum(np.sin(2 * np.pi * 140 * k * seconds) / k for k in range(1, 8)) * 4000
        head.hear(vowel.astype(np.int16))
        async with asyncio.timeout(15):
            heard = [loudness(await sounds.get()) for _ in range(150)]
        assert sum(one > 500 for one in heard) * 0.02 > 1.0
