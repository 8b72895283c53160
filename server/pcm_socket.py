"""Raw sound over a WebSocket, spoken while it is produced: for agents whose voice comes from elsewhere.

Place in the flow: WebSocket -> ``Backlog`` -> ``PlayoutResampler`` -> ``SpeechStream`` of a session.

The conversation: a JSON hello (``schemas.PcmHello``), answered with ``ready``; then binary messages of s16le samples.
The first one begins an utterance, ``{"type": "end"}`` ends it, the next one begins another. ``{"type": "interrupt"}``
silences the session. When somebody else interrupts, the socket is told ``interrupted`` and the rest of that
utterance, up to its ``end``, is dropped.

One task reads and another one pushes: pushing waits while much is ahead, reading never does, so that an interrupt is
obeyed at once and the pongs of a healthy sender are seen however much of its sound waits.

Invariants:
    * a message that cannot be used is answered with a typed error and a close code; the session goes on;
    * no more than ``BACKLOG_S`` or ``BACKLOG_BYTES`` of sound waits; a sender that overfills it is told, and the rest
      of that utterance is dropped;
    * each ``end`` is answered with ``ended``, in order and after its sound was handed over or dropped;
    * a sender that disappears ends its utterance, and what it sent is played.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from engine.audio.pcm import PlayoutResampler
from engine.errors import AudioInvalid, Busy, Closed, InvalidInput, VisavisError
from engine.session import Session
from engine.speech import SpeechStream
from server.backlog import Backlog
from server.live_session import LiveSession
from server.schemas import PcmHello, explain_validation

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1 << 18
"""2.7 s of mono sound at 48 kHz."""
HELLO_TIMEOUT_S = 10.0
PING_INTERVAL_S = 10.0
CLOSE_TIMEOUT_S = 0.5
"""How long a client may take to agree to a close before it is cut off."""
SAMPLE_BYTES = 2
BACKLOG_S = 120.0
BACKLOG_BYTES = 16_000_000
"""What one socket may have waiting, beside the 20 s that its utterance holds; whichever of the two is less."""
STEP_S = 0.25
"""Sound is resampled in steps of this length, a millisecond or so each, so that frames leave in between."""

CLOSE_INVALID = 4400
CLOSE_SESSION_ENDED = 4404
CLOSE_TIMEOUT = 4408
CLOSE_BUSY = 4429
CLOSE_FAILED = 4500

T = TypeVar("T")


async def serve(request: web.Request, live: LiveSession) -> web.StreamResponse:
    """Takes one socket from its upgrade to its end, and what it sent to where it was handed over.

    Raises:
        InvalidInput: ``upgrade_required`` when the request is no WebSocket.
    """
    socket = web.WebSocketResponse(timeout=CLOSE_TIMEOUT_S, heartbeat=PING_INTERVAL_S, max_msg_size=MAX_MESSAGE_BYTES)
    if not socket.can_prepare(request).ok:
        raise InvalidInput("upgrade_required", "This address is a WebSocket; ask for an upgrade.")
    await socket.prepare(request)
    work = asyncio.create_task(_converse(socket, live.session), name="pcm-socket")
    try:
        futures: list[asyncio.Future[Any]] = [work, live.ended]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            await _cancelled(work)
            await _send(socket, {"type": "error", **_error("session_ended", "The session has ended.")})
            await socket.close(code=CLOSE_SESSION_ENDED, message=b"session ended")
    finally:
        await _cancelled(work)
    return socket


async def _converse(socket: web.WebSocketResponse, session: Session) -> None:
    hello = await _guarded(socket, _greet(socket))
    if hello is not None:
        await _PcmSocket(socket, session, hello).run()


async def _guarded(socket: web.WebSocketResponse, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of work on a socket; whatever is wrong closes it with a code, which every reader sees, and is None."""
    try:
        return await work
    except TimeoutError:
        await _fail(socket, "request_timeout", "The hello did not come in time.", CLOSE_TIMEOUT)
    except ValidationError as error:
        await _fail(socket, "invalid_request", explain_validation(error), CLOSE_INVALID)
    except Busy as error:
        await _fail(socket, error.code, error.message, CLOSE_BUSY)
    except Closed:
        await _fail(socket, "session_ended", "The session has ended.", CLOSE_SESSION_ENDED)
    except VisavisError as error:
        await _fail(socket, error.code, error.message, CLOSE_INVALID)
    except (ConnectionError, RuntimeError) as error:
        logger.debug("a PCM socket went away: %s", error)
    except Exception:
        logger.exception("a PCM socket failed")
        await _fail(socket, "internal", "Something went wrong on the server; its log says what.", CLOSE_FAILED)
    return None


async def _greet(socket: web.WebSocketResponse) -> PcmHello | None:
    """Reads and answers the hello; None when the client left instead."""
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        message = await socket.receive()
    if message.type is WSMsgType.BINARY:
        raise InvalidInput("hello_missing", "Say first, as JSON, what the sound is: sample_rate and format.")
    if message.type is not WSMsgType.TEXT:
        return None
    content = _parse(message.data)
    content.pop("type", None)
    hello = PcmHello.model_validate(content)
    if hello.format != "s16le":
        raise AudioInvalid("audio_format", f"The format must be s16le, not {hello.format[:20]!r}.")
    # Refuses rates and channel counts that nothing can be made of, before any sound is sent.
    PlayoutResampler(hello.sample_rate, hello.channels)
    await _send(socket, {"type": "ready", "sample_rate": hello.sample_rate, "channels": hello.channels})
    return hello


class _PcmSocket:
    """A socket after its hello: the caller's task reads, one of its own pushes."""

    def __init__(self, socket: web.WebSocketResponse, session: Session, hello: PcmHello) -> None:
        self._socket = socket
        self._session = session
        self._hello = hello
        self._frame_bytes = SAMPLE_BYTES * hello.channels
        limit_bytes = int(min(BACKLOG_BYTES, BACKLOG_S * hello.sample_rate * self._frame_bytes))
        self._backlog = Backlog(limit_bytes)
        self._pusher = self._start_pusher()
        self._overflowed = False
        # What is being pushed.
        self._stream: SpeechStream | None = None
        self._resampler: PlayoutResampler | None = None
        self._dropping = False

    async def run(self) -> None:
        """Reads until the socket closes, then waits until what was sent is handed over."""
        try:
            await _guarded(self._socket, self._read())
            self._backlog.finish()
            await asyncio.wait({self._pusher})
        finally:
            await _cancelled(self._pusher)
            if self._stream is not None:
                await self._stream.end()

    # Reading ------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while await self._step():
            pass
        await self._socket.close()

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
        if len(data) % self._frame_bytes:
            raise AudioInvalid(
                "audio_format", f"A message of {len(data)} bytes is not a whole number of {self._frame_bytes}-byte"
                " samples."
            )
        if self._overflowed or self._backlog.put(data):
            return
        self._overflowed = True
        message = (
            f"{self._backlog.limit_bytes} bytes of sound are waiting to be played, so the rest of this utterance is"
            " dropped. Send no faster than it is played, or use live."
        )
        await _send(self._socket, {"type": "error", **_error("pcm_overflow", message)})

    async def _command(self, kind: Any) -> None:
        if kind == "end":
            self._overflowed = False
            self._backlog.end()
        elif kind == "interrupt":
            await self._interrupt()
        else:
            raise InvalidInput("unknown_command", f"There is no command {str(kind)[:40]!r}.")

    async def _interrupt(self) -> None:
        self._backlog.drop_sound()
        # First, or it would take our own interrupt for somebody else's.
        await _cancelled(self._pusher)
        playback = await self._session.interrupt()
        self._stream = self._resampler = None
        self._dropping = self._overflowed = False
        await _send(self._socket, {"type": "interrupted", **asdict(playback)})
        self._pusher = self._start_pusher()

    # Pushing ------------------------------------------------------------------------------------------------------

    def _start_pusher(self) -> asyncio.Task[None]:
        return asyncio.create_task(_guarded(self._socket, self._push_all()), name="pcm-socket-push")

    async def _push_all(self) -> None:
        """Hands over what waits until no more comes."""
        step_bytes = self._frame_bytes * int(STEP_S * self._hello.sample_rate)
        while await self._backlog.wait():
            if data := self._backlog.take(step_bytes):
                await self._push(data)
                # Pushing live sound never waits; reading must have its turn all the same.
                await asyncio.sleep(0)
            else:
                await self._end_utterance()
                self._dropping = False
                # Only now: an interrupt during the flush must leave the end to be answered.
                self._backlog.take_end()
                await _send(self._socket, {"type": "ended"})
        await self._end_utterance()

    async def _push(self, data: bytes) -> None:
        if self._dropping:
            return
        if self._stream is None or self._resampler is None:
            self._stream = self._session.open_stream(live=self._hello.live)
            self._resampler = PlayoutResampler(self._hello.sample_rate, self._hello.channels)
            await _send(self._socket, {"type": "started", "utterance_id": self._stream.utterance_id})
        samples = np.frombuffer(data, "<i2").reshape(-1, self._hello.channels)
        try:
            await self._stream.push(self._resampler.push(samples))
        except Closed:
            utterance_id = self._stream.utterance_id
            self._stream = self._resampler = None
            self._dropping = True
            await _send(self._socket, {"type": "interrupted", "utterance_id": utterance_id})

    async def _end_utterance(self) -> None:
        stream, resampler = self._stream, self._resampler
        if stream is None or resampler is None:
            return
        try:
            await stream.push(resampler.flush())
            await stream.end()
        except Closed:
            logger.debug("an utterance ended after it was interrupted")
        self._stream = self._resampler = None


async def _fail(socket: web.WebSocketResponse, code: str, message: str, close_code: int) -> None:
    await _send(socket, {"type": "error", **_error(code, message)})
    await socket.close(code=close_code, message=code.encode())


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits for its end; nothing when it has ended."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


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
