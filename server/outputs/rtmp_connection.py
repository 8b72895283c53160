"""A connection that publishes one stream by RTMP (Adobe's specification 1.0), made of one socket and one reading task.

Place in the flow: ``rtmp.RtmpOutput`` -> ``RtmpConnection.send`` -> server.

Why not FFmpeg's: PyAV opens its RTMP without time-outs and cannot interrupt a write, so a server that stops reading
would hold a thread for ever; and it does not check the certificates of ``rtmps:``.

Invariants:
    * ``send`` never waits; ``backlog`` says how much the server has not taken yet, and whoever sends looks at it;
    * whatever goes wrong is a ``BackendFailed``, without the address or the stream's key in its words;
    * after ``aclose`` neither the task nor the socket is there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from engine.errors import BackendFailed
from server.outputs import amf

T = TypeVar("T")

AUDIO, VIDEO, DATA = 8, 9, 18
"""Types of messages that carry a stream."""

OPEN_TIMEOUT_S = 8.0
"""From the first packet to a stream that may be sent."""
CLOSE_TIMEOUT_S = 1.0
CHUNK_BYTES = 4096
MESSAGE_LIMIT = 1 << 20
"""Longest message taken from a server; its words are a few hundred bytes."""

_SET_CHUNK, _USER_CONTROL, _WINDOW, _PEER_BANDWIDTH, _ACKNOWLEDGEMENT, _COMMAND = 1, 4, 5, 6, 3, 20
_PING_REQUEST, _PING_RESPONSE = 6, 7
_HANDSHAKE = 1536
_EXTENDED = 0xFFFFFF
_CHANNELS = {AUDIO: 4, VIDEO: 6, DATA: 5, _COMMAND: 3}
"""Chunk stream of each type of message; 2 is the protocol's own."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a stream goes: server, application and key.

    Attributes:
        url: of the application, as servers want to be told it.
    """

    host: str
    port: int
    tls: bool
    app: str
    key: str
    url: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """``rtmp://host[:port]/application/key``; of a path of one part, all is the application, as MediaMTX has it."""
        parts = urlsplit(url)
        tls = parts.scheme == "rtmps"
        path = parts.path.strip("/") + (f"?{parts.query}" if parts.query else "")
        before, slash, _last = path.partition("?")[0].rpartition("/")
        app, key = (before, path[len(before) + 1 :]) if slash else (path, "")
        port = parts.port or (443 if tls else 1935)
        return cls(parts.hostname or "", port, tls, app, key, f"{parts.scheme}://{parts.netloc}/{app}")


@dataclass(slots=True)
class _Incoming:
    """A message that is arriving in chunks, and the header its next chunks refer to."""

    length: int = 0
    kind: int = 0
    extended: bool = False
    data: bytearray = field(default_factory=bytearray)


class RtmpConnection:
    """One publishing connection; make it with ``open``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Args: reader, writer: a connected socket."""
        self._reader = reader
        self._writer = writer
        self._answers: dict[int, asyncio.Future[list[amf.Value]]] = {}
        self._published: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = 0
        self._window = 0
        self._received = 0
        self._acknowledged = 0
        self.ended: asyncio.Future[BackendFailed] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when the server takes no more."""
        self.sent_bytes = 0
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, address: Address) -> RtmpConnection:
        """Connects and begins to publish.

        Raises:
            BackendFailed: ``publish_unreachable``, ``publish_refused``, ``publish_timeout``.
        """
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                context = ssl.create_default_context() if address.tls else None
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
                connection = cls(reader, writer)
                try:
                    await connection._begin(address)
                except BaseException:
                    await connection.aclose()
                    raise
                return connection
        except TimeoutError:
            raise BackendFailed("publish_timeout", "The server did not answer in time.") from None
        except (OSError, EOFError) as error:
            raise BackendFailed("publish_unreachable", f"The server cannot be reached: {_why(error)}.") from None

    @property
    def backlog(self) -> int:
        """Bytes that were sent and that the operating system has not taken yet."""
        return self._writer.transport.get_write_buffer_size()

    def limit(self, buffer_bytes: int) -> None:
        """Bounds what the operating system holds back for us, so that ``backlog`` tells early."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)

    def send(self, kind: int, time_ms: int, payload: bytes) -> None:
        """Sends a message of the stream: ``AUDIO``, ``VIDEO`` or ``DATA``; never waits."""
        self._message(kind, payload, time_ms, self._stream)

    async def aclose(self) -> None:
        """Says goodbye and closes; bounded in time, idempotent. Cancellation closes without waiting."""
        if self._stream and not self.ended.done() and not self._writer.is_closing():
            self._command("deleteStream", 0, None, self._stream)
        self._end("closed")
        try:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.wait([self._reading])
            self._writer.close()
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()
        except BaseException:
            # Until the server took what waits, which it may never do, the socket would be there.
            self._writer.transport.abort()
            raise

    async def _begin(self, address: Address) -> None:
        await self._shake_hands()
        self._reading = asyncio.create_task(self._read(), name="rtmp-read")
        self._message(_SET_CHUNK, struct.pack(">I", CHUNK_BYTES), channel=2)
        about = {"app": address.app, "type": "nonprivate", "flashVer": "FMLE/3.0 (compatible; Visavis)"}
        await self._ask("connect", 1, about | {"tcUrl": address.url})
        # Some servers want the two first, none minds them; nobody waits for their answers.
        self._command("releaseStream", 2, None, address.key)
        self._command("FCPublish", 3, None, address.key)
        answer = await self._ask("createStream", 4, None)
        number = answer[1] if len(answer) > 1 else None
        if not isinstance(number, float) or not 0 < number < 1 << 32:
            raise BackendFailed("publish_refused", "The server gave no stream.")
        self._stream = int(number)
        self._command("publish", 5, None, address.key, "live", stream=self._stream)
        await self._unless_ended(self._published)

    async def _shake_hands(self) -> None:
        ours = bytes(8) + os.urandom(_HANDSHAKE - 8)
        self._writer.write(b"\x03" + ours)
        if (await self._reader.readexactly(1)) != b"\x03":
            raise BackendFailed("publish_refused", "What answers there does not speak RTMP.")
        self._writer.write(await self._reader.readexactly(_HANDSHAKE))
        await self._reader.readexactly(_HANDSHAKE)

    async def _ask(self, name: str, number: int, *values: dict[str, str] | None) -> list[amf.Value]:
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        self._command(name, number, *values)
        return await self._unless_ended(answer)

    async def _unless_ended(self, answer: asyncio.Future[T]) -> T:
        waiting: list[asyncio.Future[Any]] = [answer, self.ended]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise self.ended.result()
        return answer.result()

    def _command(self, name: str, number: int, *values: dict[str, str] | str | float | None, stream: int = 0) -> None:
        self._message(_COMMAND, amf.encode(name, number, *values), stream=stream)

    def _message(self, kind: int, payload: bytes, time_ms: int = 0, stream: int = 0, channel: int = 0) -> None:
        channel = channel or _CHANNELS[kind]
        time_ms &= 0xFFFFFFFF
        late = struct.pack(">I", time_ms) if time_ms >= _EXTENDED else b""
        header = min(time_ms, _EXTENDED).to_bytes(3, "big") + len(payload).to_bytes(3, "big") + bytes([kind])
        parts = [bytes([channel]), header, struct.pack("<I", stream), late, payload[:CHUNK_BYTES]]
        for at in range(CHUNK_BYTES, len(payload), CHUNK_BYTES):
            parts += [bytes([0xC0 | channel]), late, payload[at : at + CHUNK_BYTES]]
        if not self._writer.is_closing():
            data = b"".join(parts)
            self.sent_bytes += len(data)
            self._writer.write(data)

    async def _read(self) -> None:
        try:
            chunk_bytes = 128
            arriving: dict[int, _Incoming] = {}
            while True:
                first = (await self._take(1))[0]
                channel = first & 0x3F
                if channel < 2:
                    wide = await self._take(channel + 1)
                    channel = 64 + int.from_bytes(wide, "little")
                message = arriving.setdefault(channel, _Incoming())
                await self._header(first >> 6, message)
                message.data += await self._take(min(chunk_bytes, message.length - len(message.data)))
                if len(message.data) == message.length:
                    data, message.data = bytes(message.data), bytearray()
                    if message.kind == _SET_CHUNK and len(data) == 4:
                        chunk_bytes = max(1, int.from_bytes(data, "big") & 0x7FFFFFFF)
                    else:
                        self._take_message(message.kind, data)
        except BackendFailed as error:
            self._end(str(error), error)
        except (OSError, EOFError):
            self._end("The server closed the connection.")
        except (ValueError, OverflowError):
            self._end("The server said what is no RTMP.")

    async def _take(self, count: int) -> bytes:
        data = await self._reader.readexactly(count)
        self._received += count
        if self._window and self._received - self._acknowledged >= self._window // 2:
            self._acknowledged = self._received
            self._message(_ACKNOWLEDGEMENT, struct.pack(">I", self._received & 0xFFFFFFFF), channel=2)
        return data

    async def _header(self, form: int, message: _Incoming) -> None:
        if form < 3:
            head = await self._take((11, 7, 3)[form])
            message.extended = head[:3] == b"\xff\xff\xff"
            if form < 2:
                message.length, message.kind = int.from_bytes(head[3:6], "big"), head[6]
            if message.length > MESSAGE_LIMIT:
                raise ValueError("a message that is too long")
        if message.extended:
            await self._take(4)

    def _take_message(self, kind: int, data: bytes) -> None:
        if kind == _USER_CONTROL and data[:2] == struct.pack(">H", _PING_REQUEST):
            self._message(_USER_CONTROL, struct.pack(">H", _PING_RESPONSE) + data[2:6], channel=2)
        elif kind == _WINDOW and len(data) == 4:
            self._window = int.from_bytes(data, "big")
        elif kind == _COMMAND:
            self._take_command(amf.decode(data))

    def _take_command(self, values: list[amf.Value]) -> None:
        if len(values) < 2:
            return
        name, number, rest = values[0], values[1], values[2:]
        if name in ("_result", "_error") and isinstance(number, float):
            answer = self._answers.pop(int(number), None)
            if name == "_error" and answer is not None:
                raise BackendFailed("publish_refused", f"The server refused: {_reason(rest)}.")
            if answer is not None and not answer.done():
                answer.set_result(rest)
        elif name == "onStatus":
            about = rest[-1] if rest else None
            code = about.get("code") if isinstance(about, dict) else None
            if isinstance(about, dict) and about.get("level") == "error":
                raise BackendFailed("publish_refused", f"The server refused: {_reason(rest)}.")
            if code == "NetStream.Publish.Start" and not self._published.done():
                self._published.set_result(None)

    def _end(self, said: str, error: BackendFailed | None = None) -> None:
        if not self.ended.done():
            self.ended.set_result(error or BackendFailed("publish_lost", said))


def _why(error: OSError | EOFError) -> str:
    """What went wrong, in words that cannot hold the address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "its certificate is not good for its name"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS there"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return "it hung up"


def _reason(values: list[amf.Value]) -> str:
    # Only the code: descriptions repeat the stream's key.
    about = values[-1] if values else None
    code = about.get("code") if isinstance(about, dict) else None
    return code[:80] if isinstance(code, str) else "without a reason"
