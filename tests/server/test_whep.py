"""WHEP as players speak it: an offer in, a picture out, candidates after it, and an end."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.server.serving import Browser, Server, eventually, serve
from tests.server.test_api import error_of

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def open_whep(server: Server) -> str:
    """A session nobody connects to; returns its address."""
    async with Browser(with_channel=False) as player:
        sdp = (await player.offer())["sdp"]
    sdp = "\r\n".join(line for line in sdp.splitlines() if not line.startswith("a=candidate")) + "\r\n"
    response = await server.client.post("/whep/ada", data=sdp, headers=SDP)
    assert response.status == 201, await response.text()
    return response.headers["Location"]


async def test_a_player_watches_and_leaves(server):
    async with Browser(with_channel=False) as player:
        offer = await player.offer()
        response = await server.client.post("/whep/bob", data=offer["sdp"], headers=SDP)
        assert response.status == 201 and response.headers["Content-Type"] == "application/sdp"
        assert re.fullmatch(r"/whep/bob/[\w-]{16}", response.headers["Location"])
        assert response.headers["ETag"].startswith('"')
        assert response.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
        await player.accept({"sdp": await response.text(), "type": "answer"})
        await player.watch(10)
        assert player.sounds and server.session.mode == "say"
        session = response.headers["Location"].rpartition("/")[2]
        said = await server.client.post(f"/sessions/{session}/say", json={"text": "Hello."})
        assert said.status == 202 and server.session.said == ["Hello."]
        assert (await server.client.delete(response.headers["Location"])).status == 200
    assert server.services.sessions.taken == 0


async def test_candidates_may_come_later(server):
    async with Browser(with_channel=False) as player:
        lines = (await player.offer())["sdp"].splitlines()
        ways = [line for line in lines if line.startswith("a=candidate")]
        bare = "\r\n".join(line for line in lines if line not in ways and line != "a=end-of-candidates") + "\r\n"
        response = await server.client.post("/whep/ada", data=bare, headers=SDP)
        # Only its own candidates can bring about this connection: the answer's are kept from the player.
        answer = re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", await response.text())
        await player.accept({"sdp": answer, "type": "answer"})
        mids = [line for line in lines if line.startswith("a=mid:")]
        fragment = "\r\n".join(["m=audio 9 RTP/AVP 0", mids[0], *ways, "a=end-of-candidates", ""])
        tag = {"If-Match": response.headers["ETag"]}
        patched = await server.client.patch(response.headers["Location"], data=fragment, headers={**FRAGMENT, **tag})
        assert patched.status == 204
        await player.watch(3)
        await server.end()


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({"Content-Type": "application/json"}, (415, "unsupported_media_type")),
        ({"Content-Type": "text/plain"}, (415, "unsupported_media_type")),
        ({**SDP, "Accept": "application/json, text/*;q=0.1"}, (406, "not_acceptable")),
    ],
)
async def test_what_a_player_sends_and_takes_is_sdp(server, headers, refusal):
    assert await error_of(await server.client.post("/whep/ada", data="v=0", headers=headers)) == refusal
    assert server.services.sessions.taken == 0


@pytest.mark.parametrize("accept", ["application/sdp", "application/*", "*/*", "text/html, */*;q=0.1", ""])
async def test_an_answer_is_accepted_by_any_of_its_names(server, accept):
    response = await server.client.post("/whep/ada", data="v=0", headers={**SDP, "Accept": accept})
    assert await error_of(response) == (400, "offer_invalid")


@pytest.mark.parametrize("sdp", ["", "   ", "hello", "v=0\r\n"])
async def test_an_offer_that_is_none_is_refused(server, sdp):
    assert await error_of(await server.client.post("/whep/ada", data=sdp, headers=SDP)) == (400, "offer_invalid")


async def test_what_is_not_there_and_what_is_not_known_says_so(server):
    assert await error_of(await server.client.post("/whep/nobody", data="v=0", headers=SDP)) == (404, "avatar_unknown")
    assert await error_of(await server.client.get("/whep/ada")) == (405, "method_not_allowed")
    missing = await server.client.patch("/whep/ada/nothing", data="", headers=FRAGMENT)
    assert await error_of(missing) == (404, "session_not_found")
    assert await error_of(await server.client.delete("/whep/ada/nothing")) == (404, "session_not_found")
    options = await server.client.options("/whep/ada")
    assert (options.status, options.headers["Accept-Post"]) == (204, "application/sdp")


@pytest.mark.parametrize(
    ("headers", "body", "refusal"),
    [
        ({**FRAGMENT, "If-Match": '"other"'}, "", (412, "precondition_failed")),
        ({**FRAGMENT, "If-Match": "*"}, "a=ice-ufrag:x\r\n", (422, "ice_restart_unsupported")),
        (SDP, "", (415, "unsupported_media_type")),
        (FRAGMENT, "a=candidate:1 1 udp 2 example.org 4000 typ host\r\n", (422, "candidate_invalid")),
        (FRAGMENT, b"\xff", (422, "invalid_text")),
    ],
)
async def test_a_patch_that_cannot_be_carried_out_changes_nothing(server, headers, body, refusal):
    location = await open_whep(server)
    assert await error_of(await server.client.patch(location, data=body, headers=headers)) == refusal
    assert (await server.client.delete(location)).status == 200


async def test_servers_to_connect_through_come_as_links(aiohttp_client):
    turn = {"urls": "turn:192.0.2.9:3478", "username": 'a"b', "credential": "c\\d"}
    server = await serve(aiohttp_client, ice_servers=("stun:127.0.0.1:9", turn))
    async with Browser(with_channel=False) as player:
        offer = await player.offer()
    server.services.sessions._options = _without_servers(server.services.sessions._options)
    response = await server.client.post("/whep/ada", data=offer["sdp"], headers=SDP)
    assert response.headers.getall("Link") == [
        '<stun:127.0.0.1:9>; rel="ice-server"',
        '<turn:192.0.2.9:3478>; rel="ice-server"; username="a\\"b"; credential="c\\\\d"; credential-type="password"',
    ]
    await server.end()


async def test_a_listed_page_may_play_and_read_where(aiohttp_client):
    server = await serve(aiohttp_client, allowed_origins=("https://player.example",))
    asks = {"Access-Control-Request-Method": "PATCH", "Origin": "https://player.example"}
    preflight = await server.client.options("/whep/ada/x", headers=asks)
    assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    assert "If-Match" in preflight.headers["Access-Control-Allow-Headers"]
    response = await server.client.post("/whep/ada", data="", headers={**SDP, "Origin": "https://player.example"})
    assert {"Location", "ETag", "Link"} <= set(response.headers["Access-Control-Expose-Headers"].split(", "))
    foreign = await server.client.post("/whep/ada", data="", headers={**SDP, "Origin": "https://evil.example"})
    assert await error_of(foreign) == (403, "origin_forbidden")


async def test_a_full_server_asks_a_player_to_come_again(aiohttp_client):
    server = await serve(aiohttp_client, max_sessions=1)
    location = await open_whep(server)
    async with Browser(with_channel=False) as player:
        response = await server.client.post("/whep/ada", data=(await player.offer())["sdp"], headers=SDP)
    assert await error_of(response) == (503, "server_full") and int(response.headers["Retry-After"]) > 0
    await server.client.delete(location)
    await eventually(lambda: server.services.sessions.taken == 0)


def _without_servers(options):
    """The same for peers, who would look for servers that do not exist."""
    return replace(options, ice_servers=list)
