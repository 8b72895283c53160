"""The HTTP API: one function per route, each a few lines between a checked request and the session it is for.

Place in the flow: middleware -> handler -> Sessions, Session, Stage. openapi.json describes the same routes.

Invariants: handlers hold no state; everything they use hangs on the application under ``SERVICES``.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from engine.config import Config
from engine.errors import InvalidInput, OfferInvalid
from engine.types import PLAYOUT_RATE
from server import pcm_socket, schemas
from server.metrics import ServerMetrics
from server.sessions import LiveSession, Sessions
from server.stage import Stage
from server.uploads import Uploads

MAX_JSON_BYTES = 64_000
"""A browser's offer is about 6 kB, a long one 20."""
BODY_TIMEOUT_S = 10.0

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers work with."""

    config: Config
    version: str
    stage: Stage
    sessions: Sessions
    uploads: Uploads
    metrics: ServerMetrics
    started_s: float


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)

routes = web.RouteTableDef()


def _services(request: web.Request) -> Services:
    return request.app[SERVICES]


def _live(request: web.Request) -> LiveSession:
    return _services(request).sessions.get(request.match_info["session_id"])


async def _json(request: web.Request, model: type[M]) -> M:
    """The body as a checked model.

    Raises:
        InvalidInput: ``unsupported_media_type``, ``body_too_large``, ``request_timeout`` or ``invalid_json``.
        ValidationError: a member is missing, unknown or of the wrong type.
    """
    if request.content_type != "application/json":
        raise InvalidInput("unsupported_media_type", "Send JSON, with Content-Type: application/json.")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_JSON_BYTES:
                    raise InvalidInput("body_too_large", f"The body may have {MAX_JSON_BYTES} bytes at most.")
    except TimeoutError:
        raise InvalidInput("request_timeout", "The body did not arrive in time.") from None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("invalid_json", "The body is not JSON.") from error
    return model.model_validate(content)


@routes.post("/offer")
async def offer(request: web.Request) -> web.Response:
    """Answers a browser's offer with a new session."""
    services = _services(request)
    body = await _json(request, schemas.Offer)
    if not body.sdp.strip():
        raise OfferInvalid("offer_invalid", "The offer cannot be answered: it is empty.")
    avatar = services.stage.known(body.avatar)
    mode = services.stage.mode if body.mode is None else "say" if body.mode == "idle" else body.mode
    live, description = await services.sessions.open(avatar, body.sdp, body.type, mode, quality=body.quality)
    answer: dict[str, Any] = {"sdp": description.sdp, "type": description.type, "session_id": live.id}
    if services.config.ice_servers:
        answer["ice_servers"] = [server.to_dict() for server in services.config.ice_servers]
    return web.json_response(answer, headers={"Cache-Control": "no-store"})


@routes.delete("/sessions/{session_id}")
async def delete_session(request: web.Request) -> web.Response:
    """Ends a session; answers when its place is free."""
    await _services(request).sessions.close(_live(request).id)
    return web.Response(status=204)


@routes.post("/sessions/{session_id}/close")
async def close_session(request: web.Request) -> web.Response:
    """Ends a session; for ``navigator.sendBeacon``, which can only POST, and whose body is ignored."""
    await _services(request).sessions.close(_live(request).id)
    return web.Response(status=204)


@routes.post("/sessions/{session_id}/say")
async def say(request: web.Request) -> web.Response:
    """Speaks a text after whatever is queued."""
    live = _live(request)
    body = await _json(request, schemas.Say)
    return web.json_response({"utterance_id": live.session.say(body.text)}, status=202)


@routes.post("/sessions/{session_id}/ask")
async def ask(request: web.Request) -> web.Response:
    """Has a text answered, in place of whatever is being said."""
    live = _live(request)
    body = await _json(request, schemas.Ask)
    return web.json_response({"turn_id": await live.session.ask(body.text)}, status=202)


@routes.post("/sessions/{session_id}/audio")
async def audio(request: web.Request) -> web.Response:
    """Speaks a sound file after whatever is queued."""
    live = _live(request)
    # Before many megabytes are sent for nothing.
    live.session.require_room()
    samples = await _services(request).uploads.sound(request)
    utterance_id = live.session.play(samples, "file")
    duration_ms = len(samples) * 1000 // PLAYOUT_RATE
    return web.json_response({"utterance_id": utterance_id, "duration_ms": duration_ms}, status=202)


@routes.post("/sessions/{session_id}/interrupt")
async def interrupt(request: web.Request) -> web.Response:
    """Silence now; says what was really played."""
    return web.json_response(asdict(await _live(request).session.interrupt()))


@routes.post("/sessions/{session_id}/mirror")
async def mirror(request: web.Request) -> web.Response:
    """Microphone pass-through on or off."""
    live = _live(request)
    body = await _json(request, schemas.Mirror)
    live.session.set_mirror(body.on)
    return web.json_response({"on": body.on})


@routes.post("/sessions/{session_id}/listening")
async def listening(request: web.Request) -> web.Response:
    """Whether somebody else has the floor; the avatar shows that it listens while it says nothing itself."""
    live = _live(request)
    body = await _json(request, schemas.Listening)
    live.session.set_listening(body.on)
    return web.json_response({"on": body.on})


@routes.post("/sessions/{session_id}/actions")
async def act(request: web.Request) -> web.Response:
    """Plays a clip of the avatar."""
    live = _live(request)
    body = await _json(request, schemas.Action)
    live.session.act(body.name)
    return web.json_response({"name": body.name}, status=202)


@routes.delete("/sessions/{session_id}/actions")
async def stop_action(request: web.Request) -> web.Response:
    """Ends the action that plays."""
    _live(request).session.stop_action()
    return web.Response(status=204)


@routes.get("/sessions/{session_id}/quality")
async def quality(request: web.Request) -> web.Response:
    """What is restored of the face, and why."""
    return web.json_response(_live(request).session.quality.to_dict(), headers={"Cache-Control": "no-store"})


@routes.post("/sessions/{session_id}/quality")
async def set_quality(request: web.Request) -> web.Response:
    """Asks for more or less restoring from now on."""
    live = _live(request)
    body = await _json(request, schemas.Quality)
    live.session.set_quality(body.quality)
    return web.json_response(live.session.quality.to_dict())


@routes.get("/sessions/{session_id}/pcm")
async def pcm(request: web.Request) -> web.StreamResponse:
    """A WebSocket that takes raw sound as it is produced."""
    return await pcm_socket.serve(request, _live(request))


@routes.get("/avatars")
async def avatars(request: web.Request) -> web.Response:
    """Cards of all avatars, the default one first."""
    stage = _services(request).stage
    names = sorted(stage.cards, key=lambda name: (name != stage.default, name))
    cards = [
        {
            **{key: value for key, value in asdict(stage.cards[name]).items() if key not in ("size", "clips")},
            "clips": [{"name": clip, "loop": loop} for clip, loop in stage.cards[name].clips.items()],
            "width": stage.cards[name].size[0],
            "height": stage.cards[name].size[1],
            "poster": f"avatars/{name}/poster.jpg",
            "default": name == stage.default,
        }
        for name in names
    ]
    return web.json_response({"avatars": cards}, headers={"Cache-Control": "no-cache"})


@routes.get("/avatars/{name}/poster.jpg")
async def poster(request: web.Request) -> web.Response:
    """An avatar at rest, as a still."""
    stage = _services(request).stage
    picture = await stage.poster(stage.known(request.match_info["name"]))
    headers = {"ETag": f'"{picture.etag}"', "Cache-Control": "public, max-age=300"}
    if any(tag.value in (picture.etag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=picture.jpeg, content_type="image/jpeg", headers=headers)


@routes.get("/config.json")
async def page_config(request: web.Request) -> web.Response:
    """What the page needs to know before it connects."""
    services = _services(request)
    config = services.config
    return web.json_response(
        {
            "version": services.version,
            "avatar": services.stage.default,
            "restores": services.stage.restores,
            "quality": config.quality,
            "mode": services.stage.mode,
            "hears": services.stage.hears,
            "conversation_note": services.stage.note,
            "text_max_chars": config.max_text_chars,
            "audio_max_bytes": config.max_audio_mb * 1_000_000,
            "audio_max_s": config.max_audio_s,
            "session_max_s": config.max_session_s,
            "heartbeat_timeout_s": config.heartbeat_timeout_s,
            "ice_servers": [server.to_dict() for server in config.ice_servers],
        },
        headers={"Cache-Control": "no-store"},
    )


@routes.get("/healthz")
async def healthz(request: web.Request) -> web.Response:
    """Whether the server works, and how full it is."""
    services = _services(request)
    return web.json_response(
        {
            "status": "ok",
            "version": services.version,
            "uptime_s": round(time.monotonic() - services.started_s, 1),
            "sessions": services.sessions.taken,
            "max_sessions": services.config.max_sessions,
        },
        headers={"Cache-Control": "no-store"},
    )


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Prometheus exposition of the engine's and the server's metrics."""
    body = generate_latest(_services(request).metrics.registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})
