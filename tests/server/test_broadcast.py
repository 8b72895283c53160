"""A broadcast over real connections: who may open and watch it, what viewers see, what it costs, how it ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from server import tracks
from server.audience import Audience
from server.broadcast_routes import BROADCASTS
from server.metrics import EndReason
from tests.server.serving import Browser, Server, eventually, serve


@asynccontextmanager
async def on_air(server: Server, **body):
    response = await server.client.post("/broadcasts", json=body)
    assert response.status == 201, await response.text()
    try:
        yield await response.json()
    finally:
        await server.end()
        await server.client.app[BROADCASTS].aclose()


async def watch(server: Server, browser: Browser, broadcast_id: str) -> dict:
    response = await server.client.post("/offer", json={**await browser.offer(), "watch": broadcast_id})
    assert response.status == 200, await response.text()
    answer = await response.json()
    await browser.accept(answer)
    return answer


def viewer(**options) -> Browser:
    return Browser(with_channel=False, **options)


async def test_many_watch_one_face_that_is_encoded_once(server):
    async with on_air(server) as told:
        live = server.services.sessions.get(told["session_id"])
        async with viewer() as one, viewer() as two, viewer(video_codec="VP8") as three:
            for browser in (one, two, three):
                await watch(server, browser, told["id"])
            await eventually(lambda: min(len(browser.pictures) for browser in (one, two, three)) >= 10, 8)
            await eventually(lambda: min(len(browser.sounds) for browser in (one, two, three)) >= 5)
            # VP8 was taken by the first two, too, or H.264 by none but them: one encoder a codec, one for sound.
            assert len(live.fan.codecs) == len(set(live.fan.codecs)) <= 3
            assert server.services.sessions.taken == 1
            assert server.services.metrics.viewers._value.get() == 3
            state = await (await server.client.get(f"/broadcasts/{told['id']}")).json()
            assert (state["viewers"], "session_id" in state) == (3, False)
        await eventually(lambda: not live.fan.is_wanted)


async def test_a_joiner_sees_a_picture_soon_though_others_watch_already(server):
    async with on_air(server) as told:
        async with viewer() as one, viewer() as two:
            await watch(server, one, told["id"])
            await eventually(lambda: len(one.pictures) >= 25)
            await watch(server, two, told["id"])
            await eventually(lambda: two.connection.connectionState == "connected")
            await eventually(lambda: two.pictures, 1.0)


async def test_picture_and_sound_belong_together_for_every_viewer(server):
    async with on_air(server) as told:
        async with viewer() as browser:
            await watch(server, browser, told["id"])
            await eventually(lambda: len(browser.pictures) >= 80 and len(browser.sounds) >= 150, 8)
            flashes = [
                seen.frame.pts / 90_000
                for seen in browser.pictures[10:]
                if seen.frame.to_ndarray(format="gray").mean() > 200
            ]
            assert len(flashes) >= 2
            assert np.diff(flashes) == pytest.approx(1.0, abs=0.01)


async def test_nobody_watching_costs_no_encoding(server):
    async with on_air(server) as told:
        live = server.services.sessions.get(told["session_id"])
        await asyncio.sleep(0.2)
        assert live.fan.codecs == []
        async with viewer() as browser:
            await watch(server, browser, told["id"])
            await eventually(lambda: browser.pictures)
            assert live.fan.codecs
        await eventually(lambda: live.fan.codecs == [])


async def test_the_session_is_driven_by_its_own_routes_and_by_its_own_id_alone(server):
    async with on_air(server) as told:
        response = await server.client.post(f"/sessions/{told['session_id']}/say", json={"text": "Good evening."})
        assert response.status == 202
        assert server.session.said == ["Good evening."]
        response = await server.client.post(f"/sessions/{told['id']}/say", json={"text": "I am a viewer."})
        assert response.status == 404


async def test_it_ends_for_everybody(server):
    async with on_air(server) as told:
        async with viewer() as browser:
            await watch(server, browser, told["id"])
            await eventually(lambda: browser.pictures)
            assert (await server.client.delete(f"/broadcasts/{told['id']}")).status == 204
            assert server.services.sessions.taken == 0
            await eventually(lambda: browser.connection.connectionState == "closed")
        assert (await server.client.get(f"/broadcasts/{told['id']}")).status == 404
        assert server.services.metrics.viewers._value.get() == 0


async def test_viewers_connect_anew_when_pictures_cannot_be_encoded(server, monkeypatch):
    def create(*_, **__):
        raise MemoryError("no room for an encoder")

    async with on_air(server) as told:
        async with viewer() as browser:
            monkeypatch.setattr(tracks, "create_video_encoder", create)
            await watch(server, browser, told["id"])
            await eventually(lambda: browser.connection.connectionState == "closed", 5)
        monkeypatch.undo()
        async with viewer() as browser:
            await watch(server, browser, told["id"])
            await eventually(lambda: browser.pictures, 5)


async def test_viewers_connect_anew_when_there_is_no_more_sound(server):
    async with on_air(server) as told:
        live = server.services.sessions.get(told["session_id"])
        async with viewer() as browser:
            await watch(server, browser, told["id"])
            await eventually(lambda: browser.sounds, 20)
            live.fan._sources["opus"]._track.stop()
            await eventually(lambda: browser.connection.connectionState == "closed", 20)
        async with viewer() as browser:
            await watch(server, browser, told["id"])
            await eventually(lambda: browser.pictures and browser.sounds, 20)


async def test_a_viewer_that_goes_is_let_go_and_the_others_stay(server):
    async with on_air(server) as told:
        broadcast = server.client.app[BROADCASTS].get(told["id"])
        async with viewer() as stays:
            await watch(server, stays, told["id"])
            async with viewer() as goes:
                await watch(server, goes, told["id"])
                await eventually(lambda: goes.pictures)
                assert len(broadcast.viewers) == 2
            await eventually(lambda: len(broadcast.viewers) == 1)
            seen = len(stays.pictures)
            await eventually(lambda: len(stays.pictures) > seen + 10)


async def test_nobody_waits_for_a_viewer_that_never_comes(aiohttp_client):
    server = await serve(aiohttp_client)
    async with on_air(server) as told:
        broadcasts = server.client.app[BROADCASTS]
        broadcasts._options = type(broadcasts._options)(connect_timeout_s=0.1)
        async with viewer() as browser:
            await server.client.post("/offer", json={**await browser.offer(), "watch": told["id"]})
        assert len(broadcasts.get(told["id"]).viewers) == 1
        await eventually(lambda: not broadcasts.get(told["id"]).viewers)


async def test_there_are_never_more_viewers_than_may_be(aiohttp_client):
    server = await serve(aiohttp_client, broadcast_viewers=1)
    async with on_air(server) as told:
        async with viewer() as one, viewer() as two:
            await watch(server, one, told["id"])
            response = await server.client.post("/offer", json={**await two.offer(), "watch": told["id"]})
            assert (response.status, (await response.json())["error"]["code"]) == (429, "broadcast_full")


async def test_it_takes_a_place_and_its_viewers_take_none(aiohttp_client):
    server = await serve(aiohttp_client, max_sessions=1)
    async with on_air(server) as told:
        assert (await server.client.post("/broadcasts", json={})).status == 503
        async with viewer() as browser:
            await watch(server, browser, told["id"])
            assert server.services.sessions.taken == 1


async def test_a_player_watches_by_whep(server):
    async with on_air(server) as told:
        async with viewer() as browser:
            offer = await browser.offer()
            response = await server.client.post(
                f"/whep/watch/{told['id']}", data=offer["sdp"], headers={"Content-Type": "application/sdp"}
            )
            assert response.status == 201, await response.text()
            location = response.headers["Location"]
            assert location.startswith(f"/whep/watch/{told['id']}/")
            assert told["session_id"] not in location
            await browser.accept({"sdp": await response.text(), "type": "answer"})
            await eventually(lambda: browser.pictures)
            assert (await server.client.delete(location)).status == 200
            await eventually(lambda: browser.connection.connectionState == "closed")
        assert (await server.client.delete(location)).status == 404


async def test_what_is_not_there_cannot_be_watched(server):
    async with viewer() as browser:
        response = await server.client.post("/offer", json={**await browser.offer(), "watch": "nothing"})
        assert (response.status, (await response.json())["error"]["code"]) == (404, "broadcast_not_found")


async def test_an_unknown_avatar_or_output_takes_no_place(server):
    assert (await server.client.post("/broadcasts", json={"avatar": "nobody"})).status == 404
    assert (await server.client.post("/broadcasts", json={"outputs": ["nowhere"]})).status == 404
    assert server.services.sessions.taken == 0


async def test_one_that_nobody_needs_ends_by_itself(aiohttp_client):
    server = await serve(aiohttp_client)
    broadcasts = server.client.app[BROADCASTS]
    server.services.sessions._options = type(broadcasts._options)(idle_timeout_s=0.3)
    async with on_air(server) as told:
        live = server.services.sessions.get(told["session_id"])
        assert await asyncio.wait_for(asyncio.shield(live.ended), 3) == "idle"


async def test_a_session_that_others_take_goes_on_before_them_when_its_browser_is_lost(server):
    async with Browser() as browser:
        session_id = await server.offer(browser)
        live = server.services.sessions.get(session_id)
        taken = []
        feed = live.fan.subscribe("VP8", lambda *parcel: taken.append(parcel))
        await eventually(lambda: taken and browser.opened.is_set())
        live.peer._end(EndReason.VANISHED)
        await eventually(lambda: isinstance(live.peer, Audience))
        seen = len(taken)
        await eventually(lambda: len(taken) > seen + 5)
        assert not server.session.paused
    async with Browser() as again:
        assert await server.offer(again, session_id=session_id) == session_id
        await eventually(lambda: again.pictures, 5)
        assert not isinstance(live.peer, Audience)
    feed.close()
    await server.end()
