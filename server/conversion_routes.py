"""Conversions of whole files over HTTP: begin, watch, fetch, give up.

Place in the flow: middleware -> handler -> ``Conversions``. openapi.json describes the same routes.
"""

from __future__ import annotations

from aiohttp import web

from engine.conversation.voice.base import VoiceChange
from engine.errors import InvalidInput
from server.api import SERVICES
from server.conversions import CONVERSIONS, Conversion

conversion_routes = web.RouteTableDef()

_PATH = "/conversions/{conversion_id}"


def _conversion(request: web.Request) -> Conversion:
    return request.app[CONVERSIONS].get(request.match_info["conversion_id"])


def _semitones(request: web.Request, name: str) -> float:
    try:
        return float(request.query.get(name) or 0)
    except ValueError:
        raise InvalidInput("voice_change_invalid", f"The {name} is a number of semitones.") from None


@conversion_routes.post("/conversions")
async def begin_conversion(request: web.Request) -> web.Response:
    """Takes a sound file and begins to change its voice."""
    change = VoiceChange(
        _semitones(request, "pitch"), _semitones(request, "formant"), request.query.get("conversion", "")
    )
    begun = await request.app[CONVERSIONS].begin(request, change)
    return web.json_response(begun.to_dict(), status=202)


@conversion_routes.get(_PATH)
async def conversion(request: web.Request) -> web.Response:
    """How far a conversion is."""
    return web.json_response(_conversion(request).to_dict(), headers={"Cache-Control": "no-store"})


@conversion_routes.get(f"{_PATH}/audio")
async def conversion_audio(request: web.Request) -> web.Response:
    """The changed sound as a file."""
    finished = _conversion(request)
    headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="converted.wav"'}
    # Tens of megabytes are copied.
    file = await request.app[SERVICES].stage.on_file_thread(finished.wav)
    return web.Response(body=file, content_type="audio/wav", headers=headers)


@conversion_routes.delete(_PATH)
async def forget_conversion(request: web.Request) -> web.Response:
    """Gives up a conversion."""
    await request.app[CONVERSIONS].forget(request.match_info["conversion_id"])
    return web.Response(status=204)
