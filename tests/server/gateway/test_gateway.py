"""The front desk before workers: every dialect opens and speaks through it, nothing goes around its gate."""

from __future__ import annotations

import asyncio
import io
import shutil
import wave
from typing import Any

import aiohttp
import numpy as np
import pytest

from engine.conversation.history import Line
from server.services import SERVICES
from server.worker.wire import SECRET_HEADER
from tests.server.gateway.behind import SECRET, Behind, stand
from tests.server.serving import Browser, eventually


@pytest.fixture
async def behind(aiohttp_client, avatars_dir):
    return await stand(aiohttp_client, avatars_dir, "w1", "w2", livetalking="on")


def wav(seconds: float = 0.1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes((np.sin(np.arange(int(16_000 * seconds)) / 5) * 9000).astype("<i2").tobytes())
    return file.getvalue()


async def test_sessions_spread_and_their_pictures_come(behind: Behind):
    async with behind, Browser() as one, Browser() as other:
        first, second = await behind.open(one), await behind.open(other)
        names = {first["session_id"].partition("-")[0], second["session_id"].partition("-")[0]}
        assert names == {"w1", "w2"}
        await one.watch(3)
        await other.watch(3)
        health = await (await behind.client.get("/healthz")).json()
        assert health["sessions"] == 2 and health["max_sessions"] == 4
        assert {worker["name"]: worker["sessions"] for worker in health["workers"]} == {"w1": 1, "w2": 1}
        metrics = await (await behind.client.get("/metrics")).text()
        assert 'visavis_offers_total{worker="w1",outcome="answered"} 1.0' in metrics


async def test_what_names_a_session_reaches_its_worker(behind: Behind):
    async with behind, Browser() as browser:
        session_id = (await behind.open(browser))["session_id"]
        worker = session_id.partition("-")[0]
        said = await behind.client.post(f"/sessions/{session_id}/say", json={"text": "Hello."})
        assert said.status == 202 and (await said.json())["utterance_id"] == 1
        bad = await behind.client.post(f"/sessions/{session_id}/say", json={"words": "Hello."})
        assert bad.status == 422 and (await bad.json())["error"]["code"] == "invalid_request"
        spoken = await behind.client.post(f"/sessions/{session_id}/audio", data=wav())
        assert spoken.status == 202, await spoken.text()
        asked = await behind.client.post("/human", json={"sessionid": session_id, "text": "Hi", "type": "echo"})
        assert await asked.json() == {"code": 0, "msg": "ok"}
        form = aiohttp.FormData()
        form.add_field("sessionid", session_id)
        form.add_field("file", wav(), filename="a.wav")
        assert (await (await behind.client.post("/humanaudio", data=form)).json())["code"] == 0
        late = aiohttp.FormData()
        late.add_field("file", wav(), filename="a.wav")
        late.add_field("sessionid", session_id)
        assert (await (await behind.client.post("/humanaudio", data=late)).json())["code"] == 0
        assert (await behind.client.delete(f"/sessions/{session_id}")).status == 204
        assert behind.fleet.apps[worker][SERVICES].sessions.taken == 0
        unknown = await behind.client.post("/human", json={"sessionid": "w1-none", "text": "Hi", "type": "echo"})
        assert (await unknown.json())["code"] == -1


async def test_other_dialects_open_through_the_same_door(behind: Behind):
    async with behind, Browser() as pipecat, Browser() as player:
        response = await behind.client.post("/api/offer", json=await pipecat.offer())
        answer = await response.json()
        await pipecat.accept(answer)
        await pipecat.watch(2)
        trickled = await behind.client.patch("/api/offer", json={"pc_id": answer["pc_id"], "candidates": []})
        assert trickled.status == 200
        offer = (await player.offer())["sdp"]
        opened = await behind.client.post("/whep/tiny", data=offer, headers={"Content-Type": "application/sdp"})
        assert opened.status == 201
        await player.accept({"sdp": await opened.text(), "type": "answer"})
        await player.watch(2)
        ended = await behind.client.delete(opened.headers["Location"])
        assert ended.status == 200


async def test_sound_streams_through_a_websocket_and_codes_come_back(behind: Behind):
    async with behind, Browser() as browser:
        session_id = (await behind.open(browser))["session_id"]
        async with behind.client.ws_connect(f"/sessions/{session_id}/pcm") as socket:
            await socket.send_json({"sample_rate": 16_000, "format": "s16le"})
            assert (await socket.receive_json())["type"] == "ready"
            await socket.send_bytes(bytes(3200))
            await socket.send_json({"type": "end"})
            assert [(await socket.receive_json())["type"] for _ in range(2)] == ["started", "ended"]
        async with behind.client.ws_connect(f"/sessions/{session_id}/pcm") as socket:
            await socket.send_json({"sample_rate": 16_000, "format": "mp3"})
            assert (await socket.receive_json())["error"]["code"] == "audio_format"
            await socket.receive()
            assert socket.close_code == 4400
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await behind.client.ws_connect("/sessions/w1-none/pcm")
        assert refused.value.status == 404
        plain = await behind.client.get(f"/sessions/{session_id}/pcm")
        assert plain.status == 426


async def status_of_raw(behind: Behind, path: str) -> int:
    """The answer to a path that no client library would send as it is."""
    server = behind.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{SECRET_HEADER}: {SECRET}\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


async def test_no_header_opens_a_worker_from_outside(aiohttp_client, avatars_dir):
    behind = await stand(aiohttp_client, avatars_dir, "w1", access="closed")
    forged = {SECRET_HEADER: SECRET, "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    async with behind, Browser() as browser:
        refused = await behind.client.post("/offer", json=await browser.offer(), headers=forged)
        assert refused.status == 401
        for path in (
            "/internal/state", "/sessions/../internal/state", "//internal/state", "/sessions/w1-x/../../internal/state",
            "/sessions/w1-..%2F..%2Finternal%2Fstate", "/sessions/w1-x/quality/../../../internal/state",
        ):  # fmt: skip
            assert await status_of_raw(behind, path) in (400, 401, 404, 405), path
        guessed = await behind.client.get("/sessions/w1-..%2F..%2Finternal%2Fstate/quality", headers=forged)
        assert guessed.status == 404
        conversion = await behind.client.post("/conversions?pitch=1", data=wav(), headers=forged)
        assert conversion.status == 401
        # And the worker itself answers nobody without the secret.
        server = behind.fleet.servers["w1"]
        async with aiohttp.ClientSession() as http:
            for headers in ({}, {SECRET_HEADER: "guess"}, {SECRET_HEADER: "ü"}):
                async with http.get(server.make_url("/internal/state"), headers=headers) as response:
                    assert response.status == 403
                async with http.post(server.make_url("/offer"), json={}, headers=headers) as response:
                    assert response.status == 403


async def test_what_lets_a_client_in_is_not_passed_on(behind: Behind):
    seen: list[dict[str, str]] = []

    async with behind, Browser() as browser:
        session_id = (await behind.open(browser))["session_id"]
        worker = session_id.partition("-")[0]
        original = behind.fleet.apps[worker][SERVICES].sessions.get

        def get(an_id: str):
            seen.append(an_id)
            return original(an_id)

        behind.fleet.apps[worker][SERVICES].sessions.get = get
        answer = await behind.client.get(
            f"/sessions/{session_id}/quality",
            headers={"Authorization": "Bearer vk_secret", "Cookie": "a=b", "Connection": "x-mine", "X-Mine": "1"},
        )
        assert answer.status == 200 and seen == [session_id]
        assert answer.headers["Server"] == "Visavis" and "Content-Security-Policy" in answer.headers


async def test_a_full_house_is_told_and_a_line_forms(behind: Behind):
    async with behind, Browser() as a, Browser() as b, Browser() as c, Browser() as d, Browser() as e:
        for browser in (a, b, c, d):
            await behind.open(browser)
        refused = await behind.client.post("/offer", json={**await e.offer(), "ticket": ""})
        assert refused.status == 503
        assert (await refused.json())["queue"]["position"] == 1


async def test_whoever_leaves_before_the_answer_leaves_no_session_behind(behind: Behind):
    async with behind, Browser() as browser:
        offer = await browser.offer()
        asked, go_on = asyncio.Event(), asyncio.Event()
        for name, app in behind.fleet.apps.items():

            async def slow(*wanted: Any, create: Any = behind.fleet.stages[name].create_session) -> Any:
                asked.set()
                await go_on.wait()
                return await create(*wanted)

            app[SERVICES].sessions._create = slow
        async with aiohttp.ClientSession() as closed_page:
            url = behind.client.make_url("/offer")
            leaving = asyncio.create_task(closed_page.post(url, json=offer), name="leaving")
            await asked.wait()
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        await asyncio.sleep(0.1)
        go_on.set()
        await eventually(lambda: any(stage.sessions for stage in behind.fleet.stages.values()), 5)
        await eventually(lambda: not any(app[SERVICES].sessions.taken for app in behind.fleet.apps.values()), 5)


async def test_a_lost_session_goes_on_elsewhere_once(behind: Behind):
    async with behind, Browser() as browser, Browser() as again, Browser() as once_more:
        former = (await behind.open(browser, style="teacher"))["session_id"]
        await browser.opened.wait()
        worker = former.partition("-")[0]
        session = behind.session(worker)
        session.lines = [Line("user", "Hello.", 1.0), Line("assistant", "Good mor…", 2.0, True)]
        await asyncio.sleep(0.6)
        await behind.fleet.remember()
        kept = await behind.fleet.memory.recall(former)
        assert kept is not None and kept["style"] == "teacher" and len(kept["lines"]) == 2
        await behind.fleet.kill(worker)
        gone = await behind.client.get(f"/sessions/{former}/quality")
        assert gone.status == 404 and (await gone.json())["error"]["code"] == "session_not_found"
        answer = await behind.open(again, session_id=former)
        other = ({"w1", "w2"} - {worker}).pop()
        assert answer["resumed"] is True and answer["session_id"].startswith(f"{other}-")
        wishes = behind.fleet.stages[other].wishes[-1]
        assert [line.text for line in wishes.lines] == ["Hello.", "Good mor…"] and wishes.style == "teacher"
        assert wishes.former == former
        # The answer may have been lost: whoever asks again with the old id finds the same session.
        second = await behind.open(once_more, session_id=former)
        assert second["session_id"] == answer["session_id"] and second["resumed"] is True
        assert len(behind.fleet.stages[other].sessions) == 1


async def test_a_session_that_ended_in_order_does_not_come_back(behind: Behind):
    async with behind, Browser() as browser, Browser() as again:
        former = (await behind.open(browser))["session_id"]
        await browser.opened.wait()
        await asyncio.sleep(0.6)
        await behind.client.post(f"/sessions/{former}/close")
        await behind.fleet.remember()
        answer = await behind.open(again, session_id=former)
        assert "resumed" not in answer and answer["session_id"] != former
        assert behind.fleet.stages[answer["session_id"].partition("-")[0]].wishes[-1].former == ""


async def test_a_worker_that_drains_keeps_its_own_and_takes_no_others(behind: Behind):
    async with behind, Browser() as browser, Browser() as again, Browser() as newcomer:
        former = (await behind.open(browser))["session_id"]
        worker = former.partition("-")[0]
        async with aiohttp.ClientSession(headers={SECRET_HEADER: SECRET}) as http:
            await http.post(behind.fleet.servers[worker].make_url("/internal/drain"))
        assert (await behind.open(again, session_id=former))["session_id"] == former
        answer = await behind.open(newcomer)
        assert not answer["session_id"].startswith(f"{worker}-")


async def test_the_page_is_told_what_the_workers_can_do(behind: Behind):
    config = await (await behind.client.get("/config.json")).json()
    assert config["restores"] is True and config["hears"] is True and config["mode"] == "converse"
    assert config["avatar"] == "tiny" and config["language_models"]
    poster = await behind.client.get("/avatars/tiny/poster.jpg")
    assert poster.status == 200 and poster.content_type == "image/jpeg"


async def test_an_avatar_that_was_made_meanwhile_is_known_to_the_workers(behind: Behind, avatars_dir, data_home):
    async with behind, Browser() as browser:
        shutil.copytree(avatars_dir / "tiny", data_home / "avatars" / "twin")
        front = behind.client.server.app[SERVICES].stage
        front.library.add("twin")
        assert (await behind.open(browser, avatar="twin"))["session_id"]
        front.forget("twin")
        async with asyncio.timeout(3):
            while any("twin" in stage.cards for stage in behind.fleet.stages.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_conversion_that_was_lost_with_its_worker_is_not_found(behind: Behind):
    async with behind, Browser() as one, Browser() as other:
        opened = [(await behind.open(browser))["session_id"] for browser in (one, other)]
        session_id = next(it for it in opened if it.startswith("w2-"))
        await behind.fleet.servers["w1"].close()
        spoken = await behind.client.post(f"/sessions/{session_id}/audio?conversion=w1-abc")
        assert spoken.status == 404 and (await spoken.json())["error"]["code"] == "conversion_not_found"
        assert behind.fleet.reported == ["w1"]


async def test_a_conversion_is_found_and_spoken_on_another_worker(behind: Behind):
    async with behind, Browser() as first, Browser() as browser:
        await behind.open(first)
        # Conversions go to the first of the idle workers.
        session_id = (await behind.open(browser))["session_id"]
        assert session_id.startswith("w2-")
        begun = await behind.client.post("/conversions?pitch=2", data=wav(0.3))
        if begun.status != 202:
            pytest.skip(await begun.text())
        conversion_id = (await begun.json())["id"]
        assert conversion_id.startswith("w1-")
        async with asyncio.timeout(20):
            state = "running"
            while state == "running":
                await asyncio.sleep(0.05)
                state = (await (await behind.client.get(f"/conversions/{conversion_id}")).json())["state"]
        spoken = await behind.client.post(f"/sessions/{session_id}/audio?conversion={conversion_id}")
        assert spoken.status == 202, await spoken.text()
        missing = await behind.client.post(f"/sessions/{session_id}/audio?conversion=w9-none")
        assert missing.status == 404
