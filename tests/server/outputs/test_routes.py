"""Outputs through the API: targets are named, only their owner may, and they end with their session."""

from __future__ import annotations

import pytest

from engine.config import Config
from server.access.gate import FOR_OWNERS
from server.outputs.outputs import OUTPUTS
from tests.server.outputs.rtmp_receiver import RtmpReceiver
from tests.server.outputs.whip_receiver import TOKEN, WhipReceiver
from tests.server.serving import Browser, eventually, serve
from tests.server.test_api import error_of


async def outputs_of(server, session: str) -> list[dict]:
    response = await server.client.get(f"/sessions/{session}/outputs")
    assert response.status == 200
    return (await response.json())["outputs"]


async def metric(server, name: str) -> float:
    text = await (await server.client.get("/metrics")).text()
    return float(next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)))


async def test_one_session_goes_to_two_targets_and_is_encoded_once_for_both(aiohttp_client):
    async with RtmpReceiver() as tube, WhipReceiver() as sfu, Browser(video_codec="H264") as browser:
        targets = [f"tube={tube.url}", {"name": "sfu", "url": sfu.url, "token": TOKEN}]
        server = await serve(aiohttp_client, publish=targets)
        session = await server.offer(browser)
        for name in ("tube", "sfu"):
            response = await server.client.post(f"/sessions/{session}/outputs", json={"name": name})
            assert response.status == 201
            assert (await response.json())["state"] == "connecting"
        await eventually(lambda: len(tube.messages) > 50 and len(sfu.pictures) > 20, 10)
        told = await (await server.client.get(f"/sessions/{session}/outputs")).json()
        assert [(one["name"], one["kind"], one["state"]) for one in told["outputs"]] == [
            ("tube", "rtmp", "live"), ("sfu", "whip", "live")
        ]  # fmt: skip
        assert told["targets"] == ["tube", "sfu"]
        live = server.services.sessions.get(session)
        assert sorted(live.fan.codecs) == ["H264", "opus"]
        assert await metric(server, 'visavis_outputs{kind="rtmp",state="live"}') == 1
        assert (await server.client.delete(f"/sessions/{session}/outputs/tube")).status == 204
        assert [one["name"] for one in await outputs_of(server, session)] == ["sfu"]
        await server.client.delete(f"/sessions/{session}")
        await eventually(lambda: sfu.deleted == ["1"] and tube.commands[-1][0] == "deleteStream")
        assert await metric(server, 'visavis_outputs{kind="whip",state="live"}') == 0
        assert not server.client.app[OUTPUTS].of(session)


async def test_a_session_goes_on_being_sent_when_its_browser_is_gone(aiohttp_client):
    async with RtmpReceiver() as tube:
        server = await serve(aiohttp_client, publish=[f"tube={tube.url}"])
        async with Browser() as browser:
            session = await server.offer(browser)
            await browser.watch(3)
            await server.client.post(f"/sessions/{session}/outputs", json={"name": "tube"})
            await eventually(lambda: len(tube.messages) > 20)
            live = server.services.sessions.get(session)
            browser.channel.close()
            live.peer._end("vanished")
        await eventually(lambda: live.peer.ended.done() is False, 5)
        before = len(tube.messages)
        await eventually(lambda: len(tube.messages) > before + 50, 5)
        await server.end()


async def test_what_is_not_named_and_what_is_taken_is_refused(aiohttp_client):
    server = await serve(aiohttp_client, publish=["tube=rtmp://127.0.0.1:9/live/k"])
    session, other = await server.open_session(), await server.open_session()
    path = f"/sessions/{session}/outputs"
    assert await error_of(await server.client.post(path, json={"name": "nobody"})) == (404, "output_unknown")
    assert (await server.client.post(path, json={"name": "tube"})).status == 201
    for taken in (path, f"/sessions/{other}/outputs"):
        assert await error_of(await server.client.post(taken, json={"name": "tube"})) == (429, "output_taken")
    stop = await server.client.delete(f"/sessions/{other}/outputs/tube")
    assert await error_of(stop) == (404, "output_not_running")
    assert await error_of(await server.client.get("/sessions/nothing/outputs")) == (404, "session_not_found")
    await eventually(lambda: server.client.app[OUTPUTS].of(session)[0].to_dict()["state"] == "waiting")
    assert (await outputs_of(server, session))[0]["error"]["code"] == "publish_unreachable"
    # So that neither silence nor a lost browser ends it while its target is down.
    assert server.services.sessions.get(session).fan.is_wanted
    assert (await server.client.delete(f"{path}/tube")).status == 204
    assert not server.services.sessions.get(session).fan.is_wanted
    await server.end()
    assert await metric(server, 'visavis_output_failures_total{kind="rtmp"}') >= 1


@pytest.mark.parametrize(
    "body", [{"name": "tube", "url": "rtmp://10.0.0.1/live/k"}, {"url": "http://127.0.0.1/"}, {"name": "rtmp://x/y/z"}]
)
async def test_no_request_can_name_an_address(aiohttp_client, body):
    server = await serve(aiohttp_client, publish=["tube=rtmp://127.0.0.1:9/live/k"])
    session = await server.open_session()
    response = await server.client.post(f"/sessions/{session}/outputs", json=body)
    assert response.status == 422 and await outputs_of(server, session) == []
    await server.end()


@pytest.mark.parametrize("access", ["open", "closed"])
async def test_whoever_only_knows_the_session_may_not_send_it_anywhere(aiohttp_client, access):
    server = await serve(aiohttp_client, publish=["tube=rtmp://127.0.0.1:9/live/k"], access=access, host="0.0.0.0")
    path = "/sessions/known-to-a-visitor/outputs"
    for method, where in (("GET", path), ("POST", path), ("DELETE", f"{path}/tube")):
        response = await server.client.request(method, where, json={"name": "tube"})
        assert response.status == 401 and (await response.json())["error"]["code"] == "key_required"
    assert {method for method, where in FOR_OWNERS if "/outputs" in where} == {"GET", "POST", "DELETE"}


def test_nothing_in_the_options_shows_a_key():
    config = Config(publish=["tube=rtmp://live.example/app/very-secret"])
    assert "very-secret" not in repr(config)


async def test_a_broadcast_is_sent_on_from_its_first_picture_and_needs_no_viewer(aiohttp_client):
    async with RtmpReceiver() as tube:
        server = await serve(aiohttp_client, publish=[f"tube={tube.url}"])
        response = await server.client.post("/broadcasts", json={"outputs": ["tube"]})
        assert response.status == 201
        session = (await response.json())["session_id"]
        await eventually(lambda: len(tube.messages) > 50, 5)
        assert [one["state"] for one in await outputs_of(server, session)] == ["live"]
        await server.client.delete(f"/sessions/{session}")
        await eventually(lambda: tube.commands[-1][0] == "deleteStream")


@pytest.mark.parametrize(
    ("names", "refusal"),
    [(["tube", "x"], (404, "output_unknown")), (["tube", "tube"], (429, "output_taken"))],
)
async def test_a_broadcast_that_cannot_be_sent_is_not_begun(aiohttp_client, names, refusal):
    server = await serve(aiohttp_client, publish=["tube=rtmp://127.0.0.1:9/live/k"])
    assert await error_of(await server.client.post("/broadcasts", json={"outputs": names})) == refusal
    assert server.services.sessions.taken == 0
