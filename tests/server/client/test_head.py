"""The Python client against the real server, media and all."""

from __future__ import annotations

import asyncio

import av
import numpy as np
import pytest
from aiohttp import web

from engine.errors import AccessDenied, BackendFailed, Busy, Closed, InvalidInput, NotFound
from engine.recorder import Recorder
from engine.types import PLAYOUT_RATE, Event
from server.access.keys import ApiKeys
from server.client import TalkingHead
from tests.server.fakes import SIZE
from tests.server.serving import Server, eventually, serve


def url_of(server: Server) -> str:
    return str(server.client.make_url("/"))


async def test_what_it_is_asked_reaches_the_session(server):
    async with TalkingHead(url_of(server), avatar="bob", mode="mirror") as head:
        assert head.connected and server.session.mode == "mirror"
        assert await head.say("Good morning.") == 1
        assert await head.ask("Who are you?") == 1
        await head.act("nod")
        assert (await head.interrupt()).played_ms == 120
        await head.command("mode", mode="say")
        assert server.session.said == ["Good morning."] and server.session.asked_texts == ["Who are you?"]
        assert server.session.actions == ["nod"] and server.session.mode == "say"
    assert server.services.sessions.taken == 0, "leaving it ends the session"


async def test_pictures_sound_and_events_arrive_for_every_reader(server):
    async with TalkingHead(url_of(server)) as head:
        pictures, others, sounds = head.frames(), head.frames(), head.audio()
        picture = await pictures.get()
        assert picture.image.shape == (SIZE, SIZE, 3) and picture.image.dtype == np.uint8
        assert (await others.get()).pts_s == picture.pts_s
        first, second = await sounds.get(), await sounds.get()
        assert first.samples.shape == (960,) and second.pts_s - first.pts_s == pytest.approx(0.02)
        waiting = asyncio.create_task(head.until("caption", lambda event: event.data["text"] == "Two."))
        await asyncio.sleep(0)
        for text in ("One.", "Two."):
            server.session.publish(Event("caption", {"text": text, "utterance_id": 1}))
        assert (await waiting).data["utterance_id"] == 1


async def test_what_is_spoken_to_it_is_heard(server):
    async with TalkingHead(url_of(server)) as head:
        time_s = np.arange(PLAYOUT_RATE // 2) / PLAYOUT_RATE
        head.hear((np.sin(2 * np.pi * 440 * time_s) * 9000).astype(np.int16))
        await eventually(lambda: sum(np.abs(h).max() > 5000 for h in server.session.heard) >= 20)
        assert head.microphone.waiting_s < 0.2


async def test_refusals_are_the_servers_own_words_and_end_nothing(server, tmp_path):
    async with TalkingHead(url_of(server)) as head:
        with pytest.raises(NotFound) as unknown:
            await head.act("somersault")
        assert unknown.value.code == "action_unknown"
        with pytest.raises(InvalidInput) as empty:
            await head.say(" ")
        assert empty.value.code == "text_empty"
        with pytest.raises(InvalidInput) as command:
            await head.command("voice", pitch=99)
        assert command.value.code == "invalid_request"
        with pytest.raises(NotFound):
            await head.play(tmp_path / "nothing.wav")
        server.session.busy = True
        with pytest.raises(Busy):
            await head.say("Later.")
        assert head.connected


async def test_a_session_that_the_server_ends_ends_every_reader(server):
    async with TalkingHead(url_of(server)) as head:
        reading = asyncio.create_task(_count(head.frames()))
        await server.services.sessions.close(head.session_id)
        async with asyncio.timeout(5):
            await head.ended()
            await reading
        with pytest.raises(Closed):
            await head.until("caption")


async def test_nobody_there_and_nobody_let_in_are_errors_that_say_so(aiohttp_client, unused_tcp_port):
    with pytest.raises(BackendFailed) as nobody:
        async with TalkingHead(f"http://127.0.0.1:{unused_tcp_port}"):
            pass
    assert nobody.value.code == "server_unreachable"
    server = await serve(aiohttp_client, max_sessions=1)
    async with TalkingHead(url_of(server)):
        with pytest.raises(Busy):
            async with TalkingHead(url_of(server)):
                pass
    with pytest.raises(NotFound):
        async with TalkingHead(url_of(server), avatar="nobody"):
            pass
    assert server.services.sessions.taken == 0


@pytest.mark.parametrize("answer", ["<!doctype html>A router's page", "[]"])
async def test_something_else_at_the_address_is_an_error_that_says_so(aiohttp_server, answer):
    async def answers(_: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json" if answer == "[]" else "text/html")

    app = web.Application()
    app.router.add_get("/config.json", answers)
    other = await aiohttp_server(app)
    with pytest.raises(BackendFailed) as wrong:
        async with TalkingHead(str(other.make_url("/"))):
            pass
    assert wrong.value.code == "server_unreachable" and str(other.port) in wrong.value.message


async def test_a_recording_that_fails_says_why_and_leaves_nothing(server, tmp_path, monkeypatch):
    write, refused = Recorder.write, []

    def full(self, frame):
        if self.frames < 3 or refused:
            return write(self, frame)
        self.discard()
        refused.append(frame)
        raise BackendFailed("recording_failed", "The recording failed: No space left on device.")

    monkeypatch.setattr(Recorder, "write", full)
    async with TalkingHead(url_of(server)) as head:
        with pytest.raises(BackendFailed) as failed:
            await head.record(tmp_path / "seen.mp4")
    assert "No space left" in failed.value.message
    assert list(tmp_path.iterdir()) == []


async def test_a_recording_has_picture_and_sound_in_step(server, tmp_path):
    path = tmp_path / "seen.mp4"
    async with TalkingHead(url_of(server)) as head:
        recording = asyncio.create_task(head.record(path))
        await asyncio.sleep(3.2)
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        chunks = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
    sound = np.concatenate(chunks)
    assert 25 <= len(frames) <= 100
    assert abs(len(sound) / PLAYOUT_RATE - len(frames) / 25) < 0.1, "as long as each other"
    white = [number / 25 for number, frame in enumerate(frames) if frame[:80, :80].mean() > 180]
    loud = np.flatnonzero(np.abs(sound) > 0.2) / PLAYOUT_RATE
    assert len(white) >= 2 and loud.size
    apart = [abs(loud - at).min() for at in white]
    assert np.median(apart) < 0.06, "the same frame is white and sounds"


async def test_a_key_opens_a_closed_server_and_nothing_else_does(aiohttp_client, tmp_path):
    key = ApiKeys(tmp_path).create("ours")
    server = await serve(aiohttp_client, access="closed", data_dir=tmp_path)
    for wrong in ("", "vk_wrong", "vt_wrong"):
        with pytest.raises(AccessDenied):
            async with TalkingHead(url_of(server), key=wrong):
                pass
    assert server.services.sessions.taken == 0
    async with TalkingHead(url_of(server), key=key) as head:
        assert await head.say("Let in.") == 1


async def _count(pictures) -> int:
    return sum([1 async for _ in pictures])
