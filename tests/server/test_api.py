"""The HTTP API as a client sees it: every route, and every way of using it wrongly."""

from __future__ import annotations

import asyncio
import io
import json
import wave

import aiohttp
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from engine.errors import BackendFailed
from server import tracks
from tests.server.serving import Browser, Server, eventually, serve


def wav(seconds: float, rate: int = 16_000) -> bytes:
    """A sound file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.sin(np.arange(int(seconds * rate)) / 5) * 9000).astype("<i2").tobytes())
    return buffer.getvalue()


async def error_of(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Status and code of an error, which must have the one shape of all errors."""
    assert response.content_type == "application/json", await response.text()
    body = await response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}
    assert body["error"]["message"].endswith("."), "a sentence"
    assert "Traceback" not in json.dumps(body)
    return response.status, body["error"]["code"]


@pytest.fixture
async def session(server: Server) -> str:
    return await server.open_session()


# ---- offers


async def test_an_offer_is_answered_with_a_session(server):
    async with Browser() as browser:
        response = await server.client.post("/offer", json=await browser.offer())
        answer = await response.json()
    assert response.status == 200
    assert answer["type"] == "answer" and "m=video" in answer["sdp"] and len(answer["session_id"]) >= 16
    assert "ice_servers" not in answer
    await server.end()


async def test_configured_ice_servers_come_with_the_answer(aiohttp_client):
    server = await serve(aiohttp_client, ice_servers=("stun:192.0.2.99:3478",))
    assert (await (await server.client.get("/config.json")).json())["ice_servers"] == [{"urls": "stun:192.0.2.99:3478"}]


async def test_unknown_members_of_an_offer_are_ignored(server):
    async with Browser() as browser:
        body = {**await browser.offer(), "pc_id": "x", "requestData": {}}
        assert (await server.client.post("/offer", json=body)).status == 200
    await server.end()


async def test_an_offer_may_start_in_mirror_mode(server):
    async with Browser() as browser:
        await server.client.post("/offer", json={**await browser.offer(), "mode": "mirror"})
    assert server.session.mirror is True
    await server.end()


@pytest.mark.parametrize(
    "avatar", ["nobody", "../ada", "..%2fada", "ada/../ada", "/etc/passwd", "ADA", "a" * 65, "ada\0", "\u0430da"]
)
async def test_an_unknown_avatar_is_not_found_and_takes_no_place(server, avatar):
    async with Browser() as browser:
        response = await server.client.post("/offer", json={**await browser.offer(), "avatar": avatar})
    assert await error_of(response) == (404, "avatar_unknown")
    assert server.services.sessions.taken == 0


@pytest.mark.parametrize(
    "sdp",
    [
        "x",
        "v=0",
        "v=0\r\nm=",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
        "{}",
        "\0\0\0",
        "m=audio\r\n" * 100,
    ],
)
async def test_a_malformed_description_is_refused_and_takes_no_place(server, sdp):
    response = await server.client.post("/offer", json={"sdp": sdp, "type": "offer"})
    assert await error_of(response) == (400, "offer_invalid")
    assert server.services.sessions.taken == 0


async def test_a_truncated_offer_is_refused_wherever_it_is_cut(server):
    async with Browser() as browser:
        sdp = (await browser.offer())["sdp"]
    lines = sdp.splitlines()
    for length in range(1, len(lines), 3):
        cut = "\r\n".join(lines[:length]) + "\r\n"
        response = await server.client.post("/offer", json={"sdp": cut, "type": "offer"})
        assert response.status in (200, 400), await response.text()
        if response.status == 200:
            await server.client.delete(f"/sessions/{(await response.json())['session_id']}")
    assert server.services.sessions.taken == 0


async def test_an_answer_in_place_of_an_offer_is_refused(server):
    async with Browser() as browser:
        body = {**await browser.offer(), "type": "answer"}
    assert await error_of(await server.client.post("/offer", json=body)) == (400, "offer_invalid")


@pytest.mark.parametrize("body", [{}, {"sdp": 1, "type": "offer"}, {"sdp": "x"}, {"sdp": "x", "type": []}, [], "x", 1])
async def test_an_offer_with_the_wrong_members_is_refused(server, body):
    assert await error_of(await server.client.post("/offer", json=body)) == (422, "invalid_request")


async def test_a_failing_session_is_an_internal_error_without_its_trace(server):
    server.stage.fail_with = RuntimeError("secret detail")
    async with Browser() as browser:
        response = await server.client.post("/offer", json=await browser.offer())
    assert await error_of(response) == (500, "internal")
    assert "secret" not in await response.text()
    assert server.services.sessions.taken == 0


async def test_a_failing_backend_says_so(server):
    server.stage.fail_with = BackendFailed("model_failed", "The model is broken.")
    async with Browser() as browser:
        assert await error_of(await server.client.post("/offer", json=await browser.offer())) == (500, "model_failed")


# ---- what a session is told


async def test_text_is_said(server, session):
    response = await server.client.post(f"/sessions/{session}/say", json={"text": "Grüß Gott 👋"})
    assert (response.status, await response.json()) == (202, {"utterance_id": 1})
    assert server.session.said == ["Grüß Gott 👋"]


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
async def test_empty_text_is_refused(server, session, text):
    response = await server.client.post(f"/sessions/{session}/say", json={"text": text})
    assert await error_of(response) == (422, "text_empty")


async def test_text_over_the_limit_is_refused_and_the_session_goes_on(server, session):
    response = await server.client.post(f"/sessions/{session}/say", json={"text": "a" * 2001})
    assert await error_of(response) == (422, "text_too_long")
    assert (await server.client.post(f"/sessions/{session}/say", json={"text": "a"})).status == 202


@pytest.mark.parametrize("body", [{}, {"text": None}, {"text": 1}, {"text": "a", "voice": "x"}, {"text": "\ud800"}, []])
async def test_text_of_the_wrong_form_is_refused(server, session, body):
    assert await error_of(await server.client.post(f"/sessions/{session}/say", json=body)) == (422, "invalid_request")


async def test_a_full_queue_is_told_to_come_back(server, session):
    server.session.busy = True
    response = await server.client.post(f"/sessions/{session}/say", json={"text": "a"})
    assert await error_of(response) == (429, "queue_full")
    assert int(response.headers["Retry-After"]) >= 1


async def test_a_full_queue_is_told_before_the_file_is_sent(server: Server, session: str) -> None:
    server.session.busy = True
    sent = []

    async def body():
        yield wav(0.1)
        await asyncio.sleep(5)
        sent.append(1)

    response = await server.client.post(f"/sessions/{session}/audio", data=body())
    assert await error_of(response) == (429, "queue_full") and not sent


async def test_an_interrupt_says_what_was_played(server, session):
    response = await server.client.post(f"/sessions/{session}/interrupt")
    assert await response.json() == {"utterance_id": 0, "played_ms": 120, "dropped_ms": 340}


@pytest.mark.parametrize(("asked", "mode"), [(None, "converse"), ("mirror", "mirror"), ("idle", "say"), ("say", "say")])
async def test_an_offer_says_what_becomes_of_the_microphone_or_leaves_it_to_the_server(server, asked, mode):
    async with Browser() as browser:
        body = {**await browser.offer()} | ({"mode": asked} if asked else {})
        await server.client.post("/offer", json=body)
    assert server.session.mode == mode
    await server.end()


async def test_a_question_is_asked(server, session):
    response = await server.client.post(f"/sessions/{session}/ask", json={"text": "Who are you?"})
    assert (response.status, await response.json()) == (202, {"turn_id": 1})
    assert server.session.asked_texts == ["Who are you?"]
    assert (await server.client.post(f"/sessions/{session}/ask", json={"text": 3})).status == 422


async def test_mirror_is_switched(server, session):
    response = await server.client.post(f"/sessions/{session}/mirror", json={"on": True})
    assert (response.status, await response.json()) == (200, {"on": True})
    assert server.session.mirror is True
    response = await server.client.post(f"/sessions/{session}/mirror", json={"on": "yes"})
    assert await error_of(response) == (422, "invalid_request")


async def test_listening_is_switched(server, session):
    response = await server.client.post(f"/sessions/{session}/listening", json={"on": True})
    assert (response.status, await response.json()) == (200, {"on": True})
    assert server.session.listening is True
    response = await server.client.post(f"/sessions/{session}/listening", json={"on": 1})
    assert await error_of(response) == (422, "invalid_request")


async def test_an_offer_may_ask_for_a_quality(server):
    async with Browser() as browser:
        offer = await browser.offer()
        await server.client.post("/offer", json={**offer, "quality": 4})
        assert server.session.asked == 4
        await server.client.post("/offer", json=offer)
        assert server.session.asked == "auto", "the option's value"
        for wrong in (6, -1, "3", "high", True, 2.5):
            response = await server.client.post("/offer", json={**offer, "quality": wrong})
            assert await error_of(response) == (422, "invalid_request"), wrong
    await server.end()


async def test_quality_is_asked_for_and_told(server, session):
    response = await server.client.post(f"/sessions/{session}/quality", json={"quality": 2})
    assert (response.status, await response.json()) == (200, {"asked": 2, "level": 2, "reason": "asked"})
    response = await server.client.get(f"/sessions/{session}/quality")
    assert await response.json() == {"asked": 2, "level": 2, "reason": "asked"}
    response = await server.client.post(f"/sessions/{session}/quality", json={"quality": "best"})
    assert await error_of(response) == (422, "invalid_request") and server.session.asked == 2


async def test_an_action_is_played_and_ended(server, session):
    response = await server.client.post(f"/sessions/{session}/actions", json={"name": "nod"})
    assert (response.status, await response.json()) == (202, {"name": "nod"})
    assert (await server.client.delete(f"/sessions/{session}/actions")).status == 204
    assert server.session.actions == ["nod", ""]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"name": "somersault"}, (404, "action_unknown")),
        ({"name": ""}, (422, "invalid_request")),
        ({"name": "a" * 33}, (422, "invalid_request")),
        ({"name": "nod", "times": 3}, (422, "invalid_request")),
        ({}, (422, "invalid_request")),
    ],
)
async def test_an_action_that_is_none_is_refused(server, session, body, answer):
    assert await error_of(await server.client.post(f"/sessions/{session}/actions", json=body)) == answer
    assert server.session.actions == []


# ---- sound files


async def test_a_sound_file_is_played_at_48_khz(server, session):
    response = await server.client.post(f"/sessions/{session}/audio", data=wav(0.5))
    assert response.status == 202, await response.text()
    assert (await response.json())["duration_ms"] == pytest.approx(500, abs=2)
    assert len(server.session.played[0]) == pytest.approx(24_000, abs=100)


async def test_a_sound_file_may_come_in_a_form(server, session):
    form = aiohttp.FormData()
    form.add_field("comment", "hello")
    form.add_field("file", wav(0.25), filename="a.wav", content_type="audio/wav")
    response = await server.client.post(f"/sessions/{session}/audio", data=form)
    assert response.status == 202, await response.text()


async def test_a_form_without_a_file_is_refused(server, session):
    form = aiohttp.FormData()
    form.add_field("comment", "hello", content_type="text/plain")
    response = await server.client.post(f"/sessions/{session}/audio", data=form)
    assert response.status == 422, await response.text()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (422, "audio_empty")),
        (b"no sound at all, just words", (415, "audio_unreadable")),
        (wav(0.5)[:30], (415, "audio_unreadable")),
        (bytes(np.random.default_rng(0).integers(0, 256, 20_000, np.uint8)), (415, "audio_unreadable")),
    ],
)
async def test_a_file_that_is_no_sound_is_refused_and_the_session_goes_on(server, session, body, expected):
    response = await server.client.post(f"/sessions/{session}/audio", data=body)
    assert await error_of(response) == expected
    assert (await server.client.post(f"/sessions/{session}/audio", data=wav(0.1))).status == 202


async def test_a_sound_that_is_too_long_is_refused(aiohttp_client):
    server = await serve(aiohttp_client, max_audio_s=1.0)
    session = await server.open_session()
    response = await server.client.post(f"/sessions/{session}/audio", data=wav(3))
    assert await error_of(response) == (413, "audio_too_long")
    await server.end()


async def test_a_file_over_the_size_limit_is_refused_by_its_header(aiohttp_client):
    server = await serve(aiohttp_client, max_audio_mb=1)
    session = await server.open_session()
    response = await server.client.post(f"/sessions/{session}/audio", data=bytes(1_000_001))
    assert await error_of(response) == (413, "body_too_large")
    await server.end()


async def test_a_file_over_the_size_limit_is_refused_while_it_streams(aiohttp_client):
    server = await serve(aiohttp_client, max_audio_mb=1)
    session = await server.open_session()
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 20_000_000:
            sent += 100_000
            yield bytes(100_000)

    try:
        response = await server.client.post(f"/sessions/{session}/audio", data=endless())
        assert await error_of(response) == (413, "body_too_large")
    except aiohttp.ClientConnectionError:
        # The server may hang up on a sender that does not listen.
        pass
    assert sent < 20_000_000
    await server.end()


async def test_nothing_of_an_upload_stays_on_disk(server, session, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    await server.client.post(f"/sessions/{session}/audio", data=wav(0.1))
    await server.client.post(f"/sessions/{session}/audio", data=b"nonsense")
    assert list(tmp_path.iterdir()) == []


# ---- requests of the wrong shape


JSON_ROUTES = ["/offer", "/sessions/{}/say", "/sessions/{}/ask", "/sessions/{}/mirror", "/sessions/{}/listening",
               "/sessions/{}/actions",
               "/sessions/{}/quality"]


@pytest.mark.parametrize("route", JSON_ROUTES)
@pytest.mark.parametrize("body", [b"", b"{", b"{'a':1}", b"\xff\xfe", b"[" * 60_000])
async def test_bad_json_is_refused(server, session, route, body):
    response = await server.client.post(route.format(session), data=body, headers={"Content-Type": "application/json"})
    assert await error_of(response) == (400, "invalid_json")


@pytest.mark.parametrize("route", JSON_ROUTES)
async def test_another_content_type_is_refused(server, session, route):
    response = await server.client.post(route.format(session), data=b'{"text": "a"}')
    assert await error_of(response) == (415, "unsupported_media_type")


@pytest.mark.parametrize("route", JSON_ROUTES)
async def test_an_oversized_body_is_refused(server, session, route):
    response = await server.client.post(route.format(session), json={"text": "a" * 70_000})
    assert await error_of(response) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("POST", "/nothing"),
        ("GET", "/sessions"),
        ("GET", "/static/../server/app.py"),
        ("GET", "/..%2fserver/app.py"),
        ("GET", "/%2e%2e/requirements.txt"),
        ("GET", "/index.html%00.js"),
        ("GET", "/avatars/nobody/poster.jpg"),
        ("GET", "/avatars/..%2f..%2fetc/poster.jpg"),
    ],
)
async def test_what_does_not_exist_is_not_found(server, method, path):
    response = await server.client.request(method, path)
    assert (await error_of(response))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/offer", "POST"),
        ("PUT", "/sessions/x/say", "POST"),
        ("PUT", "/avatars", "POST"),
        ("DELETE", "/healthz", "GET"),
        ("POST", "/index.html", "GET"),
    ],
)
async def test_an_unknown_method_is_told_which_are_known(server, method, path, allowed):
    response = await server.client.request(method, path)
    assert await error_of(response) == (405, "method_not_allowed")
    assert allowed in response.headers["Allow"]


@pytest.mark.parametrize(
    "action", ["say", "ask", "audio", "interrupt", "mirror", "listening", "actions", "quality", "close"]
)
async def test_an_unknown_session_is_not_found(server, action):
    response = await server.client.post(f"/sessions/nope/{action}", json={"text": "a", "on": True, "name": "nod"})
    assert await error_of(response) == (404, "session_not_found")


async def test_pcm_without_an_upgrade_is_told_so(server, session):
    assert await error_of(await server.client.get(f"/sessions/{session}/pcm")) == (426, "upgrade_required")


async def test_bad_requests_of_one_session_leave_the_others_alone(server):
    first, second = await server.open_session(), await server.open_session()
    bad = [
        server.client.post(f"/sessions/{first}/say", json={"text": ""}),
        server.client.post(f"/sessions/{first}/audio", data=b"junk"),
        server.client.post(f"/sessions/{first}/say", data=b"{", headers={"Content-Type": "application/json"}),
        server.client.post("/offer", json={"sdp": "x", "type": "offer"}),
    ]
    responses = await asyncio.gather(*(asyncio.ensure_future(_status(request)) for request in bad))
    assert all(400 <= status < 500 for status in responses)
    for session in (first, second):
        assert (await server.client.post(f"/sessions/{session}/say", json={"text": "still here"})).status == 202
    await server.end()


async def _status(request) -> int:
    response = await request
    return response.status


# ---- ends


async def test_delete_ends_a_session_and_frees_everything(server, session):
    assert server.services.sessions.taken == 1
    assert (await server.client.delete(f"/sessions/{session}")).status == 204
    assert server.services.sessions.taken == 0
    assert server.session.closed.is_set()
    assert await error_of(await server.client.delete(f"/sessions/{session}")) == (404, "session_not_found")


async def test_a_beacon_ends_a_session(server, session):
    response = await server.client.post(
        f"/sessions/{session}/close", data=b"bye", headers={"Content-Type": "text/plain"}
    )
    assert response.status == 204
    await eventually(lambda: server.services.sessions.taken == 0)


async def test_a_full_server_says_when_to_come_back(aiohttp_client):
    server = await serve(aiohttp_client, max_sessions=1)
    session = await server.open_session()
    async with Browser() as browser:
        offer = await browser.offer()
        response = await server.client.post("/offer", json=offer)
        assert await error_of(response) == (503, "server_full")
        assert int(response.headers["Retry-After"]) >= 1
        await server.client.delete(f"/sessions/{session}")
        assert (await server.client.post("/offer", json=offer)).status == 200
    await server.end()


async def test_whoever_leaves_before_the_answer_leaves_no_session_behind(aiohttp_client, monkeypatch):
    server = await serve(aiohttp_client, max_sessions=1)
    asked, go_on, create = asyncio.Event(), asyncio.Event(), server.stage.create_session

    async def slow(*wanted):
        asked.set()
        await go_on.wait()
        return await create(*wanted)

    monkeypatch.setattr(server.services.sessions, "_create", slow)
    async with Browser() as browser:
        offer = await browser.offer()
    async with aiohttp.ClientSession() as closed_page:
        url = server.client.make_url("/offer")
        leaving = asyncio.create_task(closed_page.post(url, json=offer), name="leaving")
        await asked.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert server.services.sessions.taken == 1
    go_on.set()
    await eventually(lambda: server.stage.sessions and server.services.sessions.taken == 0, 5)
    assert server.session.closed.is_set()
    await server.end()


async def test_offers_at_the_same_moment_never_share_the_last_place(aiohttp_client):
    server = await serve(aiohttp_client, max_sessions=2)
    async with Browser() as browser:
        offer = await browser.offer()
        statuses = await asyncio.gather(*(_status(server.client.post("/offer", json=offer)) for _ in range(6)))
    assert sorted(statuses) == [200, 200, 503, 503, 503, 503]
    assert server.services.sessions.taken == 2
    await server.end()


# ---- what anybody may read


async def test_avatars_are_listed_with_the_default_first(server):
    cards = (await (await server.client.get("/avatars")).json())["avatars"]
    assert [card["name"] for card in cards] == ["ada", "bob"]
    assert cards[0]["default"] and cards[0]["synthetic"] and cards[0]["width"] == 256
    assert (await server.client.get(f"/{cards[0]['poster']}")).status == 200


async def test_a_poster_is_revalidated(server):
    response = await server.client.get("/avatars/ada/poster.jpg")
    assert response.content_type == "image/jpeg" and (await response.read())[:2] == b"\xff\xd8"
    tag = response.headers["ETag"]
    again = await server.client.get("/avatars/ada/poster.jpg", headers={"If-None-Match": tag})
    assert again.status == 304 and await again.read() == b""


async def test_health_tells_how_full_the_server_is(server, session):
    health = await (await server.client.get("/healthz")).json()
    assert health["status"] == "ok" and health["sessions"] == 1 and health["max_sessions"] >= 1


async def test_metrics_are_prometheus_text(server, session):
    response = await server.client.get("/metrics")
    text = await response.text()
    assert response.content_type == "text/plain"
    assert 'visavis_offers_total{outcome="answered"} 1.0' in text
    assert session not in text


async def test_the_page_is_served_with_its_types_and_is_revalidated(server):
    for path, kind in (("/", "text/html"), ("/index.html", "text/html"), ("/peer.js", "text/javascript")):
        response = await server.client.get(path)
        assert (response.status, response.content_type) == (200, kind)
        assert response.headers["Cache-Control"] == "no-cache"
        again = await server.client.get(path, headers={"If-None-Match": response.headers["ETag"]})
        assert again.status == 304


async def test_every_answer_carries_protective_headers(server):
    for path in ("/", "/healthz", "/nothing", "/avatars/ada/poster.jpg"):
        headers = (await server.client.get(path)).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Python" not in headers.get("Server", "")


async def test_a_session_whose_pictures_cannot_be_encoded_ends_as_failed(server, monkeypatch):
    def create(*_, **__):
        raise MemoryError("no room for an encoder")

    monkeypatch.setattr(tracks, "create_video_encoder", create)
    live = server.services.sessions.get(await server.open_session())
    # What a sender does once somebody is connected.
    with pytest.raises(MediaStreamError):
        await live.peer._video.next_parcel()
    await eventually(lambda: server.services.sessions.taken == 0)
    metrics = await (await server.client.get("/metrics")).text()
    assert 'visavis_sessions_ended_total{reason="failed"} 1.0' in metrics
