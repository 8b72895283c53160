"""Raw sound over a WebSocket, spoken while it is produced: for agents whose voice comes from elsewhere.

Place in the flow: WebSocket -> ``PlayoutResampler`` -> ``SpeechStream`` of a session.

The conversation: a JSON hello (``schemas.PcmHello``), answered with ``ready``; then binary messages of s16le samples.
The first one begins an utterance, ``{"type": "end"}`` ends it, the next one begins another. ``{"type": "interrupt"}``
silences the session. When somebody else interrupts, the socket is told ``interrupted`` and the rest of that
utterance, up to its ``end``, is dropped.

Invariants:
    * a message that cannot be used is answered with a typed error and a close code; the session goes on;
    * sound is read no faster than it is played: the sender feels it, memory does not;
    * a sender that disappears ends its utterance, and what it sent is played.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from engine.audio.pcm import PlayoutResampler
from engine.errors import AudioInvalid, Busy, Closed, InvalidInput, VisavisError
from engine.session import SpeechStream
from server.schemas import PcmHello, explain_validation
from server.sessions import LiveSession

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1 << 18
"""2.7 s of mono sound at 48 kHz; resampling it takes a few milliseconds of the event loop."""
HELLO_TIMEOUT_S = 10.0
PING_INTERVAL_S = 10.0
CLOSE_TIMEOUT_S = 0.5
"""How long a client may take to agree to a close before it is cut off."""
SAMPLE_BYTES = 2

CLOSE_INVALID = 4400
CLOSE_SESSION_ENDED = 4404
CLOSE_TIMEOUT = 4408
CLOSE_BUSY = 4429
CLOSE_FAILED = 4500


async def serve(request: web.Request, live: LiveSession) -> web.StreamResponse:
    """Takes one socket from its upgrade to its end.

    Raises:
        InvalidInput: ``upgrade_required`` when the request is no WebSocket.
    """
    socket = web.WebSocketResponse(timeout=CLOSE_TIMEOUT_S, heartbeat=PING_INTERVAL_S, max_msg_size=MAX_MESSAGE_BYTES)
    if not socket.can_prepare(request).ok:
        raise InvalidInput("upgrade_required", "This address is a WebSocket; ask for an upgrade.")
    await socket.prepare(request)
    reader = asyncio.create_task(_PcmReader(socket, live).run(), name="pcm-socket")
    try:
        futures: list[asyncio.Future[Any]] = [reader, live.peer.ended]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if not reader.done():
            reader.cancel()
            await asyncio.wait({reader})
            await _send(socket, {"type": "error", **_error("session_ended", "The session has ended.")})
            await socket.close(code=CLOSE_SESSION_ENDED, message=b"session ended")
    finally:
        if not reader.done():
            reader.cancel()
            await asyncio.wait({reader})
    return socket


class _PcmReader:
    def __init__(self, socket: web.WebSocketResponse, live: LiveSession) -> None:
        self._socket = socket
        self._session = live.session
        self._hello: PcmHello | None = None
        self._stream: SpeechStream | None = None
        self._resampler: PlayoutResampler | None = None
        self._dropping = False

    async def run(self) -> None:
        """Reads until the socket closes; closes it itself with a code when something is wrong."""
        try:
            await self._greet()
            while await self._step():
                pass
            await self._socket.close()
        except TimeoutError:
            await self._fail("request_timeout", "The hello did not come in time.", CLOSE_TIMEOUT)
        except ValidationError as error:
            await self._fail("invalid_request", explain_validation(error), CLOSE_INVALID)
        except Busy as error:
            await self._fail(error.code, error.message, CLOSE_BUSY)
        except Closed:
            await self._fail("session_ended", "The session has ended.", CLOSE_SESSION_ENDED)
        except VisavisError as error:
            await self._fail(error.code, error.message, CLOSE_INVALID)
        except (ConnectionError, RuntimeError) as error:
            logger.debug("a PCM socket went away: %s", error)
        except Exception:
            logger.exception("a PCM socket failed")
            await self._fail("internal", "Something went wrong on the server; its log says what.", CLOSE_FAILED)
        finally:
            await self._end_utterance()

    async def _greet(self) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            raise InvalidInput("hello_missing", "Say first, as JSON, what the sound is: sample_rate and format.")
        if message.type is not WSMsgType.TEXT:
            return
        content = _parse(message.data)
        content.pop("type", None)
        hello = PcmHello.model_validate(content)
        if hello.format != "s16le":
            raise AudioInvalid("audio_format", f"The format must be s16le, not {hello.format[:20]!r}.")
        # Refuses rates and channel counts that nothing can be made of, before any sound is sent.
        PlayoutResampler(hello.sample_rate, hello.channels)
        self._hello = hello
        await _send(self._socket, {"type": "ready", "sample_rate": hello.sample_rate, "channels": hello.channels})

    async def _step(self) -> bool:
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            await self._take(message.data)
        elif message.type is WSMsgType.TEXT:
            await self._command(_parse(message.data).get("type"))
        else:
            return False
        return True

    async def _take(self, data: bytes) -> None:
        assert self._hello is not None, "sound is only read after the hello"
        frame_bytes = SAMPLE_BYTES * self._hello.channels
        if len(data) % frame_bytes:
            raise AudioInvalid(
                "audio_format", f"A message of {len(data)} bytes is not a whole number of {frame_bytes}-byte samples."
            )
        if self._dropping or not data:
            return
        if self._stream is None or self._resampler is None:
            self._stream = self._session.open_stream(live=self._hello.live)
            self._resampler = PlayoutResampler(self._hello.sample_rate, self._hello.channels)
            await _send(self._socket, {"type": "started", "utterance_id": self._stream.utterance_id})
        samples = np.frombuffer(data, "<i2").reshape(-1, self._hello.channels)
        try:
            await self._stream.push(self._resampler.push(samples))
        except Closed:
            await self._interrupted()

    async def _command(self, kind: Any) -> None:
        if kind == "end":
            await self._end_utterance()
            self._dropping = False
            await _send(self._socket, {"type": "ended"})
        elif kind == "interrupt":
            playback = await self._session.interrupt()
            self._stream = self._resampler = None
            self._dropping = False
            await _send(self._socket, {"type": "interrupted", **asdict(playback)})
        else:
            raise InvalidInput("unknown_command", f"There is no command {str(kind)[:40]!r}.")

    async def _interrupted(self) -> None:
        stream = self._stream
        self._stream = self._resampler = None
        self._dropping = True
        utterance_id = stream.utterance_id if stream is not None else 0
        await _send(self._socket, {"type": "interrupted", "utterance_id": utterance_id})

    async def _end_utterance(self) -> None:
        stream, resampler = self._stream, self._resampler
        self._stream = self._resampler = None
        if stream is None or resampler is None:
            return
        try:
            await stream.push(resampler.flush())
            await stream.end()
        except Closed:
            logger.debug("an utterance ended after it was interrupted")

    async def _fail(self, code: str, message: str, close_code: int) -> None:
        await _send(self._socket, {"type": "error", **_error(code, message)})
        await self._socket.close(code=close_code, message=code.encode())


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _parse(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("invalid_json", "The message is not JSON.") from error
    if not isinstance(content, dict):
        raise InvalidInput("invalid_json", "A message is a JSON object.")
    return content


async def _send(socket: web.WebSocketResponse, content: dict[str, Any]) -> None:
    try:
        await socket.send_json(content)
    except (ConnectionError, RuntimeError):
        # The other side is gone; the next receive says so.
        logger.debug("a PCM socket closed before it could be told %s", content.get("type"))
