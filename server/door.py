"""The one door into the server: every way of asking for a session, whatever it is called, goes through here.

Place in the flow: POST /offer, /api/offer, /whep/{avatar} -> ``open_session`` -> ``Sessions.open``.

Invariants: who may not come in, and what cannot be had (an avatar, a style, a model), is refused before a place is
taken.
"""

from __future__ import annotations

from aiohttp import web

from engine.errors import OfferInvalid
from server import schemas
from server.access.gate import ACCESS
from server.services import SERVICES
from server.sessions import LiveSession
from server.signaling import Description
from server.stage import Wishes


async def open_session(request: web.Request, wanted: schemas.Offer) -> tuple[LiveSession, Description]:
    """Answers an offer with a new session, or with the one it comes back to.

    Args:
        request: who asks.
        wanted: what for.

    Raises:
        OfferInvalid: ``offer_invalid``.
        NotFound: ``avatar_unknown``, ``style_unknown``, ``language_model_unknown``.
        AccessDenied: what was shown does not permit it, or nothing was.
        Busy: ``server_full``, ``too_many_requests``.
        Closed: the server is stopping.
    """
    services = request.app[SERVICES]
    stage = services.stage
    if wanted.session_id and services.sessions.lives(wanted.session_id):
        # Whoever knows the id was let in already.
        return _dressed(wanted, *await services.sessions.rejoin(wanted.session_id, wanted.sdp, wanted.type))
    if not wanted.sdp.strip():
        raise OfferInvalid("offer_invalid", "The offer cannot be answered: it is empty.")
    access = request.app[ACCESS]
    grant = access.grant(request, wanted.token, wanted.ticket)
    avatar = stage.known(grant.avatar_for(wanted.avatar))
    mode = stage.mode if wanted.mode is None else "say" if wanted.mode == "idle" else wanted.mode
    wishes = Wishes(wanted.quality, wanted.style or "", wanted.language_model or "")
    stage.character(avatar).known_style(wishes.style)
    stage.language_models.known(wishes.language_model)
    with access.admission(grant):
        opened = await services.sessions.open(avatar, wanted.sdp, wanted.type, mode, wishes, grant.max_session_s)
    return _dressed(wanted, *opened)


def _dressed(
    wanted: schemas.Offer, live: LiveSession, description: Description
) -> tuple[LiveSession, Description]:
    """The session with its pictures as they were asked for."""
    if wanted.background is not None:
        live.peer.packing.choose(wanted.background)
    return live, description
