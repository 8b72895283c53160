"""A small RTMP server for tests: it takes what is published, checks every message, and can misbehave."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field

from server.outputs import amf

AUDIO, VIDEO, DATA, COMMAND = 8, 9, 18, 20


@dataclass
class Message:
    kind: int
    time_ms: int
    stream: int
    data: bytes


@dataclass
class RtmpReceiver:
    """Use as an async context manager.

    Attributes:
        refuse: code of the status that answers ``publish``, instead of its start.
        mute: does not even answer the handshake.
        messages: of streams; commands: names and values of commands; pongs: what came of the pings.
    """

    refuse: str = ""
    mute: bool = False
    port: int = 0
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    messages: list[Message] = field(default_factory=list)
    commands: list[list[amf.Value]] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def __aenter__(self) -> RtmpReceiver:
        self.reads.set()
        self._writers: list[asyncio.StreamWriter] = []
        # A small buffer, so that who is not read from notices soon.
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 14)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.hang_up()
        await asyncio.sleep(0)

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    @property
    def url(self) -> str:
        return f"rtmp://127.0.0.1:{self.port}/live/the-key?sign=1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            assert await reader.readexactly(1) == b"\x03"
            theirs = await reader.readexactly(1536)
            if self.mute:
                while await reader.read(1 << 16):
                    pass
                return
            ours = bytes(8) + bytes(range(256)) * 5 + bytes(248)
            writer.write(b"\x03" + ours + theirs)
            assert await reader.readexactly(1536) == ours
            await self._listen(reader, writer)
        except (EOFError, OSError):
            return

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chunk_bytes = 128
        heads: dict[int, list[int]] = {}
        bodies: dict[int, bytearray] = {}
        # Window of 5,000 bytes, then a ping, in chunks of every form.
        writer.write(b"\x02" + bytes(3) + b"\0\0\4\5" + bytes(4) + struct.pack(">I", 5000))
        writer.write(b"\x42" + bytes(3) + b"\0\0\6\4" + b"\0\6" + b"ping")
        while True:
            await self.reads.wait()
            first = (await reader.readexactly(1))[0]
            form, channel = first >> 6, first & 0x3F
            head = await reader.readexactly((11, 7, 3, 0)[form])
            if form == 0:
                time_ms, length = int.from_bytes(head[:3], "big"), int.from_bytes(head[3:6], "big")
                heads[channel] = [time_ms, length, head[6], int.from_bytes(head[7:], "little"), time_ms == 0xFFFFFF]
            assert form in (0, 3), "only whole headers and continuations are sent"
            about, body = heads[channel], bodies.setdefault(channel, bytearray())
            if about[4]:
                late = int.from_bytes(await reader.readexactly(4), "big")
                about[0] = late
            body += await reader.readexactly(min(chunk_bytes, about[1] - len(body)))
            if len(body) < about[1]:
                continue
            data, bodies[channel] = bytes(body), bytearray()
            if about[2] == 1:
                chunk_bytes = int.from_bytes(data, "big")
            elif about[2] == 4:
                self.pongs.append(data)
            elif about[2] == COMMAND:
                self._command(amf.decode(data), writer)
            elif about[2] in (AUDIO, VIDEO, DATA):
                self.messages.append(Message(about[2], about[0], about[3], data))

    def _command(self, values: list[amf.Value], writer: asyncio.StreamWriter) -> None:
        self.commands.append(values)
        name, number = values[0], float(values[1])
        if name == "connect":
            _say(writer, "_result", number, {"fmsVer": "FMS/3"}, {"code": "NetConnection.Connect.Success"})
        elif name == "createStream":
            _say(writer, "_result", number, None, 7.0)
        elif name == "publish" and self.refuse:
            _say(writer, "onStatus", 0.0, None, {"level": "error", "code": self.refuse, "description": "the-key"})
        elif name == "publish":
            _say(writer, "onStatus", 0.0, None, {"level": "status", "code": "NetStream.Publish.Start"})


def _say(writer: asyncio.StreamWriter, *values: object) -> None:
    data = amf.encode(*values)
    head = b"\x03" + bytes(3) + len(data).to_bytes(3, "big") + bytes([COMMAND]) + bytes(4)
    pieces = [data[at : at + 128] for at in range(0, len(data), 128)]
    writer.write(head + b"\xc3".join(pieces))
