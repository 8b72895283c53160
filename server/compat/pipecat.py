"""Offers as Pipecat's small WebRTC transport makes them: a ``pc_id``, candidates that come later.

Place in the flow: middleware -> handler -> ``open_session``, ``Peer.add_candidates``. The data channel of such a client
is called ``chat`` and speaks RTVI, see ``server.rtvi``.

A ``pc_id`` is the session's id. Neither side's connection can be restarted, so a client that lost it makes a new one
and says ``restart_pc``, and the session goes on; a client whose session is gone begins a new one.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from engine.errors import InvalidInput
from server import schemas, signaling
from server.bodies import read_json
from server.door import open_session
from server.services import SERVICES

pipecat_routes = web.RouteTableDef()


@pipecat_routes.post("/api/offer")
async def pipecat_offer(request: web.Request) -> web.Response:
    """Answers an offer in Pipecat's words."""
    body = await read_json(request, schemas.PipecatOffer)
    if body.pc_id and not body.restart_pc and await request.app[SERVICES].sessions.knows(body.pc_id):
        raise InvalidInput(
            "renegotiation_unsupported", "A connection cannot be changed; make a new one, with restart_pc."
        )
    wishes: dict[str, Any] = body.request_data if isinstance(body.request_data, dict) else {}
    wanted = schemas.Offer.model_validate(
        {**wishes, "sdp": body.sdp, "type": body.type, "session_id": body.pc_id or None}
    )
    live, description = await open_session(request, wanted)
    answer: dict[str, Any] = {
        "sdp": description.sdp, "type": description.type, "pc_id": live.id, "session_id": live.id
    }  # fmt: skip
    if live.resumed:
        answer["resumed"] = True
    return web.json_response(answer, headers={"Cache-Control": "no-store"})


@pipecat_routes.patch("/api/offer")
async def pipecat_candidates(request: web.Request) -> web.Response:
    """Takes candidates that came after an offer."""
    body = await read_json(request, schemas.PipecatCandidates)
    live = request.app[SERVICES].sessions.get(body.pc_id)
    read = [signaling.read_candidate(one.candidate, one.sdp_mid, one.sdp_mline_index) for one in body.candidates]
    await live.peer.add_candidates([candidate for candidate in read if candidate is not None])
    return web.json_response({"status": "success"})
