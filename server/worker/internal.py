"""What a worker answers its gateway, and nobody else.

Place in the flow: gateway -> ``/internal/…`` -> Sessions, Stage; all other routes of a worker are those of the server,
forwarded, and stand behind the same guard.

| route | meaning |
|---|---|
| ``POST /internal/sessions`` | a new session: ``Opening`` -> ``Opened`` |
| ``POST /internal/sessions/{session_id}/offer`` | another peer for a session: ``Rejoining`` -> ``Opened`` |
| ``GET /internal/sessions/{session_id}`` | 204 or 404 |
| ``GET /internal/state`` | how full it is: ``Fullness`` |
| ``GET /internal/events`` | JSON lines, twice a second or more: ``state``, ``keep`` with ``snapshot``, ``forget`` |
| ``GET /internal/about`` | what only the process with the models knows: ``About`` |
| ``POST /internal/avatars/{name}/forget`` | an avatar was deleted |
| ``POST /internal/drain`` | no new sessions from now on |

Invariants: whoever does not show the secret gets 403 from every route, and it is compared in constant time.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel

from engine.avatar.card import CARD_FILE
from engine.config import usable_cores
from engine.errors import InvalidInput, NotFound
from server.library import Library
from server.live_session import LiveSession
from server.middleware import error_response
from server.services import SERVICES
from server.sessions import Sessions
from server.signaling import Description
from server.stage import Stage, Wishes
from server.worker.relay import RelayMemory
from server.worker.wire import BEAT_S, MAX_BODY_BYTES, SECRET_HEADER, About, Fullness, Opened, Opening, Rejoining

M = TypeVar("M", bound=BaseModel)
Stamp = tuple[int, int]
"""Tells an avatar from a later one of the same name."""

internal_routes = web.RouteTableDef()


class Desk:
    """What the internal routes know beside the server's own services."""

    def __init__(self, relay: RelayMemory | None, cores: float = 0.0) -> None:
        """
        Args:
            relay: what the gateway is to remember, or None where the worker has a memory of its own.
            cores: cores that this worker is to use, for what is called full load; 0 means all.
        """
        self.relay = relay
        self.draining = False
        self.made: dict[str, Stamp] = {}
        """Of each avatar made here that this process knows, by name: which one it knows."""
        self.changed = asyncio.Event()
        self._cores = cores or usable_cores()
        self._used = (_cpu_s(), time.monotonic())
        self._load = 0.0

    def load(self) -> float:
        """Share of its cores that was used over the last moment."""
        used_s, now_s = _cpu_s(), time.monotonic()
        before_s, since_s = self._used
        if now_s - since_s >= BEAT_S / 2:
            self._load = (used_s - before_s) / (now_s - since_s) / self._cores
            self._used = (used_s, now_s)
        return round(self._load, 3)


DESK: web.AppKey[Desk] = web.AppKey("desk", Desk)


def only_for(secret: str) -> Middleware:
    """Middleware that answers nobody but who shows a secret."""
    expected = secret.encode()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        shown = request.headers.get(SECRET_HEADER, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(shown, expected):
            return error_response(403, "forbidden", "This is a worker; it answers its gateway alone.")
        return await handler(request)

    return middleware


def fullness(app: web.Application) -> Fullness:
    """How full a worker is."""
    sessions, desk = app[SERVICES].sessions, app[DESK]
    return Fullness(
        places=sessions.places,
        taken=sessions.taken,
        load=desk.load(),
        avatars=sorted({live.avatar for live in sessions.live}),
        yielding=_yielding(sessions),
        draining=desk.draining,
        asked=sessions.asked,
    )


@internal_routes.post("/internal/sessions")
async def open_session(request: web.Request) -> web.Response:
    """A new session."""
    wanted = await _read(request, Opening)
    services = request.app[SERVICES]
    request.app[DESK].changed.set()
    _learn(services.stage, request.app[DESK], wanted.avatar)
    avatar, wishes = services.stage.known(wanted.avatar), wanted.wishes()
    if wishes.former:
        wishes = _still_possible(services.stage, avatar, wishes)
    live, description = await services.sessions.open(
        avatar, wanted.sdp, wanted.type, wanted.mode, wishes, wanted.max_duration_s
    )
    return _opened(request, live, description)


@internal_routes.post("/internal/sessions/{session_id}/offer")
async def rejoin(request: web.Request) -> web.Response:
    """Another peer for a session."""
    wanted = await _read(request, Rejoining)
    live, description = await request.app[SERVICES].sessions.rejoin(
        request.match_info["session_id"], wanted.sdp, wanted.type, wanted.background
    )
    return _opened(request, live, description)


@internal_routes.get("/internal/sessions/{session_id}")
async def is_there(request: web.Request) -> web.Response:
    """Whether a session lives."""
    request.app[SERVICES].sessions.get(request.match_info["session_id"])
    return web.Response(status=204)


@internal_routes.get("/internal/state")
async def state(request: web.Request) -> web.Response:
    """How full it is."""
    return web.json_response(fullness(request.app).model_dump())


@internal_routes.get("/internal/events")
async def events(request: web.Request) -> web.StreamResponse:
    """Its state as it changes, and what it wants to be remembered; one reader at a time gets all of the latter."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async for told in _events(request.app):
            await response.write(json.dumps(told, ensure_ascii=False).encode() + b"\n")
    except (ConnectionError, asyncio.CancelledError):
        pass
    return response


async def _events(app: web.Application) -> AsyncIterator[dict[str, Any]]:
    desk, sessions = app[DESK], app[SERVICES].sessions
    before: object = None
    beat_s = 0.0
    while not app[CLOSING].is_set():
        now_s = time.monotonic()
        now = (sessions.taken, _yielding(sessions), sessions.asked, desk.draining)
        if now != before or now_s >= beat_s:
            before, beat_s = now, now_s + BEAT_S
            yield {"state": fullness(app).model_dump()}
        if desk.relay is not None:
            for told in desk.relay.take():
                yield told
        try:
            async with asyncio.timeout(BEAT_S):
                await desk.changed.wait()
        except TimeoutError:
            continue
        desk.changed.clear()
    if desk.relay is not None:
        for told in desk.relay.take():
            yield told


@internal_routes.get("/internal/about")
async def about(request: web.Request) -> web.Response:
    """What only the process with the models knows."""
    stage = request.app[SERVICES].stage
    told = About(
        restores=stage.restores,
        mode=stage.mode,
        hears=stage.hears,
        note=stage.note,
        language_models=stage.language_models.listed(),
        language_model=stage.language_models.configured,
    )
    return web.json_response(told.model_dump())


@internal_routes.post("/internal/avatars/{name}/forget")
async def forget_avatar(request: web.Request) -> web.Response:
    """An avatar that was made here is gone."""
    request.app[SERVICES].stage.forget(request.match_info["name"])
    return web.Response(status=204)


@internal_routes.post("/internal/drain")
async def drain(request: web.Request) -> web.Response:
    """No new sessions from now on; those that are there go on, and whoever is lost may come back."""
    request.app[DESK].draining = True
    request.app[SERVICES].sessions.shut_door()
    request.app[DESK].changed.set()
    return web.Response(status=204)


CLOSING: web.AppKey[asyncio.Event] = web.AppKey("closing", asyncio.Event)
"""Set when the worker is about to close: whoever reads its events is told the last ones."""


def _opened(request: web.Request, live: LiveSession, description: Description) -> web.Response:
    request.app[DESK].changed.set()
    told = Opened(session_id=live.id, sdp=description.sdp, type=description.type, resumed=live.resumed)
    return web.json_response(told.model_dump())


def _still_possible(stage: Stage, avatar: str, wishes: Wishes) -> Wishes:
    """Wishes of a session that goes on, without what this process does not have: better so than not at all."""
    try:
        stage.character(avatar).known_style(wishes.style)
    except NotFound:
        wishes = replace(wishes, style="")
    try:
        stage.language_models.known(wishes.language_model)
    except NotFound:
        wishes = replace(wishes, language_model="")
    if wishes.voice is not None and wishes.voice.conversion not in ("", *stage.voice_conversions):
        wishes = replace(wishes, voice=None)
    return wishes


def known_made(stage: Stage) -> dict[str, Stamp]:
    """Which avatars made here a stage has read, for ``Desk.made``."""
    stamps = {name: _stamp(stage.library, name) for name in stage.library.cards if stage.library.is_made(name)}
    return {name: stamp for name, stamp in stamps.items() if stamp is not None}


def _learn(stage: Stage, desk: Desk, name: str) -> None:
    """Takes up an avatar that was made in the gateway's studio since this process was started, and forgets one that was
    deleted or replaced there: whoever was starting then, or could not be reached, was not told."""
    library = stage.library
    stamp = _stamp(library, name) if library.has_made(name) else None
    if library.is_made(name) and desk.made.get(name) != stamp:
        stage.forget(name)
    if stamp is not None and name not in library.cards:
        library.add(name)
        desk.made[name] = stamp


def _stamp(library: Library, name: str) -> Stamp | None:
    """None where there is no card, and so no avatar."""
    try:
        found = (library.made_dir / name / CARD_FILE).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


async def _read(request: web.Request, model: type[M]) -> M:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise InvalidInput("body_too_large", f"The body may have {MAX_BODY_BYTES} bytes at most.")
    return model.model_validate_json(bytes(body))


def _yielding(sessions: Sessions) -> int:
    return sessions.free - (sessions.places - sessions.taken)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
