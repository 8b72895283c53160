"""The routes of broadcasts: owners open and end them, whoever knows the id watches, by WHEP or with our own page.

Place in the flow: middleware -> handler -> ``Broadcasts``; the page's offer comes through ``POST /offer`` with
``watch``.

Invariants: who watches needs nothing but the id, and is told nothing by which the broadcast could be controlled.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from engine.errors import Busy
from server import schemas
from server.access.gate import ACCESS
from server.bodies import read_json
from server.broadcast import Broadcast, Broadcasts
from server.outputs.outputs import OUTPUTS
from server.services import SERVICES
from server.signaling import Description
from server.stage import Wishes
from server.whep import answered, read_candidates, read_player_offer, understood

BROADCASTS: web.AppKey[Broadcasts] = web.AppKey("broadcasts", Broadcasts)

_FRESH = {"Cache-Control": "no-store"}

broadcast_routes = web.RouteTableDef()


@broadcast_routes.post("/broadcasts")
async def open_broadcast(request: web.Request) -> web.Response:
    """Begins a broadcast."""
    body = await read_json(request, schemas.BroadcastRequest)
    stage = request.app[SERVICES].stage
    avatar = stage.known(body.avatar)
    wishes = Wishes(body.quality, body.style or "", body.language_model or "")
    stage.character(avatar).known_style(wishes.style)
    stage.language_models.known(wishes.language_model)
    mode = body.mode or ("say" if stage.mode == "mirror" else stage.mode)
    outputs = request.app[OUTPUTS]
    outputs.known(body.outputs)
    broadcast = await request.app[BROADCASTS].open(avatar, mode, wishes)
    try:
        for name in body.outputs:
            outputs.start(broadcast.live, name)
    except Busy:
        # Somebody else was sent there while this was opened.
        await request.app[BROADCASTS].close(broadcast.id)
        raise
    return web.json_response(
        {**_told(request, broadcast), "session_id": broadcast.live.id, "page": f"/watch?id={broadcast.id}"},
        status=201,
        headers={"Location": f"/broadcasts/{broadcast.id}", **_FRESH},
    )


@broadcast_routes.get("/broadcasts/{broadcast_id}")
async def broadcast_state(request: web.Request) -> web.Response:
    """What is shown, and how many watch."""
    return web.json_response(_told(request, _broadcast(request)), headers=_FRESH)


@broadcast_routes.delete("/broadcasts/{broadcast_id}")
async def end_broadcast(request: web.Request) -> web.Response:
    """Ends a broadcast; answers when its place is free."""
    await request.app[BROADCASTS].close(_broadcast(request).id)
    return web.Response(status=204)


@broadcast_routes.options("/whep/watch/{broadcast_id}")
async def whep_watch_options(request: web.Request) -> web.Response:
    """Says what is understood here."""
    _broadcast(request)
    return understood()


@broadcast_routes.post("/whep/watch/{broadcast_id}")
async def whep_watch(request: web.Request) -> web.Response:
    """Answers the offer of a player that would watch."""
    broadcast = _broadcast(request)
    viewer_id, description = await watch(request, broadcast.id, await read_player_offer(request), "offer")
    return answered(request, f"/whep/watch/{broadcast.id}/{viewer_id}", description)


@broadcast_routes.patch("/whep/watch/{broadcast_id}/{viewer_id}")
async def whep_watch_candidates(request: web.Request) -> web.Response:
    """Takes candidates that came after a player's offer."""
    viewer = request.app[BROADCASTS].viewer(request.match_info["broadcast_id"], request.match_info["viewer_id"])
    await viewer.trickle.add(await read_candidates(request))
    return web.Response(status=204)


@broadcast_routes.delete("/whep/watch/{broadcast_id}/{viewer_id}")
async def whep_watch_end(request: web.Request) -> web.Response:
    """Lets a player go."""
    viewer = request.app[BROADCASTS].viewer(request.match_info["broadcast_id"], request.match_info["viewer_id"])
    viewer.end()
    return web.Response()


async def watch(request: web.Request, broadcast_id: str, sdp: str, kind: str) -> tuple[str, Description]:
    """Answers an offer of somebody who would watch; see ``Broadcasts.watch``.

    Raises:
        Busy: ``too_many_requests`` besides.
    """
    request.app[ACCESS].count(request)
    return await request.app[BROADCASTS].watch(broadcast_id, sdp, kind)


def _broadcast(request: web.Request) -> Broadcast:
    return request.app[BROADCASTS].get(request.match_info["broadcast_id"])


def _told(request: web.Request, broadcast: Broadcast) -> dict[str, Any]:
    card = request.app[SERVICES].stage.cards[broadcast.live.avatar]
    width, height = card.size
    return {
        "id": broadcast.id,
        "avatar": broadcast.live.avatar,
        "title": card.title,
        "width": width,
        "height": height,
        "viewers": len(broadcast.viewers),
        "most_viewers": request.app[BROADCASTS].most_viewers,
    }
