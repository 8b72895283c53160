"""One WebSocket to a Realtime service: opened, set up, written and read; what fails on it is typed.

Place in the flow: RealtimeConversation <-> Link <-> service.

Errors are ``BackendFailed`` with the codes of ``engine.conversation.http``.

Invariants:
    * events are sent in the order they were given, and giving one never waits;
    * a link is lost once, which is told once, and it is not used again;
    * neither the key, nor the instructions, nor what was said or answered reaches a log or a message.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from engine.aio import Tasks
from engine.conversation.http import Service, Timeouts
from engine.conversation.realtime import wire
from engine.conversation.service_url import base_url
from engine.errors import BackendFailed, Closed

DEFAULT_MODEL = "gpt-realtime"
TIMEOUTS = Timeouts(connect_s=4.0, first_byte_s=10.0, next_byte_s=8.0)
PING_S = 20.0
"""Between two signs of life on a silent connection: one that died without a word is noticed soon after."""

_MAX_MESSAGE_BYTES = 16 << 20
_CLOSE_S = 1.0

_log = logging.getLogger(__name__)


class Endpoint:
    """Where the service is and how to be let in; one for all conversations."""

    def __init__(self, url: str, model: str = "", key: str = "", timeouts: Timeouts | None = None) -> None:
        """Checks the configuration; nothing is sent yet.

        Args:
            url: base URL, with http, https, ws or wss, as ``wss://api.openai.com/v1``; ``/realtime`` may follow.
            model: its name; empty for ``DEFAULT_MODEL``.
            key: secret of the service, if any.
            timeouts: patience: to connect, for the first sign of what was asked for, and between two of them.

        Raises:
            ConfigInvalid: ``service_url_invalid``, ``service_key_invalid``.
        """
        address = url.strip()
        if address.startswith(("ws://", "wss://")):
            address = "http" + address.removeprefix("ws")
        address = address.rstrip("/").removesuffix("/realtime")
        # Checks address and key, and words the errors, as for every other service.
        self._service = Service("realtime service", "llm", address, key, timeouts or TIMEOUTS)
        self.url = base_url(address, "llm_url")
        self.timeouts = self._service.timeouts
        self._model = model or DEFAULT_MODEL
        self._key = key.strip()
        self._client: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, key={'***' if self._key else 'none'})"

    def error(self, code: str, what: str, look_at: str = "", which: str = "") -> BackendFailed:
        """As ``Service.error``."""
        return self._service.error(code, what, look_at, which)

    def garbled(self, found: str) -> BackendFailed:
        """The error for what no Realtime service says; ``found`` says what it is, never quotes it."""
        what = f"gave an answer that cannot be used: {found}."
        return self.error("service_garbled", what, "url", "names a Realtime service")

    def refused(self, error: object) -> BackendFailed:
        """The typed error for the error object of an event."""
        fields = [wire.text_member(error, name) for name in ("code", "type")] if isinstance(error, dict) else []
        words = " ".join(fields).lower()
        if any(word in words for word in ("rate_limit", "quota", "overloaded", "429")):
            return self.error("service_rate_limited", "gets too many requests. Try again in a moment.")
        if any(word in words for word in ("api_key", "authentication", "permission", "401", "403")):
            return self.error("service_rejected_key", "refuses the key.", "key", "holds a valid key")
        if "model" in words:
            return self.error("service_failed", "has no such model.", "model", "is right")
        return self.error("service_failed", "reports an error. Its own log says why.")

    async def open(self) -> aiohttp.ClientWebSocketResponse:
        """Opens a WebSocket.

        Raises:
            BackendFailed: ``service_unreachable``, ``service_timeout``, ``service_rejected_key``,
                ``service_rate_limited``, ``service_failed``, ``service_garbled``.
            Closed: ``service_closed``.
        """
        if self._closed:
            raise Closed("service_closed", "The realtime service is closed.")
        if self._client is None:
            self._client = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "visavis"}
            )
        try:
            async with asyncio.timeout(self.timeouts.connect_s):
                return await self._client.ws_connect(
                    self.url + "/realtime",
                    params={"model": self._model},
                    headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
                    heartbeat=PING_S,
                    max_msg_size=_MAX_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                )
        except TimeoutError:
            raise self.error("service_timeout", "did not accept a connection in time.", "url", "is right") from None
        except aiohttp.WSServerHandshakeError as error:
            raise self._turned_away(error.status) from None
        except aiohttp.ClientSSLError:
            untrusted = "has no certificate that is trusted here."
            raise self.error("service_unreachable", untrusted, "url", "is right") from None
        except aiohttp.ClientResponseError:
            raise self.garbled("no WebSocket") from None
        except (aiohttp.ClientError, OSError):
            raise self.error("service_unreachable", "cannot be reached. Is it running?", "url", "is right") from None

    async def aclose(self) -> None:
        """Closes all connections. Idempotent."""
        self._closed = True
        if self._client is not None:
            await self._client.close()
        await self._service.aclose()

    def _turned_away(self, status: int) -> BackendFailed:
        if status in (401, 403):
            return self.error("service_rejected_key", f"refuses the key (status {status}).", "key", "holds a valid key")
        if status == 429:
            return self.error("service_rate_limited", "gets too many requests. Try again in a moment.")
        if status == 404:
            unknown = "has no such endpoint or model (status 404)."
            return self.error("service_failed", unknown, "url", "and llm_model are right")
        if 200 <= status < 300:
            return self.garbled("no WebSocket")
        return self.error("service_failed", f"failed (status {status}). Its own log says why.")


class Link:
    """One open connection that is set up.

    Args:
        endpoint: where to.
        socket: from ``Endpoint.open``.
        on_event: called with every event.
        on_lost: called once when the connection ends otherwise than by ``aclose``.

    Attributes:
        dialect: what the service speaks.
        instructions: what the service was told about itself.
        lost: nothing can be sent any more.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        socket: aiohttp.ClientWebSocketResponse,
        on_event: Callable[[wire.Event], None],
        on_lost: Callable[[Link, BackendFailed], None],
    ) -> None:
        self.dialect: wire.Dialect = "general"
        self.instructions = ""
        self.lost = False
        self._endpoint = endpoint
        self._socket = socket
        self._on_event = on_event
        self._on_lost = on_lost
        self._tasks = Tasks("realtime")
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()

    async def set_up(self, instructions: str, setting: wire.Setting) -> None:
        """Agrees with the service on how to converse; to be called first.

        Raises:
            BackendFailed: a code of ``engine.conversation.http``.
        """
        created = await self._expect("session.created")
        self.dialect = wire.dialect_of(created)
        try:
            await self._socket.send_str(json.dumps(wire.set_up(self.dialect, instructions, setting)))
        except (aiohttp.ClientError, OSError):
            raise self._broke_off() from None
        await self._expect("session.updated")
        self.instructions = instructions
        self._tasks.start(self._read(), "read")
        self._tasks.start(self._write(), "write")

    def send(self, event: wire.Event) -> None:
        """Sends an event after those before it; never waits. Nothing once lost."""
        if not self.lost:
            self._outgoing.put_nowait(json.dumps(event))

    def instruct(self, instructions: str) -> None:
        """Tells the service something else about itself."""
        if instructions != self.instructions:
            self.instructions = instructions
            self.send(wire.instruct(self.dialect, instructions))

    def give_up(self, error: BackendFailed) -> None:
        """The connection is of no use any more. Idempotent."""
        if not self.lost:
            self.lost = True
            self._on_lost(self, error)

    async def aclose(self) -> None:
        """Closes the connection. Idempotent and time-limited."""
        self.lost = True
        await self._tasks.aclose()
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close()

    async def _expect(self, kind: str) -> wire.Event:
        """Waits for one event; errors meanwhile are raised."""
        try:
            async with asyncio.timeout(self._endpoint.timeouts.first_byte_s):
                while True:
                    event = await self._receive()
                    if event["type"] == "error":
                        raise self._endpoint.refused(event.get("error"))
                    if event["type"] == kind:
                        return event
        except TimeoutError:
            what = f"did not answer within {self._endpoint.timeouts.first_byte_s:g} s."
            raise self._endpoint.error("service_timeout", what) from None

    async def _receive(self) -> wire.Event:
        try:
            message = await self._socket.receive()
        except (aiohttp.ClientError, OSError):
            raise self._broke_off() from None
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            try:
                return wire.parse(message.data)
            except ValueError:
                raise self._endpoint.garbled("no event") from None
        raise self._broke_off()

    async def _read(self) -> None:
        try:
            while True:
                self._on_event(await self._receive())
        except BackendFailed as error:
            self.give_up(error)
        except Exception:
            _log.exception("an event of the realtime service could not be taken")
            self.give_up(self._endpoint.garbled("an event of another kind"))

    async def _write(self) -> None:
        try:
            while True:
                await self._socket.send_str(await self._outgoing.get())
        except (aiohttp.ClientError, OSError):
            self.give_up(self._broke_off())

    def _broke_off(self) -> BackendFailed:
        # 3000 and 4001 are how services close a door on a wrong key that they noticed late.
        if self._socket.close_code in (3000, 4001):
            return self._endpoint.error("service_rejected_key", "refuses the key.", "key", "holds a valid key")
        return self._endpoint.error("service_failed", "broke off the connection.")
