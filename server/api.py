"""The HTTP API: one function per route, each a few lines between a checked request and the session it is for.

Place in the flow: middleware -> handler -> Sessions, Session, Stage. openapi.json describes the same routes.

Invariants: handlers hold no state; everything they use hangs on the application under ``SERVICES``.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from engine.errors import InvalidInput
from engine.marking import DIGITAL_SOURCE_TYPE
from engine.types import PLAYOUT_RATE
from server import pcm_socket, schemas
from server.access.gate import ACCESS
from server.bodies import read_json
from server.broadcast_routes import watch
from server.compat.recording import RECORDINGS
from server.conversions import CONVERSIONS
from server.door import open_session
from server.live_session import LiveSession
from server.services import SERVICES, Services
from server.transcript import as_lines, as_text

_SHOWN = ("name", "title", "licence", "source", "synthetic", "consent")
"""What of an avatar's card is everybody's business; what it is told about itself is not."""

_OPENAPI = Path(__file__).with_name("openapi.json")

routes = web.RouteTableDef()


def _services(request: web.Request) -> Services:
    return request.app[SERVICES]


def _live(request: web.Request) -> LiveSession:
    return _services(request).sessions.get(request.match_info["session_id"])


@routes.post("/offer")
async def offer(request: web.Request) -> web.Response:
    """Answers a browser's offer with a new session."""
    wanted = await read_json(request, schemas.Offer)
    if wanted.watch:
        viewer_id, description = await watch(request, wanted.watch, wanted.sdp, wanted.type)
        told = {"sdp": description.sdp, "type": description.type, "watch": wanted.watch, "viewer_id": viewer_id}
        return web.json_response(told, headers={"Cache-Control": "no-store"})
    live, description = await open_session(request, wanted)
    answer: dict[str, Any] = {"sdp": description.sdp, "type": description.type, "session_id": live.id}
    if live.resumed:
        answer["resumed"] = True
    if RECORDINGS in request.app:
        # LiveTalking's clients are understood, and that is what they call it.
        answer["sessionid"] = live.id
    if ice_servers := _services(request).ice.fresh():
        answer["ice_servers"] = ice_servers
    return web.json_response(answer, headers={"Cache-Control": "no-store"})


@routes.post("/tokens")
async def mint_token(request: web.Request) -> web.Response:
    """A token for one session, to be given to a browser."""
    asked = await read_json(request, schemas.TokenRequest)
    return web.json_response(request.app[ACCESS].mint(request, asked), headers={"Cache-Control": "no-store"})


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
    body = await read_json(request, schemas.Say)
    return web.json_response({"utterance_id": live.session.say(body.text)}, status=202)


@routes.post("/sessions/{session_id}/ask")
async def ask(request: web.Request) -> web.Response:
    """Has a text answered, in place of whatever is being said."""
    live = _live(request)
    body = await read_json(request, schemas.Ask)
    return web.json_response({"turn_id": await live.session.ask(body.text)}, status=202)


@routes.post("/sessions/{session_id}/audio")
async def audio(request: web.Request) -> web.Response:
    """Speaks a sound file, or one that was converted, after whatever is queued."""
    live = _live(request)
    # Before many megabytes are sent for nothing.
    live.session.require_room()
    if (converted := request.query.get("conversion")) is not None:
        samples = request.app[CONVERSIONS].get(converted).sound
    else:
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
    body = await read_json(request, schemas.Mirror)
    live.session.set_mirror(body.on)
    return web.json_response({"on": body.on})


@routes.post("/sessions/{session_id}/listening")
async def listening(request: web.Request) -> web.Response:
    """Whether somebody else has the floor; the avatar shows that it listens while it says nothing itself."""
    live = _live(request)
    body = await read_json(request, schemas.Listening)
    live.session.set_listening(body.on)
    return web.json_response({"on": body.on})


@routes.post("/sessions/{session_id}/actions")
async def act(request: web.Request) -> web.Response:
    """Plays a clip of the avatar."""
    live = _live(request)
    body = await read_json(request, schemas.Action)
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
    body = await read_json(request, schemas.Quality)
    live.session.set_quality(body.quality)
    return web.json_response(live.session.quality.to_dict())


@routes.get("/sessions/{session_id}/transcript")
async def transcript(request: web.Request) -> web.Response:
    """What was said so far, as JSON lines or as text."""
    live = _live(request)
    lines, headers = live.session.transcript(), {"Cache-Control": "no-store"}
    match request.query.get("format", "jsonl"):
        case "jsonl":
            return web.Response(text=as_lines(lines), content_type="application/x-ndjson", headers=headers)
        case "text":
            name = live.manner.character.name
            return web.Response(text=as_text(lines, name), content_type="text/plain", headers=headers)
    raise InvalidInput("format_unknown", "The format of a transcript is jsonl or text.")


@routes.get("/sessions/{session_id}/pcm")
async def pcm(request: web.Request) -> web.StreamResponse:
    """A WebSocket that takes raw sound as it is produced."""
    return await pcm_socket.serve(request, _live(request))


@routes.get("/avatars")
async def avatars(request: web.Request) -> web.Response:
    """Cards of all avatars, the default one first."""
    stage = _services(request).stage
    names = sorted(stage.cards, key=lambda name: (name != stage.default, stage.library.is_made(name), name))
    cards = [
        {
            **{key: getattr(stage.cards[name], key) for key in _SHOWN},
            "clips": [{"name": clip, "loop": loop} for clip, loop in stage.cards[name].clips.items()],
            "width": stage.cards[name].size[0],
            "height": stage.cards[name].size[1],
            "styles": stage.character(name).listed_styles(),
            "style": stage.character(name).style,
            "poster": f"avatars/{name}/poster.jpg",
            "default": name == stage.default,
            "made_here": stage.library.is_made(name),
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


@routes.get("/avatars/{name}/thumbnail.webp")
async def thumbnail(request: web.Request) -> web.Response:
    """An avatar at rest, small and moving."""
    stage = _services(request).stage
    webp = await stage.thumbnail(stage.known(request.match_info["name"]))
    return web.Response(body=webp, content_type="image/webp", headers={"Cache-Control": "public, max-age=300"})


@routes.get("/config.json")
async def page_config(request: web.Request) -> web.Response:
    """What the page needs to know before it connects."""
    services = _services(request)
    config, access = services.config, request.app[ACCESS]
    character = services.stage.character(services.stage.default)
    return web.json_response(
        {
            "version": services.version,
            "avatar": services.stage.default,
            "restores": services.stage.restores,
            "quality": config.quality,
            "mode": services.stage.mode,
            "hears": services.stage.hears,
            "conversation_note": services.stage.note,
            "styles": character.listed_styles(),
            "style": character.style,
            "language_models": services.stage.language_models.listed(),
            "language_model": services.stage.language_models.configured,
            "voice_conversions": services.stage.voice_conversions,
            "voice_pitch": config.voice_pitch,
            "voice_formant": config.voice_formant,
            "voice_conversion": config.voice_conversion,
            "wake_word": config.wake_word,
            "ai_label": config.ai_label == "on",
            "digital_source_type": DIGITAL_SOURCE_TYPE,
            "text_max_chars": config.max_text_chars,
            "audio_max_bytes": config.max_audio_mb * 1_000_000,
            "audio_max_s": config.max_audio_s,
            "session_max_s": config.max_session_s,
            "heartbeat_timeout_s": config.heartbeat_timeout_s,
            "access": "open" if access.is_open(request) else "closed",
            "ice_servers": access.ice_servers(request),
        },
        headers={"Cache-Control": "no-store"},
    )


@routes.get("/openapi.json")
async def openapi(request: web.Request) -> web.StreamResponse:
    """The description of this interface."""
    return web.FileResponse(_OPENAPI, headers={"Cache-Control": "no-cache"})


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
            "max_sessions": services.sessions.places,
        },
        headers={"Cache-Control": "no-store"},
    )


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Prometheus exposition of the engine's and the server's metrics."""
    body = generate_latest(_services(request).metrics.registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})
