"""The routes of outputs: which sessions are sent where, by name.

Place in the flow: middleware (API key) -> handler -> ``Outputs``.

Invariants: no member of a body is an address.
"""

from __future__ import annotations

from aiohttp import web

from server import schemas
from server.bodies import read_json
from server.outputs.outputs import OUTPUTS
from server.services import SERVICES

output_routes = web.RouteTableDef()

_PATH = "/sessions/{session_id}/outputs"


@output_routes.get(_PATH)
async def outputs(request: web.Request) -> web.Response:
    """Where a session is sent and how that goes, and where it may be sent."""
    live = request.app[SERVICES].sessions.get(request.match_info["session_id"])
    known = request.app[OUTPUTS]
    return web.json_response({"outputs": [output.to_dict() for output in known.of(live.id)], "targets": known.names})


@output_routes.post(_PATH)
async def start_output(request: web.Request) -> web.Response:
    """Sends a session to a target of the options from now on."""
    live = request.app[SERVICES].sessions.get(request.match_info["session_id"])
    body = await read_json(request, schemas.StartOutput)
    return web.json_response(request.app[OUTPUTS].start(live, body.name).to_dict(), status=201)


@output_routes.delete(_PATH + "/{name}")
async def stop_output(request: web.Request) -> web.Response:
    """Ends an output; answers when its connection is closed."""
    live = request.app[SERVICES].sessions.get(request.match_info["session_id"])
    await request.app[OUTPUTS].stop(live.id, request.match_info["name"])
    return web.Response(status=204)
