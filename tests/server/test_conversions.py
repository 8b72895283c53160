"""Whole files in another voice, over HTTP."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from server import conversions, uploads
from server.conversions import CONVERSIONS, MAX_KEPT
from tests.conversation.voice.made_up import save_voice
from tests.server.serving import Server, eventually, serve
from tests.server.test_api import error_of, wav


async def finished(server: Server, conversion_id: str) -> dict:
    """How it ended; progress never goes back on the way."""
    before = 0.0
    async with asyncio.timeout(60):
        while True:
            told = await (await server.client.get(f"/conversions/{conversion_id}")).json()
            assert told["progress"] >= before
            before = told["progress"]
            if told["state"] != "running":
                return told
            await asyncio.sleep(0.02)


async def begun(server: Server, seconds: float = 0.5, query: str = "pitch=4") -> str:
    response = await server.client.post(f"/conversions?{query}", data=wav(seconds))
    assert response.status == 202, await response.text()
    return (await response.json())["id"]


@pytest.fixture
async def slow() -> AsyncIterator[asyncio.Event]:
    """Holds every conversion until it is set."""
    gate = asyncio.Event()
    convert = conversions.Conversions._convert

    async def later(self, *args):
        await gate.wait()
        await convert(self, *args)

    with patch.object(conversions.Conversions, "_convert", later):
        yield gate


async def test_a_file_is_converted_and_fetched(server: Server):
    told = await finished(server, conversion_id := await begun(server, 1.5, "pitch=4&formant=-2"))
    assert told == {"id": conversion_id, "state": "done", "progress": 1.0, "duration_ms": 1500}
    response = await server.client.get(f"/conversions/{conversion_id}/audio")
    assert response.content_type == "audio/wav"
    with wave.open(io.BytesIO(await response.read())) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (48_000, 1, 72_000)
        assert np.frombuffer(file.readframes(72_000), "<i2").any()


async def test_an_avatar_speaks_what_was_converted_and_keeps_it(server: Server):
    session, conversion_id = await server.open_session(), await begun(server)
    await finished(server, conversion_id)
    response = await server.client.post(f"/sessions/{session}/audio?conversion={conversion_id}")
    assert response.status == 202
    assert (await response.json())["duration_ms"] == 500
    assert (await server.client.delete(f"/conversions/{conversion_id}")).status == 204
    assert len(server.session.played[-1]) == 24_000
    assert server.session.played[-1].any()
    await server.end()


async def test_what_is_not_done_yet_cannot_be_heard(server: Server, slow: asyncio.Event):
    session, conversion_id = await server.open_session(), await begun(server)
    assert await error_of(await server.client.get(f"/conversions/{conversion_id}/audio")) == (429, "conversion_running")
    response = await server.client.post(f"/sessions/{session}/audio?conversion={conversion_id}")
    assert await error_of(response) == (429, "conversion_running")
    await server.client.app[CONVERSIONS].aclose()
    await server.end()


async def test_giving_up_ends_the_work(server: Server, slow: asyncio.Event):
    conversion_id = await begun(server)
    conversion = server.client.app[CONVERSIONS].get(conversion_id)
    assert (await server.client.delete(f"/conversions/{conversion_id}")).status == 204
    assert conversion._task.cancelled()
    for path in ("", "/audio"):
        response = await server.client.get(f"/conversions/{conversion_id}{path}")
        assert await error_of(response) == (404, "conversion_not_found")


async def test_few_are_kept_at_a_time(server: Server, slow: asyncio.Event):
    ids = [await begun(server) for _ in range(MAX_KEPT)]
    response = await server.client.post("/conversions?pitch=4", data=wav(0.5))
    assert await error_of(response) == (429, "conversions_busy")
    await server.client.delete(f"/conversions/{ids[0]}")
    await begun(server)
    await server.client.app[CONVERSIONS].aclose()
    assert (await server.client.get(f"/conversions/{ids[1]}")).status == 404


async def test_a_file_whose_sender_has_left_takes_no_place(server: Server, slow: asyncio.Event):
    sound = uploads.Uploads.sound
    decoded = asyncio.Queue()

    async def until_the_sender_left(self, request, chunks=None):
        samples = await sound(self, request, chunks)
        decoded.put_nowait(None)
        await eventually(lambda: request.transport is None)
        return samples

    with patch.object(uploads.Uploads, "sound", until_the_sender_left):
        for _ in range(MAX_KEPT):
            sending = asyncio.create_task(server.client.post("/conversions?pitch=4", data=wav(0.5)))
            await decoded.get()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await eventually(lambda: not server.client.app[CONVERSIONS]._coming)
    await begun(server)
    await server.client.app[CONVERSIONS].aclose()


async def test_one_that_nobody_asks_about_is_given_up(server: Server):
    with patch.object(conversions, "KEEP_S", 0.3):
        conversion_id = await begun(server)
        # Each question is a sign that it is still wanted.
        for _ in range(3):
            await asyncio.sleep(0.15)
            assert (await server.client.get(f"/conversions/{conversion_id}")).status == 200
        await asyncio.sleep(0.6)
        assert (await server.client.get(f"/conversions/{conversion_id}")).status == 404


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (422, "voice_change_missing")),
        ("pitch=0", (422, "voice_change_missing")),
        ("pitch=13", (422, "voice_change_invalid")),
        ("pitch=nan", (422, "voice_change_invalid")),
        ("formant=high", (422, "voice_change_invalid")),
        ("conversion=nobody", (404, "voice_conversion_unknown")),
    ],
)
async def test_a_change_that_cannot_be_is_refused(server: Server, query: str, expected: tuple[int, str]):
    assert await error_of(await server.client.post(f"/conversions?{query}", data=wav(0.1))) == expected


async def test_a_file_that_is_no_sound_leaves_no_conversion(server: Server):
    for _ in range(MAX_KEPT + 1):
        response = await server.client.post("/conversions?pitch=1", data=b"no sound at all, just words")
        assert await error_of(response) == (415, "audio_unreadable")


async def test_a_failure_is_told(server: Server):
    with patch("engine.conversation.voice.vocoder.Vocoder._change", side_effect=ValueError("internal address")):
        told = await finished(server, conversion_id := await begun(server))
    assert told["state"] == "failed"
    assert told["error"]["code"] == "conversion_failed"
    assert "internal" not in told["error"]["message"]
    response = await server.client.get(f"/conversions/{conversion_id}/audio")
    assert await error_of(response) == (500, "conversion_failed")


async def test_a_file_is_spoken_in_another_persons_voice(aiohttp_client, tmp_path: Path):
    save_voice(tmp_path, "singer")
    server = await serve(aiohttp_client, weights_dir=tmp_path)
    told = await finished(server, await begun(server, 0.5, "conversion=singer&pitch=2&formant=1"))
    assert told["state"] == "done"


async def test_a_stopping_server_gives_up_what_runs(server: Server, slow: asyncio.Event):
    conversion = server.client.app[CONVERSIONS].get(await begun(server))
    await server.client.app[CONVERSIONS].aclose()
    assert conversion._task.cancelled()
