"""A fake of OpenAI's Realtime interface over a real WebSocket on loopback, strict as the real one, rude on request.

    async with FakeRealtime() as fake:
        fake.transcripts, fake.answers = ["what time is it"], ["It is noon. Really."]
        ... Endpoint(fake.url, key=fake.key) ...
        assert fake.texts() == [("user", "what time is it"), ("assistant", "It is noon. Really.")]

It refuses what the real one refuses: a second answer while one is made, items it does not know, ids used twice, sound
cut behind its end. Moods are used up one a connection; the last one stays.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

RATE = 24_000
WORD_MS = 100


@dataclass(frozen=True, slots=True)
class Mood:
    """How one connection goes.

    Attributes:
        status: other than 200 refuses the handshake.
        late_rejection: accepts the handshake, then refuses the key.
        silent: says nothing at all.
        rubbish: sends what is no event in the place of the first one.
        refuse_session: refuses to be set up.
        connect_s: wait before the handshake is answered.
        first_s: wait before an answer begins.
        between_s: wait between two words of an answer.
        transcript_s: wait before a transcript.
        die_after: hangs up after so many words of an answer.
        stall_after: says nothing more after so many words of an answer.
        bad_sound: sends sound that is none.
        answer_error: code an answer fails with.
        transcript_error: code a transcript fails with.
        die_on_commit: hangs up when a turn is committed.
        deaf_to_cancel: goes on with answers it was told to end.
        silent_answers: answers have no sound.
    """

    status: int = 200
    late_rejection: bool = False
    silent: bool = False
    rubbish: bool = False
    refuse_session: bool = False
    connect_s: float = 0.0
    first_s: float = 0.0
    between_s: float = 0.0
    transcript_s: float = 0.0
    die_after: int | None = None
    stall_after: int | None = None
    bad_sound: bool = False
    answer_error: str = ""
    transcript_error: str = ""
    die_on_commit: bool = False
    deaf_to_cancel: bool = False
    silent_answers: bool = False


@dataclass
class Item:
    """An item of a conversation."""

    item_id: str
    role: str
    text: str
    sound: bytes = b""
    heard_ms: int | None = None


@dataclass
class Connection:
    """What happened on one connection."""

    mood: Mood
    socket: web.WebSocketResponse
    session: dict[str, Any] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    buffer: bytes = b""
    response: str = ""
    task: asyncio.Task[None] | None = None

    def count(self, kind: str) -> int:
        return sum(event["type"] == kind for event in self.events)


class FakeRealtime:
    """The fake; an asynchronous context manager.

    Attributes:
        beta: speaks the beta's dialect.
        key: every connection must carry it, when set.
        transcripts: words of the turns, in order; the last one stays.
        answers: in order; the last one stays.
        asked: what each answer was asked for: the conversation at that moment.
        connections: all of them.
        errors: codes of the errors it sent.
    """

    def __init__(self, *moods: Mood, beta: bool = False) -> None:
        self.beta = beta
        self.key = "sk-secret"
        self.moods = list(moods) or [Mood()]
        self.transcripts = ["what time is it"]
        self.answers = ["It is noon. Really."]
        self.asked: list[list[tuple[str, str]]] = []
        self.connections: list[Connection] = []
        self.errors: list[str] = []
        self.port = 0
        self._ids = itertools.count(1)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1"

    @property
    def last(self) -> Connection:
        return self.connections[-1]

    def texts(self) -> list[tuple[str, str]]:
        """The last connection's conversation."""
        return [(item.role, item.text) for item in self.last.items]

    async def __aenter__(self) -> FakeRealtime:
        app = web.Application()
        app.router.add_get("/v1/realtime", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Goes down; nobody listens at its port any more."""
        if self._runner is not None:
            for connection in self.connections:
                await self.hang_up(connection)
            await self._runner.cleanup()
            self._runner = None

    async def hang_up(self, connection: Connection) -> None:
        """The connection dies without a word."""
        if connection.task is not None:
            connection.task.cancel()
        transport = connection.socket._req.transport if connection.socket._req is not None else None
        if transport is not None:
            transport.abort()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        mood = self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]
        await asyncio.sleep(mood.connect_s)
        if mood.status != 200:
            return web.json_response({"error": {"message": f"no: {dict(request.headers)}"}}, status=mood.status)
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"code": "invalid_api_key"}}, status=401)
        assert request.query["model"]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        connection = Connection(mood, socket)
        self.connections.append(connection)
        if mood.late_rejection:
            await self._error(connection, "invalid_api_key")
            await socket.close(code=3000)
            return socket
        if mood.rubbish:
            await socket.send_str("<html>hello</html>")
        elif not mood.silent:
            kind = {"modalities": ["text"]} if self.beta else {"type": "realtime", "audio": {}}
            await self._tell(connection, "session.created", session={"id": "sess_1", **kind})
        async for message in socket:
            if message.type == WSMsgType.TEXT and not mood.silent:
                event = json.loads(message.data)
                connection.events.append(event)
                await self._take(connection, event)
        if connection.task is not None:
            connection.task.cancel()
        return socket

    async def _take(self, connection: Connection, event: dict[str, Any]) -> None:
        match event["type"]:
            case "session.update":
                if connection.mood.refuse_session:
                    await self._error(connection, "invalid_value", event)
                    return
                assert ("modalities" in event["session"]) <= self.beta
                assert self.beta or event["session"]["type"] == "realtime"
                connection.session.update(event["session"])
                await self._tell(connection, "session.updated", session=connection.session)
            case "input_audio_buffer.append":
                connection.buffer += base64.b64decode(event["audio"])
            case "input_audio_buffer.clear":
                connection.buffer = b""
            case "input_audio_buffer.commit":
                await self._commit(connection, event)
            case "conversation.item.create":
                await self._create(connection, event)
            case "conversation.item.delete" | "conversation.item.truncate":
                await self._change(connection, event)
            case "response.create":
                if connection.response:
                    await self._error(connection, "conversation_already_has_active_response", event)
                else:
                    connection.response = f"resp_{next(self._ids)}"
                    connection.task = asyncio.create_task(self._answer(connection, connection.response))
            case "response.cancel":
                if not connection.response:
                    await self._error(connection, "response_cancel_not_active", event)
                elif connection.task is not None and not connection.mood.deaf_to_cancel:
                    connection.task.cancel()
            case other:
                raise AssertionError(f"no such event: {other}")

    async def _commit(self, connection: Connection, event: dict[str, Any]) -> None:
        mood = connection.mood
        if mood.die_on_commit:
            await self.hang_up(connection)
            return
        if len(connection.buffer) < RATE * 2 // 10:
            await self._error(connection, "input_audio_buffer_commit_empty", event)
            return
        text = self.transcripts.pop(0) if len(self.transcripts) > 1 else self.transcripts[0]
        item = Item(f"item_{next(self._ids)}", "user", text, connection.buffer)
        connection.buffer = b""
        connection.items.append(item)
        await self._tell(connection, "input_audio_buffer.committed", item_id=item.item_id)
        asyncio.get_running_loop().call_later(
            mood.transcript_s, lambda: asyncio.ensure_future(self._transcribe(connection, item))
        )

    async def _transcribe(self, connection: Connection, item: Item) -> None:
        about = "conversation.item.input_audio_transcription"
        if connection.socket.closed:
            return
        if code := connection.mood.transcript_error:
            await self._tell(connection, f"{about}.failed", item_id=item.item_id, error={"code": code})
        else:
            await self._tell(connection, f"{about}.completed", item_id=item.item_id, transcript=item.text + "\n")

    async def _create(self, connection: Connection, event: dict[str, Any]) -> None:
        made = event["item"]
        [part] = made["content"]
        expected = "input_text" if made["role"] == "user" else "text" if self.beta else "output_text"
        assert part["type"] == expected
        ids = [item.item_id for item in connection.items]
        before = event.get("previous_item_id")
        if made["id"] in ids or len(made["id"]) > 32 or (before not in (None, "root") and before not in ids):
            await self._error(connection, "invalid_value", event)
            return
        at = len(ids) if before is None else 0 if before == "root" else ids.index(before) + 1
        connection.items.insert(at, Item(made["id"], made["role"], part["text"]))

    async def _change(self, connection: Connection, event: dict[str, Any]) -> None:
        item = next((item for item in connection.items if item.item_id == event["item_id"]), None)
        if item is None:
            await self._error(connection, "item_not_found", event)
        elif event["type"] == "conversation.item.delete":
            connection.items.remove(item)
        elif event["audio_end_ms"] > len(item.sound) // 2 * 1000 // RATE:
            await self._error(connection, "invalid_value", event)
        else:
            item.heard_ms = event["audio_end_ms"]

    async def _answer(self, connection: Connection, response_id: str) -> None:
        """One answer: a word is 100 ms of sound, its transcript goes before it."""
        mood, item = connection.mood, Item(f"item_{next(self._ids)}", "assistant", "")
        sound, words = (
            ("response.audio.delta", "response.audio_transcript.delta")
            if self.beta
            else ("response.output_audio.delta", "response.output_audio_transcript.delta")
        )
        about = {"response_id": response_id, "item_id": item.item_id}
        status, details = "completed", None
        self.asked.append([(item.role, item.text) for item in connection.items])
        try:
            await self._tell(connection, "response.created", response={"id": response_id, "status": "in_progress"})
            await asyncio.sleep(mood.first_s)
            if mood.answer_error:
                status, details = "failed", {"error": {"code": mood.answer_error, "message": "sk-secret"}}
            else:
                connection.items.append(item)
                await self._tell(connection, "response.output_item.added", **about, item={"id": item.item_id})
                text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                for number, word in enumerate(text.split()):
                    if number == mood.die_after:
                        await self.hang_up(connection)
                        return
                    if number == mood.stall_after:
                        await asyncio.sleep(3600)
                    item.text = f"{item.text} {word}".strip()
                    await self._tell(connection, words, **about, delta=word + " ")
                    piece = _word(number)
                    item.sound += piece
                    if not mood.silent_answers:
                        delta = "?!" if mood.bad_sound else base64.b64encode(piece).decode()
                        await self._tell(connection, sound, **about, delta=delta)
                    await asyncio.sleep(mood.between_s)
        except asyncio.CancelledError:
            status = "cancelled"
        connection.response = ""
        if not connection.socket.closed:
            done = {"id": response_id, "status": status, "status_details": details}
            await self._tell(connection, "response.done", response=done)

    async def _error(self, connection: Connection, code: str, event: dict[str, Any] | None = None) -> None:
        self.errors.append(code)
        error = {"type": "invalid_request_error", "code": code, "message": f"about {event} with {self.key}"}
        await self._tell(connection, "error", error={**error, "event_id": (event or {}).get("event_id")})

    async def _tell(self, connection: Connection, kind: str, **members: Any) -> None:
        if not connection.socket.closed:
            event = {"type": kind, "event_id": f"event_{next(self._ids)}", **members}
            await connection.socket.send_str(json.dumps(event))


def _word(number: int) -> bytes:
    time_s = np.arange(RATE * WORD_MS // 1000) / RATE
    tone = 8000 * np.sin(2 * np.pi * (180 + 10 * (number % 8)) * time_s)
    return tone.astype("<i2").tobytes()
