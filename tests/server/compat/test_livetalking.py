"""Clients of LiveTalking: every route as they call it, every answer as they read it."""

from __future__ import annotations

import asyncio
import io

import aiohttp
import av
import pytest

from engine.types import Event
from server.compat import recording
from server.compat.recording import RECORDINGS
from tests.server.serving import Browser, Server, eventually, serve
from tests.server.test_api import wav


@pytest.fixture
async def session(server: Server) -> str:
    """What its clients get from an offer."""
    async with Browser(with_channel=False) as browser:
        offer = await browser.offer()
    response = await server.client.post("/offer", json={**offer, "avatar": "ada", "refaudio": "x", "reftext": "y"})
    answer = await response.json()
    assert {"sdp", "type", "sessionid"} <= set(answer)
    return answer["sessionid"]


async def call(server: Server, path: str, **body) -> dict:
    response = await server.client.post(path, json=body)
    assert response.status == 200, "always"
    return await response.json()


def form(session: str | None, file: bytes | None, *, file_first: bool = False) -> aiohttp.FormData:
    data = aiohttp.FormData()
    parts = [("sessionid", session, None), ("file", file, "a.wav")]
    for name, value, filename in reversed(parts) if file_first else parts:
        if value is not None:
            data.add_field(name, value, filename=filename)
    return data


async def test_texts_are_said_or_answered(server, session):
    assert await call(server, "/human", sessionid=session, text="Hello.", type="echo") == {"code": 0, "msg": "ok"}
    await call(server, "/human", sessionid=session, text="At once.", type="echo", interrupt=True, tts={"voice": "x"})
    await call(server, "/human", sessionid=session, text="Who are you?", type="chat")
    assert server.session.said == ["Hello.", "At once."] and server.session.interrupts == 1
    assert server.session.asked_texts == ["Who are you?"]
    await server.end()


@pytest.mark.parametrize("file_first", [False, True])
async def test_sound_is_played_wherever_its_form_names_the_session(server, session, file_first):
    response = await server.client.post("/humanaudio", data=form(session, wav(0.5), file_first=file_first))
    assert (response.status, await response.json()) == (200, {"code": 0, "msg": "ok"})
    assert len(server.session.played[0]) == pytest.approx(24_000, abs=100)
    await server.end()


async def test_it_tells_whether_it_speaks_and_is_silenced(server, session):
    assert (await call(server, "/is_speaking", sessionid=session))["data"] is False
    server.session.publish(Event("speaking", {"speaking": True, "utterance_id": 1}))
    await asyncio.sleep(0.01)
    assert (await call(server, "/is_speaking", sessionid=session))["data"] is True
    assert (await call(server, "/interrupt_talk", sessionid=session))["code"] == 0
    assert server.session.interrupts == 1
    await server.end()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/human", {"sessionid": "nobody", "text": "a", "type": "echo"}),
        ("/human", {"sessionid": 0, "text": "a", "type": "echo"}),
        ("/human", {"text": "a", "type": "echo"}),
        ("/human", {"sessionid": "{}", "text": "a", "type": "sing"}),
        ("/human", {"sessionid": "{}", "text": " ", "type": "echo"}),
        ("/is_speaking", {"sessionid": "nobody"}),
        ("/interrupt_talk", {"sessionid": None}),
        ("/record", {"sessionid": "{}", "type": "pause_record"}),
    ],
)
async def test_what_is_wrong_has_a_code_and_a_word(server, session, path, body):
    if body.get("sessionid") == "{}":
        body = {**body, "sessionid": session}
    answer = await call(server, path, **body)
    assert answer["code"] == -1 and answer["msg"].endswith(".") and set(answer) == {"code", "msg"}
    await server.end()


async def test_a_form_without_session_or_file_is_refused_and_decodes_nothing(server, session):
    for data in (form("nobody", wav(0.1)), form(None, wav(0.1)), form("nobody", wav(0.1), file_first=True)):
        assert (await (await server.client.post("/humanaudio", data=data)).json())["code"] == -1
    for data in (form(session, None), form(session, b"no sound")):
        assert (await (await server.client.post("/humanaudio", data=data)).json())["code"] == -1
    assert (await (await server.client.post("/humanaudio", data=b"plain")).json())["code"] == -1
    assert server.session.played == []
    await server.end()


async def test_a_recording_is_begun_ended_and_fetched(server):
    async with Browser(with_channel=False) as browser:
        session = await server.offer(browser)
        assert (await server.client.get(f"/record/{session}")).status == 404
        assert (await call(server, "/record", sessionid=session, type="start_record"))["code"] == 0
        assert (await server.client.get(f"/record/{session}")).status == 409
        await asyncio.sleep(1.2)
        assert (await call(server, "/record", sessionid=session, type="end_record"))["code"] == 0
        response = await server.client.get(f"/record/{session}")
        assert response.status == 200 and response.content_type == "video/mp4"
        file = await response.read()
        await server.end()
    with av.open(io.BytesIO(file)) as video:
        assert 20 <= sum(1 for _ in video.decode(video=0)) <= 40
    with av.open(io.BytesIO(file)) as video:
        assert sum(frame.samples for frame in video.decode(audio=0)) / 48_000 == pytest.approx(1.2, abs=0.4)


async def test_a_recording_ends_with_its_session_and_is_gone_with_the_server(aiohttp_client):
    server = await serve(aiohttp_client)
    async with Browser(with_channel=False) as browser:
        session = await server.offer(browser)
        await call(server, "/record", sessionid=session, type="start_record")
        await asyncio.sleep(0.4)
    await eventually(lambda: server.services.sessions.taken == 0)
    recordings = server.client.app[RECORDINGS]
    await eventually(lambda: session not in recordings._running)
    path = recordings.file(session)
    assert (await server.client.get(f"/record/{session}")).status == 200
    await server.client.server.close()
    assert not path.parent.exists()


async def test_recordings_are_few_and_the_oldest_finished_one_makes_room(server, monkeypatch):
    monkeypatch.setattr(recording, "MAX_KEPT", 2)
    sessions = [await server.open_session() for _ in range(3)]
    for one in sessions[:2]:
        await call(server, "/record", sessionid=one, type="start_record")
    assert (await call(server, "/record", sessionid=sessions[2], type="start_record"))["code"] == -1
    await call(server, "/record", sessionid=sessions[0], type="end_record")
    assert (await call(server, "/record", sessionid=sessions[2], type="start_record"))["code"] == 0
    assert (await server.client.get(f"/record/{sessions[0]}")).status == 404
    await server.end()


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "nobody", "%00"])
async def test_only_sessions_have_recordings(server, name):
    assert (await server.client.get(f"/record/{name}")).status == 404


async def test_where_it_is_off_nothing_of_it_is_there(aiohttp_client):
    server = await serve(aiohttp_client, livetalking="off")
    assert (await server.client.post("/human", json={})).status == 404
    async with Browser(with_channel=False) as browser:
        answer = await (await server.client.post("/offer", json=await browser.offer())).json()
    assert "sessionid" not in answer
    await server.end()
