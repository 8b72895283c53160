"""A fake of the OpenAI-compatible endpoints over real HTTP on loopback, which misbehaves in every way on request.

    async with FakeService() as fake:
        fake.moods["chat"] = [Mood(status=500), Mood(first_byte_s=0.2)]
        ... Service("language model", "llm", fake.url) ...
        assert fake.requests[-1].json["stream"]

Endpoints: "chat" (/v1/chat/completions), "speech" (/v1/audio/speech), "transcriptions" (/v1/audio/transcriptions),
"models" (/v1/models). Moods of an endpoint are used up one a request; the last one stays.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

SPEECH_RATE = 24_000
HTML = b"<!doctype html><html><body><h1>Welcome to nginx!</h1></body></html>"
RUBBISH = bytes(range(128, 256)) * 4


@dataclass(frozen=True, slots=True)
class Mood:
    """How one request is answered.

    Attributes:
        status: other than 200 gives an error in OpenAI's form, which repeats the key and the request.
        error_code: ``error.code`` of that.
        headers: added to the answer, such as Retry-After.
        first_byte_s: wait before the headers of the answer.
        first_event_s: wait between the headers and the body.
        between_s: wait between pieces of the body.
        piece_bytes: cuts the body into pieces of this size; 0 leaves each event or block whole.
        body: sent instead of the real body.
        content_type: sent instead of the real one.
        hang_up: closes the connection without an answer.
        raw: bytes sent instead of HTTP.
        die_after: closes the connection after so many pieces, without the end of the body.
        stall_after: sends nothing more after so many pieces, but stays.
        endless: repeats the pieces for ever.
    """

    status: int = 200
    error_code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    first_byte_s: float = 0.0
    first_event_s: float = 0.0
    between_s: float = 0.0
    piece_bytes: int = 0
    body: bytes | None = None
    content_type: str | None = None
    hang_up: bool = False
    raw: bytes | None = None
    die_after: int | None = None
    stall_after: int | None = None
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived. ``form`` holds texts and the bytes of files."""

    endpoint: str
    headers: Mapping[str, str]
    json: Any = None
    form: Mapping[str, str | bytes | bytearray] = field(default_factory=dict)


class FakeService:
    """The fake; an asynchronous context manager.

    Attributes:
        reply: what the language model says; a function gets the request's JSON.
        transcript: what the recogniser hears.
        models: names of the models there are.
        key: when set, every request must carry it.
        moods: endpoint -> moods.
        requests: everything that arrived, in order.
        gone: endpoints whose client went away before the answer ended, in order.
    """

    def __init__(self) -> None:
        self.reply: str | Callable[[Any], str] = "Hello. It is a quarter past three."
        self.transcript = "what time is it"
        self.models = ["llama3.2:1b"]
        self.key = ""
        self.moods: dict[str, list[Mood]] = {}
        self.requests: list[Request] = []
        self.gone: list[str] = []
        self._left = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Base URL with /v1; still valid after ``stop``, where nobody listens then."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> FakeService:
        app = web.Application(client_max_size=64 << 20)
        self.add_routes(app)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def add_routes(self, app: web.Application) -> None:
        """Says which endpoints there are."""
        app.router.add_post("/v1/chat/completions", self.handler("chat", self._chat))
        app.router.add_post("/v1/audio/speech", self.handler("speech", self._speech))
        app.router.add_post("/v1/audio/transcriptions", self.handler("transcriptions", self._transcriptions))
        app.router.add_get("/v1/models", self.handler("models", self._models))

    async def stop(self) -> None:
        """Goes down; the port refuses connections from now on."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def wait_gone(self, timeout_s: float = 1.0) -> float:
        """Waits until a client went away; gives the seconds it took.

        Raises:
            TimeoutError: nobody did.
        """
        started_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(timeout_s):
            await self._left.wait()
        self._left.clear()
        return asyncio.get_running_loop().time() - started_s

    def handler(
        self, endpoint: str, answer: Callable[[Request], tuple[str, list[bytes]]]
    ) -> Callable[[web.Request], Any]:
        """Serves an endpoint, whose answer is a content type and the pieces of a body, in its mood."""

        async def handle(request: web.Request) -> web.StreamResponse:
            asked = await _read(endpoint, request)
            self.requests.append(asked)
            moods = self.moods.get(endpoint) or [Mood()]
            mood = moods.pop(0) if len(moods) > 1 else moods[0]
            try:
                return await self._play(request, asked, mood, answer)
            except (asyncio.CancelledError, ConnectionResetError):
                self.gone.append(endpoint)
                self._left.set()
                raise

        return handle

    async def _play(
        self, request: web.Request, asked: Request, mood: Mood, answer: Callable[[Request], tuple[str, list[bytes]]]
    ) -> web.StreamResponse:
        await asyncio.sleep(mood.first_byte_s)
        if mood.hang_up or mood.raw is not None:
            assert request.transport is not None
            request.transport.write(mood.raw or b"")
            request.transport.close()
            return web.Response()
        given = asked.headers.get("Authorization", "").removeprefix("Bearer ")
        if mood.status == 200 and self.key and given != self.key:
            mood = Mood(status=401, error_code="invalid_api_key")
        if mood.status != 200:
            message = f"Incorrect API key provided: {given}. You sent {asked.json} {dict(asked.form)}."
            error = {"message": message, "type": "error", "code": mood.error_code, "param": None}
            return web.json_response({"error": error}, status=mood.status, headers=mood.headers)
        content_type, pieces = answer(asked)
        if mood.body is not None:
            pieces = [mood.body]
        if mood.piece_bytes:
            body, size = b"".join(pieces), mood.piece_bytes
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
        response = web.StreamResponse(headers={"Content-Type": mood.content_type or content_type, **mood.headers})
        await response.prepare(request)
        await asyncio.sleep(mood.first_event_s)
        async for number, piece in _numbered(pieces, mood.endless):
            if number == mood.die_after:
                assert request.transport is not None
                request.transport.close()
                return response
            if number == mood.stall_after:
                await asyncio.sleep(3600)
            await response.write(piece)
            await asyncio.sleep(mood.between_s)
        await response.write_eof()
        return response

    def _chat(self, asked: Request) -> tuple[str, list[bytes]]:
        reply = self.reply(asked.json) if callable(self.reply) else self.reply
        if not asked.json.get("stream"):
            message = {"role": "assistant", "content": reply}
            return "application/json", [_json({"choices": [{"message": message, "finish_reason": "stop"}]})]
        events = [_delta({"role": "assistant", "content": ""})]
        events += [_delta({"content": part}) for part in _words(reply)]
        return "text/event-stream", [*events, _delta({}, "stop"), b"data: [DONE]\n\n"]

    def _speech(self, asked: Request) -> tuple[str, list[bytes]]:
        """60 ms of a tone a letter, as raw PCM in blocks of 100 ms."""
        count = SPEECH_RATE * 60 * max(1, len(asked.json["input"])) // 1000
        tone = 8000 * np.sin(2 * np.pi * 220 * np.arange(count) / SPEECH_RATE)
        pcm, block = tone.astype("<i2").tobytes(), SPEECH_RATE // 10 * 2
        return "audio/pcm", [pcm[at : at + block] for at in range(0, len(pcm), block)]

    def _transcriptions(self, asked: Request) -> tuple[str, list[bytes]]:
        return "application/json", [_json({"text": self.transcript, "language": "en"})]

    def _models(self, asked: Request) -> tuple[str, list[bytes]]:
        models = [{"id": name, "object": "model", "owned_by": "library"} for name in self.models]
        return "application/json", [_json({"object": "list", "data": models})]


async def _read(endpoint: str, request: web.Request) -> Request:
    if request.content_type == "application/json":
        return Request(endpoint, dict(request.headers), await request.json())
    if not request.content_type.startswith(("multipart/", "application/x-www-form-urlencoded")):
        return Request(endpoint, dict(request.headers))
    posted = await request.post()
    form = {name: value.file.read() if isinstance(value, web.FileField) else value for name, value in posted.items()}
    return Request(endpoint, dict(request.headers), None, form)


async def _numbered(pieces: list[bytes], endless: bool) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    while True:
        for piece in pieces:
            if not (endless and b"[DONE]" in piece):
                yield number, piece
                number += 1
        if not endless:
            return


def _words(text: str) -> list[str]:
    """Pieces as a model makes them: a word with the blank before it; letter by letter where there are no blanks."""
    parts = text.split(" ")
    words = [parts[0], *(f" {part}" for part in parts[1:])]
    return [piece for word in words for piece in ([word] if word.isascii() else list(word))]


def _delta(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    return b"data: " + _json(event) + b"\n\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
