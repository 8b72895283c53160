"""The one door into the server: every way of asking for a session, whatever it is called, goes through here.

Place in the flow: POST /offer, /api/offer, /whep/{avatar} -> ``open_session`` -> ``Sessions.open``.

Invariants: who may not come in, and what cannot be had (an avatar, a style, a model), is refused before a place is
taken; whoever leaves before the answer leaves no session behind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable
from dataclasses import replace

from aiohttp import web

from engine.errors import NotFound, OfferInvalid
from server import schemas
from server.access.gate import ACCESS
from server.live_session import LiveSession
from server.services import SERVICES
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
        AccessDenied: what was shown does not permit it, or nothing was; ``priority_denied``.
        Busy: ``server_full``, ``too_many_requests``.
        Closed: the server is stopping.
    """
    services = request.app[SERVICES]
    stage = services.stage
    sessions = services.sessions
    if wanted.session_id and await sessions.knows(wanted.session_id):
        # Whoever knows the id was let in already.
        return await sessions.rejoin(wanted.session_id, wanted.sdp, wanted.type, wanted.background)
    if not wanted.sdp.strip():
        raise OfferInvalid("offer_invalid", "The offer cannot be answered: it is empty.")
    access = request.app[ACCESS]
    if wanted.session_id and (former := await sessions.recall(wanted.session_id)) is not None:
        # It was lost without anybody's doing, and goes on as another one.
        wishes = former.wishes(wanted.session_id, wanted.background)
        grant = access.returning(wanted.ticket, wishes.priority)
        wishes = replace(wishes, standing=grant.standing)
        with access.admission(grant):
            opening = sessions.open(
                stage.known(former.avatar), wanted.sdp, wanted.type, former.mode, wishes, former.left_s()
            )
            return await _for_somebody(request, opening)
    grant = access.grant(request, wanted.token, wanted.ticket).with_priority(wanted.priority)
    avatar = stage.known(grant.avatar_for(wanted.avatar))
    mode = stage.mode if wanted.mode is None else "say" if wanted.mode == "idle" else wanted.mode
    wishes = Wishes(
        wanted.quality, wanted.style or "", wanted.language_model or "", wanted.background, priority=grant.priority,
        standing=grant.standing,
    )  # fmt: skip
    stage.character(avatar).known_style(wishes.style)
    stage.language_models.known(wishes.language_model)
    with access.admission(grant):
        opening = sessions.open(avatar, wanted.sdp, wanted.type, mode, wishes, grant.max_session_s)
        return await _for_somebody(request, opening)


async def _for_somebody(
    request: web.Request, opening: Awaitable[tuple[LiveSession, Description]]
) -> tuple[LiveSession, Description]:
    live, description = await opening
    if request.transport is None:
        # A page that was closed while it asked never learns the id, and the place would wait for it for seconds.
        with contextlib.suppress(NotFound):
            await request.app[SERVICES].sessions.close(live.id)
    return live, description
