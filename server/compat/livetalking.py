"""LiveTalking's HTTP interface over our sessions, so that its clients work unchanged.

Place in the flow: its client's ``POST /offer`` is our own, which answers with ``sessionid`` too -> these routes ->
Session.

Invariants:
    * every answer of these routes is ``{"code", "msg", "data"?}`` with status 200, as its clients expect; ``code`` 0 is
      success and -1 everything that is wrong;
    * a session's id is the key to it, here too: its clients treat it as a text they were given.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any

from aiohttp import BodyPartReader, web
from pydantic import ValidationError

from engine.errors import InvalidInput, VisavisError
from server import schemas
from server.bodies import read_json
from server.compat.recording import RECORDINGS
from server.live_session import LiveSession
from server.schemas import explain_validation
from server.services import SERVICES
from server.uploads import CHUNK_BYTES

logger = logging.getLogger(__name__)

MAX_ID_BYTES = 100

livetalking_routes = web.RouteTableDef()

Said = Callable[[web.Request], Awaitable[object]]


def _reply(say: Said) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that answers in LiveTalking's form with what a function returns or raises."""

    @wraps(say)
    async def handler(request: web.Request) -> web.Response:
        answer: dict[str, Any]
        try:
            data = await say(request)
        except VisavisError as error:
            answer = {"code": -1, "msg": error.message}
        except ValidationError as error:
            answer = {"code": -1, "msg": explain_validation(error)}
        except web.HTTPException:
            raise
        except Exception:
            logger.exception("%s failed", request.path)
            answer = {"code": -1, "msg": "Something went wrong on the server; its log says what."}
        else:
            answer = {"code": 0, "msg": "ok"} | ({} if data is None else {"data": data})
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    return handler


def _live(request: web.Request, session_id: str) -> LiveSession:
    return request.app[SERVICES].sessions.get(session_id)


@livetalking_routes.post("/human")
@_reply
async def human(request: web.Request) -> None:
    """Says a text (``echo``) or answers it (``chat``)."""
    body = await read_json(request, schemas.LiveTalkingText)
    session = _live(request, body.sessionid).session
    if body.type == "chat":
        # Whoever asks interrupts.
        await session.ask(body.text)
        return
    if body.interrupt:
        await session.interrupt()
    session.say(body.text)


@livetalking_routes.post("/humanaudio")
@_reply
async def humanaudio(request: web.Request) -> None:
    """Speaks a sound file; its form may name the session before the file or after it."""
    fields: dict[str, str] = {}
    samples = await request.app[SERVICES].uploads.sound(request, _file_of_form(request, fields))
    _live(request, fields.get("sessionid", "")).session.play(samples, "file")


@livetalking_routes.post("/interrupt_talk")
@_reply
async def interrupt_talk(request: web.Request) -> None:
    """Silence now."""
    body = await read_json(request, schemas.LiveTalkingSession)
    await _live(request, body.sessionid).session.interrupt()


@livetalking_routes.post("/is_speaking")
@_reply
async def is_speaking(request: web.Request) -> bool:
    """Whether the avatar says something."""
    body = await read_json(request, schemas.LiveTalkingSession)
    return _live(request, body.sessionid).peer.channel.speaking


@livetalking_routes.post("/record")
@_reply
async def record(request: web.Request) -> None:
    """Begins or ends a recording; ended, its file is complete."""
    body = await read_json(request, schemas.LiveTalkingRecord)
    recordings = request.app[RECORDINGS]
    live = _live(request, body.sessionid)
    if body.type == "start_record":
        recordings.start(live)
    else:
        await recordings.stop(live.id)


@livetalking_routes.get("/record/{session_id}")
async def recorded(request: web.Request) -> web.StreamResponse:
    """The last recording of a session."""
    path = request.app[RECORDINGS].file(request.match_info["session_id"])
    headers = {"Content-Disposition": 'attachment; filename="recording.mp4"', "Cache-Control": "no-store"}
    return web.FileResponse(path, headers=headers)


async def _file_of_form(request: web.Request, fields: dict[str, str]) -> AsyncIterator[bytes]:
    """The bytes of a form's file; puts its other fields beside it.

    Raises:
        InvalidInput: ``unsupported_media_type`` or ``invalid_form``.
        NotFound: there is no such session.
    """
    if not request.content_type.startswith("multipart/"):
        raise InvalidInput("unsupported_media_type", "Send a form with the sessionid and a file.")
    found = False
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            if part.name == "sessionid":
                fields["sessionid"] = (await part.read_chunk(MAX_ID_BYTES)).decode(errors="replace").strip()
                # Before many megabytes are read for nothing.
                _live(request, fields["sessionid"]).session.require_room()
            elif part.filename is not None and not found:
                found = True
                while chunk := await part.read_chunk(CHUNK_BYTES):
                    yield chunk
    except ValueError as error:
        raise InvalidInput("invalid_form", "The form cannot be read.") from error
    if not found:
        raise InvalidInput("invalid_form", "The form has no file.")
    # Before it is decoded for nobody.
    _live(request, fields.get("sessionid", ""))
