"""Decides which requests the front desk answers itself and which belong to a worker, and to which.

Place in the flow: gate -> ``Routing.middleware`` -> the server's own handler, or ``Forwarder``.

Whatever names a session, a broadcast or a conversion belongs to the worker that gave out the id. The id stands in the
path; with other projects' interfaces in the body, which is read up to it and then passed on with what follows.

Invariants: it stands behind the gate, so nothing is passed on that the gate did not let in.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from engine.errors import InvalidInput, NotFound
from server.bodies import read_bytes
from server.gateway.fleet import WorkerState, worker_of
from server.gateway.forward import CHUNK_BYTES, UPLOAD_S, Forwarder, gone
from server.gateway.links import LOST, Links
from server.gateway.sessions import RemoteSessions

IDS = ("session_id", "broadcast_id", "conversion_id")
"""Parts of paths that are ids."""
IN_BODY = {
    ("POST", "/human"): "sessionid",
    ("POST", "/interrupt_talk"): "sessionid",
    ("POST", "/is_speaking"): "sessionid",
    ("POST", "/record"): "sessionid",
    ("PATCH", "/api/offer"): "pc_id",
}
"""Routes that name a session in a JSON body, and the member that does."""
IN_FORM = ("POST", "/humanaudio")
MAKES_A_CONVERSION = ("POST", "/conversions")
MAKES_A_BROADCAST = ("POST", "/broadcasts")
WATCHES = ("POST", "/whep/watch/{broadcast_id}")

_FORM_ID = re.compile(rb'name="?sessionid"?\r\n(?:[^\r\n]{1,200}\r\n){0,4}\r\n([^\r\n]{0,100})\r\n')
"""Bounded in every part, so that no form, however it is made, takes longer to search than its length."""
_FORM_ID_BYTES = 1000
"""No match is longer."""


class Routing:
    """The routes of a gateway that are somebody else's."""

    sessions: RemoteSessions
    """Knows the workers; set before the first request."""

    def __init__(self, links: Links, forwarder: Forwarder, max_upload_bytes: int) -> None:
        """Args: links, forwarder: of this gateway; max_upload_bytes: of a form that is read for its id."""
        self.count: Callable[[web.Request], None] = lambda request: None
        """Counts what one caller asks for, where a worker would have done so."""
        self._links = links
        self._forwarder = forwarder
        self._max_upload_bytes = max_upload_bytes
        self.own: dict[tuple[str, str], Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        """Routes that the gateway answers otherwise than a server that is alone, by method and path."""

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers a request here or elsewhere."""
        info = request.match_info
        resource = info.route.resource
        if info.http_exception is not None or resource is None:
            return await handler(request)
        method = "GET" if request.method == "HEAD" else request.method
        key = (method, resource.canonical)
        if key in self.own:
            return await self.own[key](request)
        if key == WATCHES:
            self.count(request)
        for name in IDS:
            if name in info:
                return await self._by_id(request, info[name])
        if key in IN_BODY:
            return await self._by_body(request, IN_BODY[key])
        if key == IN_FORM:
            return await self._by_form(request)
        if key == MAKES_A_CONVERSION:
            return await self._forwarder.forward(request, self._for_conversion(request))
        if key == MAKES_A_BROADCAST:
            return await self._forwarder.forward(request, await self.sessions.place())
        return await handler(request)

    async def _by_id(self, request: web.Request, an_id: str) -> web.StreamResponse:
        worker = self._worker(an_id)
        converted = request.query.get("conversion")
        if converted is not None and request.path.endswith("/audio") and worker_of(converted) != worker.name:
            return await self._with_foreign_sound(request, worker, converted)
        return await self._forwarder.forward(request, worker)

    async def _with_foreign_sound(
        self, request: web.Request, worker: WorkerState, conversion_id: str
    ) -> web.StreamResponse:
        """Has a session speak what another worker has converted: the sound travels as a file."""
        source = self.sessions.known(conversion_id)
        if source is None or not conversion_id.replace("-", "").replace("_", "").isalnum():
            raise NotFound("conversion_not_found", "There is no such conversion; it may have been given up.")
        path = f"/conversions/{conversion_id}/audio"
        try:
            response = await self._links.client(source).get(self._links.url(source, path))
        except LOST as error:
            await self._links.lost(source)
            raise _conversion_lost() from error
        async with response:
            if response.status != 200:
                # Not done yet, failed or gone: its own words for that.
                return web.Response(
                    body=await response.read(), status=response.status, content_type=response.content_type
                )
            return await self._forwarder.forward(
                request, worker, body=_chunks(response), path=request.rel_url.raw_path
            )

    async def _by_body(self, request: web.Request, member: str) -> web.StreamResponse:
        body = await read_bytes(request)
        try:
            told = json.loads(body)
            an_id = str(told.get(member, "")) if isinstance(told, dict) else ""
        except (ValueError, RecursionError):
            an_id = ""
        worker = self.sessions.known(an_id)
        if worker is None:
            # Any of them says in its own words what is wrong with it.
            worker = self._any()
        return await self._forwarder.forward(request, worker, body=body)

    async def _by_form(self, request: web.Request) -> web.StreamResponse:
        start = bytearray()
        chunks = request.content.iter_chunked(CHUNK_BYTES)
        found = None
        try:
            async with asyncio.timeout(UPLOAD_S):
                async for chunk in chunks:
                    searched = max(0, len(start) - _FORM_ID_BYTES)
                    start += chunk
                    if (found := _FORM_ID.search(start, searched)) is not None:
                        break
                    if len(start) > self._max_upload_bytes:
                        raise InvalidInput("body_too_large", "The form is too large.")
        except TimeoutError:
            raise InvalidInput("request_timeout", f"The form did not arrive in {UPLOAD_S:.0f} s.") from None
        an_id = found[1].decode("utf-8", "replace").strip() if found is not None else ""
        worker = self.sessions.known(an_id) or self._any()
        return await self._forwarder.forward(request, worker, body=_joined(bytes(start), chunks))

    def _for_conversion(self, request: web.Request) -> WorkerState:
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        worker = self.sessions.known(shown.strip()) if scheme.lower() == "bearer" else None
        return worker or self._any()

    def _worker(self, an_id: str) -> WorkerState:
        worker = self.sessions.known(an_id)
        if worker is None:
            raise gone()
        return worker

    def _any(self) -> WorkerState:
        """The least busy worker."""
        ready = [worker for worker in self.sessions.workers if worker.state == "ready"]
        if not ready:
            raise gone()
        return min(ready, key=lambda it: (it.load, it.name))


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            yield chunk
    except LOST as error:
        raise _conversion_lost() from error


async def _joined(start: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for chunk in rest:
        yield chunk


def _conversion_lost() -> NotFound:
    return NotFound("conversion_not_found", "The process of this conversion was lost; convert the sound again.")
