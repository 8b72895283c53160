"""The gate: who may do what, decided once, before a handler or a session costs anything.

Place in the flow: middleware -> ``Access.require``; handlers that open sessions -> ``Access.grant`` -> ``admission``;
``POST /tokens`` -> ``Access.mint``.

Invariants:
    * whatever the tables below do not name needs an API key, so a new route is closed until somebody opens it;
    * a token or ticket is worth one session: it is spent before the first await, and given back only when the session
      did not come about;
    * nothing is asked of whoever is on this machine, on a server that listens to nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from engine.config import Config
from engine.errors import AccessDenied, Busy
from server.access import address, keys, tokens
from server.access.embeds import Embeds
from server.access.grant import Grant
from server.access.keys import ApiKeys
from server.access.line import HIGHEST_PRIORITY, RETRY_AFTER_S, USUAL_PRIORITY, Line, Waiting
from server.access.rates import Rates
from server.access.tokens import Claims, Tokens
from server.access.turn import IceServers
from server.schemas import TokenRequest

PUBLIC = {
    ("GET", "/avatars"),
    ("GET", "/avatars/{name}/cutout.webp"),
    ("GET", "/avatars/{name}/poster.jpg"),
    ("GET", "/avatars/{name}/preview.mp4"),
    ("GET", "/avatars/{name}/thumbnail.webp"),
    ("GET", "/broadcasts/{broadcast_id}"),
    ("GET", "/config.json"),
    ("GET", "/embed/snippet"),
    ("GET", "/embed/{script}"),
    ("GET", "/healthz"),
    ("GET", "/openapi.json"),
    ("GET", "/studio.json"),
}
"""What a page shows before it connects: open to everybody."""

ADMITTED = {
    ("POST", "/offer"),
    ("POST", "/api/offer"),
    ("POST", "/whep/{avatar}"),
    ("OPTIONS", "/whep/{avatar}"),
    ("POST", "/whep/watch/{broadcast_id}"),
    ("OPTIONS", "/whep/watch/{broadcast_id}"),
    ("POST", "/tokens"),
    ("GET", "/embed"),
    ("GET", "/doctor"),
}
"""Routes that ask for a permission themselves: ``grant``, ``mint``, ``framing``, or for viewers, a mere ``count``."""

IN_SESSION = (
    "/sessions/{session_id}",
    "/conversions/{conversion_id}",
    "/avatars/{job_id}/job",
    "/whep/{avatar}/{session_id}",
    "/whep/watch/{broadcast_id}/{viewer_id}",
)
"""Routes below an unguessable id that only its owner was told: whoever knows it may."""

NAMING_A_SESSION = {
    ("PATCH", "/api/offer"),
    ("POST", "/human"),
    ("POST", "/humanaudio"),
    ("POST", "/interrupt_talk"),
    ("POST", "/is_speaking"),
    ("POST", "/record"),
    ("GET", "/record/{session_id}"),
}
"""The same of other projects' interfaces, where the id stands elsewhere, mostly in the body."""

FOR_VISITORS = {("POST", "/conversions")}
"""Routes for which the id of a session that lives is enough, as ``Authorization: Bearer``."""

FOR_OWNERS = {
    ("POST", "/avatars"),
    ("DELETE", "/avatars/{name}"),
    ("POST", "/broadcasts"),
    ("DELETE", "/broadcasts/{broadcast_id}"),
    ("GET", "/doctor.json"),
    ("GET", "/sessions/{session_id}/outputs"),
    ("POST", "/sessions/{session_id}/outputs"),
    ("DELETE", "/sessions/{session_id}/outputs/{name}"),
}
"""Routes that change or examine the server itself, or speak in its owner's name: from elsewhere they need an API key
even where all else is open, and a session's id is not enough."""

PAGE_TOKEN_S = 12 * 3600
"""How long an embed may be looked at before somebody begins to talk; then it loads itself again."""
DEFAULT_TOKEN_S = 300

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


class Places(Protocol):
    """The part of ``Sessions`` that is used here."""

    @property
    def free(self) -> int:
        """Places that are not taken."""
        ...

    async def knows(self, session_id: str) -> bool:
        """Whether there is such a session."""
        ...

    def turned_away(self) -> None:
        """Counts an offer for which there was no place."""
        ...


class Access:
    """Decides for one server."""

    def __init__(self, config: Config, ice: IceServers, places: Places) -> None:
        """Args: config: options; ice: servers to connect through; places: of the server."""
        self._config = config
        self._ice = ice
        self._places = places
        self._own_machine = address.is_loopback(config.host)
        self.keys = ApiKeys(config.data_dir)
        self.embeds = Embeds(config.data_dir)
        self.tokens = Tokens()
        self._line: Line[Grant] = Line()
        self.shared = False
        """Whether the line and the tokens that were used are those of several gateways: whoever gives the place keeps
        them, and nothing of it is decided here."""
        self._per_address = Rates(config.rate_per_address)
        self._per_key = Rates(config.rate_per_key)

    @property
    def is_unreachable(self) -> bool:
        """Whether a key or token is needed of everybody and nobody can have one."""
        needed = self._config.access == "closed" or (self._config.access == "auto" and not self._own_machine)
        return needed and not self.keys.any and not self.embeds.any

    def is_open(self, request: web.Request) -> bool:
        """Whether nothing is needed of this caller."""
        if self._config.access == "auto":
            return self._is_own(request)
        return self._config.access == "open"

    def _is_own(self, request: web.Request) -> bool:
        """Whether it comes from this machine, on a server that listens to nobody else."""
        return self._own_machine and address.is_local(request)

    async def require(self, request: web.Request) -> None:
        """Lets a request through to its handler, or not.

        Raises:
            AccessDenied: ``key_required``, ``key_unknown``.
            Busy: ``too_many_requests``.
        """
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else ""
        method = "GET" if request.method == "HEAD" else request.method
        if (method, path) in PUBLIC | ADMITTED | NAMING_A_SESSION:
            return
        for_owners = (method, path) in FOR_OWNERS
        if not for_owners and any(path == prefix or path.startswith(f"{prefix}/") for prefix in IN_SESSION):
            return
        if method not in _SAFE_METHODS:
            self.count(request)
        if self.is_open(request) and (self._is_own(request) or not for_owners):
            return
        if (method, path) in FOR_VISITORS and await self._places.knows(_bearer(request)):
            return
        self._require_key(_bearer(request))

    def grant(self, request: web.Request, token: str | None = None, ticket: str | None = None) -> Grant:
        """What somebody may do who wants a session.

        Args:
            request: the offer; a token or key may be its ``Authorization: Bearer``.
            token: member of its body.
            ticket: member of its body; empty at the first try of somebody who would wait.

        Raises:
            AccessDenied: ``key_required``, ``key_unknown``, ``token_invalid``, ``token_expired``, ``token_used``,
                ``token_origin``.
            Busy: ``too_many_requests``.
        """
        if ticket and (waiting := self._line.find(ticket)) is not None:
            self._check_issuer(waiting.by, waiting.avatar, waiting.token.origin if waiting.token else None)
            return replace(waiting, ticket=ticket)
        self.count(request)
        ticket = self._ticket(ticket)
        shown = token or _bearer(request)
        if shown.startswith(tokens.PREFIXES["session"]):
            claims = self.session_claims(shown)
            _check_origin(claims, request)
            priority = USUAL_PRIORITY if claims.priority is None else claims.priority
            return Grant(claims.by, claims.avatar, claims.max_session_s, claims, ticket, priority, priority)
        if shown.startswith(keys.PREFIX) or not self.is_open(request):
            return Grant(by=self._require_key(shown), ticket=ticket, highest=HIGHEST_PRIORITY)
        return Grant(ticket=ticket, highest=HIGHEST_PRIORITY if self._is_own(request) else USUAL_PRIORITY)

    def returning(self, ticket: str | None, priority: int = USUAL_PRIORITY) -> Grant:
        """What somebody may do whose session goes on as another one: they were let in when it began.

        Args:
            ticket: as for ``grant``.
            priority: that the session had.
        """
        if ticket and (waiting := self._line.find(ticket)) is not None:
            return replace(waiting, ticket=ticket)
        return Grant(ticket=self._ticket(ticket), priority=priority)

    def session_claims(self, token: str) -> Claims:
        """What a session token permits, if it is good and whoever minted it still may.

        Raises:
            AccessDenied: ``token_invalid``, ``token_expired``, ``token_used``.
        """
        claims = self.tokens.check("session", token)
        self._check_issuer(claims.by, claims.avatar, claims.origin)
        return claims

    @contextmanager
    def admission(self, grant: Grant) -> Iterator[None]:
        """Around the opening of a session: waits in line, spends what is spent, gives it back when the block raises.

        The block must take its place before its first await, as ``Sessions.open`` does.

        Raises:
            Waiting: ``server_full``, with a ticket.
            Busy: ``server_full`` for somebody who does not wait.
            AccessDenied: ``token_used``.
        """
        if self.shared:
            yield
            return
        if self._line.ahead(grant.ticket, grant.priority) >= self._places.free:
            self._places.turned_away()
            raise self._waiting(grant)
        holds_ticket = bool(grant.ticket)
        if holds_ticket:
            self._line.leave(grant.ticket or "")
        elif grant.token is not None:
            self.tokens.spend(grant.token)
        try:
            yield
        except BaseException:
            if holds_ticket:
                self._line.return_first(grant.ticket or "", grant, grant.priority)
            elif grant.token is not None:
                self.tokens.give_back(grant.token)
            raise

    def _ticket(self, shown: str | None) -> str | None:
        """A ticket that is not in the line here: nobody's, unless the line is elsewhere."""
        return shown if shown is None or self.shared else ""

    def _waiting(self, grant: Grant) -> Busy:
        if grant.ticket is None:
            # A client that knows of no line comes after all who stand in it.
            return Busy("server_full", "All places are taken; try again in a moment.", retry_after_s=RETRY_AFTER_S)
        ticket = grant.ticket
        if not ticket:
            self._line.require_room()
            if grant.token is not None:
                self.tokens.spend(grant.token)
            ticket = self._line.join(grant, grant.priority)
        return Waiting(ticket, self._line.ahead(ticket) + 1)

    def mint(self, request: web.Request, asked: TokenRequest) -> dict[str, Any]:
        """A session token for whoever shows a key, or for the frame that shows its page token.

        Args:
            request: its ``Authorization: Bearer`` is the key.
            asked: what the token is to permit.

        Raises:
            AccessDenied: ``key_required``, ``key_unknown``, ``priority_denied``; of a page token as ``grant``.
            Busy: ``too_many_requests``.
        """
        self.count(request)
        limit_s = self._config.max_session_s
        if asked.page_token is not None:
            page = self.tokens.check("page", asked.page_token)
            self._check_issuer(page.by, page.avatar, page.origin)
            self._per_key.take(page.by)
            self.tokens.spend(page)
            by, avatar, origin = page.by, page.avatar, page.origin
        else:
            shown = _bearer(request)
            by = "" if not shown and self.is_open(request) else self._require_key(shown)
            highest = HIGHEST_PRIORITY if by or self._is_own(request) else USUAL_PRIORITY
            Grant(highest=highest).with_priority(asked.priority)
            avatar, origin = asked.avatar, asked.origin
        max_session_s = min(limit_s, asked.max_session_s or limit_s)
        lifetime_s = asked.duration_s or DEFAULT_TOKEN_S
        token, claims = self.tokens.mint(
            "session", by, lifetime_s, avatar=avatar, origin=origin, max_session_s=max_session_s,
            priority=asked.priority,
        )  # fmt: skip
        answer: dict[str, Any] = {
            "token": token,
            "expires_at": datetime.fromtimestamp(claims.expires_s, UTC).isoformat(),
            "session_max_s": max_session_s,
            "ice_servers": self._ice.fresh(),
        }
        if asked.page_token is not None:
            answer["page_token"] = self.page_token(by, avatar, origin)
        return answer

    def page_token(self, by: str, avatar: str | None, origin: str | None) -> str:
        """A token for one loaded frame, good for one exchange at ``POST /tokens``."""
        return self.tokens.mint("page", by, PAGE_TOKEN_S, avatar=avatar, origin=origin)[0]

    def ice_servers(self, request: web.Request) -> list[dict[str, Any]]:
        """Servers to connect through, for a caller who has shown nothing: credentials only where nothing is needed."""
        return self._ice.fresh() if self.is_open(request) else self._ice.public()

    def _check_issuer(self, by: str, avatar: str | None, origin: str | None) -> None:
        kind, _, key = by.partition(":")
        if kind == "embed":
            embed = self.embeds.find(key)
            stands = embed is not None and embed.avatar == avatar and origin in embed.origins
        else:
            stands = not by or self.keys.stands(by)
        if not stands:
            raise AccessDenied("token_invalid", "The key or embed behind this token was taken back.")

    def _require_key(self, shown: str) -> str:
        if not shown.startswith(keys.PREFIX):
            raise AccessDenied(
                "key_required", "This server needs an API key or a session token: Authorization: Bearer …"
            )
        key = self.keys.find(shown)
        if key is None:
            raise AccessDenied("key_unknown", "This API key is not one of this server's, or was revoked.")
        self._per_key.take(key.id)
        return key.id

    def count(self, request: web.Request) -> None:
        """Counts a request that costs something. Raises Busy ``too_many_requests``."""
        if not (self._own_machine and address.is_local(request)):
            self._per_address.take(address.caller(request, self._config.trusted_proxies))


ACCESS: web.AppKey[Access] = web.AppKey("access", Access)


def gate(access: Access) -> Middleware:
    """Middleware that lets requests through to their handlers. The page's files, which no route answers, pass."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.match_info.http_exception is None:
            await access.require(request)
        return await handler(request)

    return middleware


def _bearer(request: web.Request) -> str:
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    return shown.strip() if scheme.lower() == "bearer" else ""


def _check_origin(claims: Claims, request: web.Request) -> None:
    """Holds a token to its pages. Our own pages pass: who may frame them was decided when they were asked for."""
    if claims.origin is None:
        return
    origin = request.headers.get("Origin", "")
    if origin != claims.origin and (not origin or urlsplit(origin).netloc.lower() != request.host.lower()):
        raise AccessDenied("token_origin", f"This token is for pages of {claims.origin} alone.")
