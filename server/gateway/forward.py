"""Passes a request on to a worker and its answer back, both as they come: bodies, events, WebSockets.

Place in the flow: gateway's routing -> ``Forwarder`` -> a worker -> the client.

Invariants:
    * nothing is kept whole: bodies stream in both directions, as fast as the slower side reads;
    * headers that belong to one connection end here (RFC 9110, 7.6.1), and what let a client in is not passed on;
    * no header of a client can stand in for the gateway's own word to its workers;
    * a worker that vanishes in the middle of an answer cuts the client's connection: half an answer never looks whole;
    * what is wrong with a body is never laid at the worker's door.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict, CIMultiDictProxy

from engine.errors import BackendFailed, Closed, InvalidInput, NotFound, VisavisError
from server.gateway.fleet import WorkerState
from server.gateway.links import CONNECT_S, LOST, Links, WorkerLost
from server.worker.wire import SECRET_HEADER

logger = logging.getLogger(__name__)

SILENCE_S = 180.0
"""How long a worker may say nothing: decoding a large file takes a while, and events beat every 15 s."""
UPLOAD_S = 150.0
"""How long a client may take to send a body."""
CHUNK_BYTES = 1 << 16
MAX_MESSAGE_BYTES = 1 << 20
"""Of a WebSocket; workers have smaller limits of their own, and say so."""
SOCKET_PING_S = 10.0
SOCKET_CLOSE_S = 0.5

HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_NOT_PASSED_ON = HOP_BY_HOP | {"host", "expect", "authorization", "cookie", SECRET_HEADER.lower()}
_SOCKET = frozenset(
    {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol",
     "sec-websocket-accept"}
)  # fmt: skip


class Forwarder:
    """Passes requests on. Its links show the secret."""

    def __init__(self, links: Links, max_body_bytes: int) -> None:
        """Args: links: to the workers; max_body_bytes: of a request."""
        self._links = links
        self._max_body_bytes = max_body_bytes

    async def forward(
        self,
        request: web.Request,
        worker: WorkerState,
        *,
        body: AsyncIterator[bytes] | bytes | None = None,
        path: str | None = None,
    ) -> web.StreamResponse:
        """Passes one request on.

        Args:
            request: as it came; nothing of its body was read, unless ``body`` is given.
            worker: to whom.
            body: what to send in place of the request's own body, within the same limits.
            path: with its query, in place of the request's own.

        Raises:
            NotFound: ``session_not_found``: the worker is gone.
            BackendFailed: ``worker_silent``.
            InvalidInput: ``body_too_large``, ``request_timeout``, ``body_incomplete``.
            VisavisError: what ``body`` raised.
        """
        path = request.rel_url.raw_path_qs if path is None else path
        if _is_socket(request):
            return await self._forward_socket(request, worker, path)
        headers = passed_on(request.headers)
        taken = _Taken()
        sent: AsyncIterator[bytes] | bytes | None = None
        if body is not None:
            headers.pop("Content-Length", None)
            sent = body if isinstance(body, bytes) else self._watched(body, taken)
        elif request.can_read_body:
            if request.content_length is not None and request.content_length > self._max_body_bytes:
                raise self._too_large()
            sent = self._watched(request.content.iter_chunked(CHUNK_BYTES), taken)
        try:
            response = await self._links.client(worker).request(
                request.method,
                self._links.url(worker, path),
                headers=headers,
                data=sent,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise await self._gone(worker) from error
        except TimeoutError as error:
            if taken.error is not None:
                raise taken.error from error
            raise BackendFailed("worker_silent", "The process of this session does not answer; try again.") from error
        except LOST as error:
            if taken.error is not None:
                raise taken.error from error
            raise await self._gone(worker) from error
        try:
            return await _answer(request, response)
        finally:
            response.close()

    async def _gone(self, worker: WorkerState) -> NotFound:
        await self._links.lost(worker)
        return gone()

    def _too_large(self) -> InvalidInput:
        return InvalidInput("body_too_large", f"The body may have {self._max_body_bytes // 1_000_000} MB at most.")

    async def _watched(self, body: AsyncIterable[bytes], taken: _Taken) -> AsyncIterator[bytes]:
        """A body within its limits; the client of the worker takes all that it raises for a broken connection."""
        size = 0
        try:
            async with asyncio.timeout(UPLOAD_S):
                async for chunk in body:
                    size += len(chunk)
                    if size > self._max_body_bytes:
                        raise self._too_large()
                    yield chunk
        except TimeoutError:
            taken.error = InvalidInput("request_timeout", f"The body did not arrive in {UPLOAD_S:.0f} s.")
            raise taken.error from None
        except VisavisError as error:
            taken.error = error
            raise
        except Exception as error:
            taken.error = InvalidInput("body_incomplete", "The body did not arrive whole.")
            raise taken.error from error

    async def _forward_socket(self, request: web.Request, worker: WorkerState, path: str) -> web.StreamResponse:
        protocols = [word.strip() for word in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        headers = CIMultiDict((k, v) for k, v in passed_on(request.headers).items() if k.lower() not in _SOCKET)
        try:
            theirs = await self._links.client(worker).ws_connect(
                self._links.url(worker, path),
                headers=headers,
                protocols=tuple(filter(None, protocols)),
                max_msg_size=MAX_MESSAGE_BYTES,
                autoclose=False,
                autoping=True,
                timeout=aiohttp.ClientWSTimeout(ws_close=SOCKET_CLOSE_S),
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 404:
                raise NotFound("session_not_found", "There is no such session; it may have ended.") from error
            raise Closed("session_ended", "The session takes no such connection any more.") from error
        except (*LOST, TimeoutError) as error:
            raise await self._gone(worker) from error
        ours = web.WebSocketResponse(
            timeout=SOCKET_CLOSE_S,
            heartbeat=SOCKET_PING_S,
            max_msg_size=MAX_MESSAGE_BYTES,
            protocols=[theirs.protocol] if theirs.protocol else (),
        )
        try:
            await ours.prepare(request)
            await _join(ours, theirs)
        finally:
            await theirs.close()
        return ours


class _Taken:
    """What was found wrong with a body while it was passed on."""

    def __init__(self) -> None:
        self.error: VisavisError | None = None


def gone() -> NotFound:
    """What is said of a session whose worker is gone."""
    return NotFound(
        "session_not_found", "The process of this session was lost; an offer with its session_id goes on with it."
    )


def passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers that go to the next server, or back to the client."""
    named = {name.strip().lower() for value in headers.getall("Connection", ()) for name in value.split(",")}
    dropped = _NOT_PASSED_ON | named
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _is_socket(request: web.Request) -> bool:
    return (
        request.headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in request.headers.get("Connection", "").lower()
    )


async def _answer(request: web.Request, theirs: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=theirs.status, reason=theirs.reason, headers=passed_on(theirs.headers))
    try:
        await response.prepare(request)
        async for chunk in theirs.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    except (*LOST, TimeoutError):
        # One of the two has gone; if it was the worker, the client must not take what it got for all of it.
        if request.transport is not None:
            request.transport.abort()
    return response


async def _join(ours: web.WebSocketResponse, theirs: aiohttp.ClientWebSocketResponse) -> None:
    """Carries messages both ways until one side closes; the other one is closed with the same code."""
    up = asyncio.create_task(_carry(ours, theirs), name="socket-up")
    down = asyncio.create_task(_carry(theirs, ours), name="socket-down")
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if down.done():
            await ours.close(code=_code(theirs.close_code), message=b"")
        else:
            await theirs.close(code=_code(ours.close_code), message=b"")
            # What the worker still says before it closes is of interest to nobody.
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _carry(source: Socket, target: Socket) -> None:
    while True:
        message = await source.receive()
        try:
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            else:
                return
        except (ConnectionError, RuntimeError):
            return


def _code(code: int | None) -> int:
    """A close code that may be sent: what stands for the lack of one may not (RFC 6455, 7.4.1)."""
    return 1011 if code is None or code in (1005, 1006, 1015) else code


__all__ = ["Forwarder", "WorkerLost", "gone", "passed_on"]
