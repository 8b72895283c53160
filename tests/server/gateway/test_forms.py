"""Forms whose session is looked for: found wherever it stands, and never at the cost of the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.gateway import routing
from tests.server.gateway.behind import Behind, stand
from tests.server.gateway.test_gateway import wav
from tests.server.serving import Browser


@pytest.fixture
async def behind(aiohttp_client, avatars_dir):
    return await stand(aiohttp_client, avatars_dir, "w1", "w2", livetalking="on")


async def test_a_form_is_searched_once_whatever_is_in_it(behind: Behind, monkeypatch):
    searched = 0
    genuine = routing._FORM_ID

    class Counting:
        def search(self, text: bytearray, start: int = 0) -> Any:
            nonlocal searched
            searched += len(text) - start
            return genuine.search(text, start)

    monkeypatch.setattr(routing, "_FORM_ID", Counting())
    pieces = 0

    async def slowly(body: bytes, size: int) -> AsyncIterator[bytes]:
        nonlocal pieces
        for at in range(0, len(body), size):
            pieces += 1
            yield body[at : at + size]
            await asyncio.sleep(0.005)

    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    async with behind, Browser() as one, Browser() as other:
        # With the worker that is not asked where no session is found.
        opened = [(await behind.open(browser))["session_id"] for browser in (one, other)]
        session_id = next(it for it in opened if it.startswith("w2-"))
        file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + wav(6.0) + b"\r\n"
        named = b'--b\r\nContent-Disposition: form-data; name="sessionid"\r\nX-More: 1\r\n\r\n' + session_id.encode()
        form = file + named + b"\r\n--b--\r\n"
        # Whatever it is cut into, the id among it.
        within = [named.index(part) for part in (b'sionid"', b"More", b"w2", session_id[5:].encode())]
        for size in (7001, *(len(file) + at for at in within)):
            searched = pieces = 0
            answer = await behind.client.post("/humanaudio", data=slowly(form, size), headers=boundary)
            assert (await answer.json())["code"] == 0
            assert len(file) < searched <= len(form) + (pieces + 200) * routing._FORM_ID_BYTES


def test_a_form_that_looks_like_nothing_but_ids_takes_no_longer_than_any():
    hostile = b"name=sessionid\r\n" * 25_000
    since_s = time.process_time()
    assert routing._FORM_ID.search(hostile) is None
    # Each line of them searched to the end would take half a minute.
    assert time.process_time() - since_s < 5
    assert routing._FORM_ID.search(hostile + b"\r\nw1-x\r\n")[1] == b"w1-x"


async def test_a_form_that_does_not_come_is_not_waited_for(behind: Behind, monkeypatch):
    monkeypatch.setattr(routing, "UPLOAD_S", 0.2)
    never = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        await never.wait()

    async with behind:
        answer = await behind.client.post("/humanaudio", data=stalled())
        assert answer.status == 408 and not behind.fleet.reported
