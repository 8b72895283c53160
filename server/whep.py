"""WHEP (draft-ietf-wish-whep): players that know nothing of avatars watch one.

Place in the flow: middleware -> handler -> ``open_session``; ``PATCH`` -> ``Peer.add_candidates``; ``DELETE`` ends it.

Invariants:
    * every player watches a session of its own, whose microphone is ignored; the last part of ``Location`` is the
      session's id, by which a program beside the player has it say something;
    * a session has one ICE session from its first to its last moment, so its entity-tag never changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiortc import RTCIceCandidate
from multidict import CIMultiDict

from engine.errors import InvalidInput, OfferInvalid
from server import schemas, signaling
from server.bodies import read_text
from server.door import open_session
from server.services import SERVICES

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
ETAG = "1"

_FRESH = {"Cache-Control": "no-store"}

whep_routes = web.RouteTableDef()


@whep_routes.options("/whep/{avatar}")
async def whep_options(request: web.Request) -> web.Response:
    """Says what is understood here."""
    request.app[SERVICES].stage.known(request.match_info["avatar"])
    return understood()


@whep_routes.post("/whep/{avatar}")
async def whep(request: web.Request) -> web.Response:
    """Answers a player's offer with a new session."""
    avatar = request.app[SERVICES].stage.known(request.match_info["avatar"])
    sdp = await read_player_offer(request)
    wanted = schemas.Offer(sdp=sdp, type="offer", avatar=avatar, mode="say")
    live, description = await open_session(request, wanted)
    return answered(request, f"/whep/{avatar}/{live.id}", description)


@whep_routes.patch("/whep/{avatar}/{session_id}")
async def whep_candidates(request: web.Request) -> web.Response:
    """Takes candidates that came after a player's offer."""
    live = request.app[SERVICES].sessions.get(request.match_info["session_id"])
    await live.peer.add_candidates(await read_candidates(request))
    return web.Response(status=204)


@whep_routes.delete("/whep/{avatar}/{session_id}")
async def whep_end(request: web.Request) -> web.Response:
    """Ends a player's session; answers when its place is free."""
    await request.app[SERVICES].sessions.close(request.match_info["session_id"])
    return web.Response()


def understood() -> web.Response:
    """The answer to whoever asks what may be posted."""
    return web.Response(status=204, headers={"Accept-Post": SDP, "Allow": "OPTIONS, POST"})


async def read_player_offer(request: web.Request) -> str:
    """The session description of a player.

    Raises:
        InvalidInput: ``not_acceptable`` and what ``read_text`` finds.
        OfferInvalid: ``offer_invalid``.
    """
    sdp = await read_text(request, SDP)
    if not _accepts(request.headers.get("Accept", ""), SDP):
        raise InvalidInput("not_acceptable", f"The answer is {SDP}, which the request does not accept.")
    if not sdp.strip():
        raise OfferInvalid("offer_invalid", "The offer cannot be answered: it is empty.")
    return sdp


def answered(request: web.Request, location: str, description: signaling.Description) -> web.Response:
    """The answer to a player's offer, and where its session is."""
    headers = CIMultiDict({"Location": location, "ETag": f'"{ETAG}"', "Accept-Patch": FRAGMENT}, **_FRESH)
    for server in request.app[SERVICES].ice.fresh():
        headers.add("Link", _link(server))
    return web.Response(status=201, body=description.sdp.encode(), content_type=SDP, headers=headers)


async def read_candidates(request: web.Request) -> list[RTCIceCandidate]:
    """What a player found after its offer.

    Raises:
        InvalidInput: ``ice_restart_unsupported``, ``precondition_failed``, ``candidate_invalid``.
    """
    fragment = await read_text(request, FRAGMENT)
    wanted = [tag.value for tag in request.if_match or ()]
    if "*" in wanted:
        raise InvalidInput("ice_restart_unsupported", "A connection cannot be restarted; make a new one.")
    if wanted and ETAG not in wanted:
        raise InvalidInput("precondition_failed", "The entity-tag is not that of this session.")
    return _candidates(fragment)


def _accepts(accept: str, wanted: str) -> bool:
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")} - {""}
    return not types or bool(types & {wanted, f"{wanted.partition('/')[0]}/*", "*/*"})


def _link(server: Mapping[str, Any]) -> str:
    link = f'<{server["urls"]}>; rel="ice-server"'
    if "username" in server and "credential" in server:
        quoted = [re.sub(r'(["\\])', r"\\\1", text) for text in (server["username"], server["credential"])]
        link += '; username="{}"; credential="{}"; credential-type="password"'.format(*quoted)
    return link


def _candidates(fragment: str) -> list[RTCIceCandidate]:
    """The candidates of an SDP fragment (RFC 8840), each with the section it stands in; before any, the first one."""
    found = []
    mid: str | None = None
    index = -1
    for line in fragment.splitlines():
        if line.startswith("m="):
            mid, index = None, index + 1
        elif line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:").strip()
        elif line.startswith("a=candidate:"):
            candidate = signaling.read_candidate(line, mid, None if mid is not None else max(index, 0))
            if candidate is not None:
                found.append(candidate)
    return found
