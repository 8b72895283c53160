"""Which pages may call: ours, those that are listed, and nobody else's."""

from __future__ import annotations

import pytest
from aiohttp import WSServerHandshakeError

from tests.server.serving import Server, serve


def own(server: Server) -> str:
    return f"http://{server.client.host}:{server.client.port}"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://127.0.0.1.evil.example",
        "file://",
        "http://[::1",
        "http://user@evil.example:99999",
    ],
)
async def test_a_foreign_page_can_change_nothing(server, origin):
    session = await server.open_session()
    headers = {"Origin": origin}
    for method, path in (
        ("POST", "/offer"),
        ("POST", f"/sessions/{session}/say"),
        ("POST", f"/sessions/{session}/audio"),
        ("POST", f"/sessions/{session}/interrupt"),
        ("POST", f"/sessions/{session}/actions"),
        ("DELETE", f"/sessions/{session}/actions"),
        ("POST", f"/sessions/{session}/close"),
        ("DELETE", f"/sessions/{session}"),
    ):
        response = await server.client.request(method, path, headers=headers)
        assert response.status == 403 and (await response.json())["error"]["code"] == "origin_forbidden"
        assert "Access-Control-Allow-Origin" not in response.headers
    assert server.services.sessions.taken == 1
    await server.end()


async def test_a_foreign_page_gets_no_socket(server):
    session = await server.open_session()
    with pytest.raises(WSServerHandshakeError) as caught:
        await server.client.ws_connect(f"/sessions/{session}/pcm", headers={"Origin": "https://evil.example"})
    assert caught.value.status == 403
    await server.end()


async def test_our_own_page_and_programs_without_a_page_may_call(server):
    session = await server.open_session()
    for headers in ({}, {"Origin": own(server)}):
        response = await server.client.post(f"/sessions/{session}/interrupt", headers=headers)
        assert response.status == 200
    await server.end()


async def test_a_name_pointed_at_a_loopback_server_is_not_our_own_page(server):
    headers = {"Origin": "http://rebound.example:8080", "Host": "rebound.example:8080"}
    response = await server.client.post("/offer", headers=headers)
    assert response.status == 403


async def test_a_server_on_the_network_is_called_by_its_name(aiohttp_client):
    server = await serve(aiohttp_client, host="0.0.0.0")
    headers = {"Origin": "https://face.example", "Host": "face.example"}
    assert (await server.client.post("/offer", headers=headers)).status == 415


async def test_a_listed_page_may_call_and_is_named_exactly(aiohttp_client):
    server = await serve(aiohttp_client, allowed_origins=("https://shop.example",))
    session = await server.open_session()
    headers = {"Origin": "https://shop.example"}
    response = await server.client.post(f"/sessions/{session}/interrupt", headers=headers)
    assert response.status == 200
    assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "Origin" in response.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in response.headers
    missing = await server.client.post("/sessions/nope/interrupt", headers=headers)
    assert missing.status == 404 and "Access-Control-Allow-Origin" in missing.headers, "errors can be read too"
    other = await server.client.post(f"/sessions/{session}/interrupt", headers={"Origin": "https://shop.example.org"})
    assert other.status == 403
    await server.end()


async def test_a_listed_page_is_answered_before_it_asks(aiohttp_client):
    server = await serve(aiohttp_client, allowed_origins=("https://shop.example",))
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    response = await server.client.options("/offer", headers=headers)
    assert response.status == 204
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    refused = await server.client.options("/offer", headers={**headers, "Origin": "https://evil.example"})
    assert refused.status == 405 and "Access-Control-Allow-Origin" not in refused.headers


async def test_a_star_lists_everybody_and_still_names_each(aiohttp_client):
    server = await serve(aiohttp_client, allowed_origins=("*",))
    response = await server.client.get("/healthz", headers={"Origin": "https://any.example"})
    assert response.headers["Access-Control-Allow-Origin"] == "https://any.example"


async def test_only_listed_pages_may_frame_ours(aiohttp_client):
    for allowed, framers in (((), "'none'"), (("https://shop.example",), "'self' https://shop.example")):
        server = await serve(aiohttp_client, allowed_origins=allowed)
        policy = (await server.client.get("/")).headers["Content-Security-Policy"]
        assert policy.endswith(f"frame-ancestors {framers}")
