"""What is passed on arrives as it was, as it comes, and never half without that being seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from engine.errors import InvalidInput, VisavisError
from server.gateway.fleet import WorkerState
from server.gateway.forward import Forwarder
from server.gateway.links import Links
from server.middleware import error_response, status_of
from server.worker.wire import SECRET_HEADER
from tests.server.serving import AsInProduction, eventually

LIMIT = 1_000_000


class NoFleet:
    """Remembers who was reported lost."""

    def __init__(self) -> None:
        self.reported: list[str] = []

    async def lost(self, name: str) -> None:
        self.reported.append(name)


class Stand:
    """A worker made of whatever handlers a test gives it, and a gateway before it."""

    def __init__(self, aiohttp_client) -> None:
        self._make_client = aiohttp_client
        self.worker = web.Application()
        self.fleet = NoFleet()
        self.seen: list[web.Request] = []
        self.codes: list[str] = []
        self.body: AsyncIterator[bytes] | None = None

    async def up(self):
        self.server = TestServer(self.worker)
        await self.server.start_server()
        self.links = Links(self.fleet)
        forwarder = Forwarder(self.links, LIMIT)
        state = WorkerState("w1", str(self.server.make_url("")).rstrip("/"), "secret", "ready", 1)

        async def forward(request: web.Request) -> web.StreamResponse:
            try:
                return await forwarder.forward(request, state, body=self.body)
            except VisavisError as error:
                self.codes.append(error.code)
                return error_response(status_of(error), error.code, error.message)

        gateway = web.Application()
        gateway.router.add_route("*", "/{path:.*}", forward)
        return await self._make_client(AsInProduction(gateway))

    async def down(self) -> None:
        await self.links.aclose()
        await self.server.close()


@pytest.fixture
async def stand(aiohttp_client) -> AsyncIterator[Stand]:
    made = Stand(aiohttp_client)
    yield made
    await made.down()


async def test_headers_of_one_connection_and_permissions_end_here(stand: Stand):
    async def echo(request: web.Request) -> web.Response:
        stand.seen.append(request)
        return web.Response(
            text="ok", headers={"Connection": "x-theirs", "X-Theirs": "1", "X-Kept": "1", "ETag": '"7"'}
        )

    stand.worker.router.add_get("/a", echo)
    client = await stand.up()
    response = await client.get(
        "/a?b=%20c&d=ü",
        headers={
            "Connection": "x-mine", "X-Mine": "1", "Authorization": "Bearer vk_1", "Cookie": "a=1", "X-Told": "2",
            SECRET_HEADER: "guess", "Proxy-Authorization": "x",
        },
    )  # fmt: skip
    assert response.status == 200 and await response.text() == "ok"
    got = stand.seen[0].headers
    assert got.getall(SECRET_HEADER) == ["secret"] and got["X-Told"] == "2"
    assert not {"X-Mine", "Authorization", "Cookie", "Proxy-Authorization"} & set(got)
    assert stand.seen[0].query == {"b": " c", "d": "ü"}
    assert "X-Theirs" not in response.headers and response.headers["X-Kept"] == "1"
    assert response.headers["ETag"] == '"7"'


async def test_events_pass_one_by_one(stand: Stand):
    go_on = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: 2\n\n")
        return response

    stand.worker.router.add_get("/events", events)
    client = await stand.up()
    async with client.get("/events") as response:
        async with asyncio.timeout(3):
            assert await response.content.readuntil(b"\n\n") == b"data: 1\n\n", "before the second one exists"
        go_on.set()
        assert await response.content.read() == b"data: 2\n\n"


async def test_an_upload_streams_and_ends_at_its_limit(stand: Stand):
    first = asyncio.Event()

    async def take(request: web.Request) -> web.Response:
        size = 0
        async for chunk in request.content.iter_any():
            size += len(chunk)
            first.set()
        return web.json_response({"size": size})

    stand.worker.router.add_post("/take", take)
    client = await stand.up()

    async def slowly() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        await first.wait()
        yield bytes(1)

    async with asyncio.timeout(5):
        response = await client.post("/take", data=slowly())
        assert await response.json() == {"size": 100_001}
    known = await client.post("/take", data=bytes(LIMIT + 1))
    assert known.status == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(10_000)

    unknown = await client.post("/take", data=endless())
    assert unknown.status == 413 and (await unknown.json())["error"]["code"] == "body_too_large"


async def swallow(request: web.Request) -> web.Response:
    return web.json_response({"size": len(await request.read())})


async def test_who_leaves_while_it_sends_costs_no_worker_its_good_name(stand: Stand):
    stand.worker.router.add_post("/take", swallow)
    client = await stand.up()
    _, writer = await asyncio.open_connection(client.server.host, client.server.port)
    writer.write(b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" + bytes(100_000))
    await writer.drain()
    writer.transport.abort()
    await eventually(lambda: bool(stand.codes))
    assert stand.codes == ["body_incomplete"] and not stand.fleet.reported
    whole = await client.post("/take", data=b"whole")
    assert await whole.json() == {"size": 5}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidInput("audio_too_long", "Too long."), 413, "audio_too_long"),
        (ConnectionResetError(), 400, "body_incomplete"),
        (TimeoutError(), 408, "request_timeout"),
        (aiohttp.ClientPayloadError(), 400, "body_incomplete"),
    ],
)
async def test_what_is_wrong_with_a_body_is_told_and_no_worker_is_blamed(
    stand: Stand, error: Exception, status: int, code: str
):
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        raise error

    stand.worker.router.add_post("/take", swallow)
    client = await stand.up()
    stand.body = broken()
    response = await client.post("/take")
    assert (response.status, (await response.json())["error"]["code"]) == (status, code)
    assert not stand.fleet.reported


async def test_a_body_in_place_of_the_request_s_own_has_the_same_limit(stand: Stand):
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)

    stand.worker.router.add_post("/take", swallow)
    client = await stand.up()
    stand.body = endless()
    response = await client.post("/take")
    assert response.status == 413 and not stand.fleet.reported


async def test_half_an_answer_never_looks_whole(stand: Stand):
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        request.transport.abort()
        return response

    stand.worker.router.add_get("/half", break_off)
    client = await stand.up()
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError)):
        response = await client.get("/half")
        await response.read()


async def test_a_worker_that_is_gone_is_reported_and_its_session_not_found(stand: Stand):
    client = await stand.up()
    await stand.server.close()
    response = await client.get("/sessions/w1-x/quality")
    assert response.status == 404 and (await response.json())["error"]["code"] == "session_not_found"
    assert stand.fleet.reported == ["w1"]


async def test_sockets_pass_both_kinds_and_the_code_of_their_end(stand: Stand):
    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["pcm.v1"])
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data.upper())
            else:
                await socket.send_bytes(message.data[::-1])
                await socket.close(code=4429, message=b"enough")
        return socket

    stand.worker.router.add_get("/talk", talk)
    client = await stand.up()
    async with client.ws_connect("/talk", protocols=["pcm.v1"]) as socket:
        assert socket.protocol == "pcm.v1"
        await socket.send_str("hello")
        assert await socket.receive_str() == "HELLO"
        await socket.send_bytes(b"abc")
        assert await socket.receive_bytes() == b"cba"
        await socket.receive()
        assert socket.close_code == 4429
