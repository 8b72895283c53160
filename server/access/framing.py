"""Which pages may hold the embed in a frame, and what the frame may do.

Place in the flow: GET /embed -> ``framing`` -> ``frame-ancestors`` and the page token in the page's own HTML.

Why a frame may be believed. What runs in it has *our* origin, so the Origin of its requests says nothing about the page
around it. Two things do. ``frame-ancestors`` has the browser itself refuse every page that is not listed. And the
Referer of the request for the frame's document, which no script can choose, is the origin of the page that asked for
it; only when that one is listed does the document carry a page token. The token is good for one exchange and for this
avatar, so a page of another origin can neither show the frame nor read its HTML nor get a token of its own. A program
outside a browser can claim any Referer: against that stand the rates, the limits of a session, and that nothing more
than a visitor's session can be had this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from engine.config import Config
from engine.errors import AccessDenied, InvalidInput
from server.access.address import is_loopback
from server.access.embeds import origin_of
from server.access.gate import Access

_THIS_MACHINE = ("http://localhost:*", "https://localhost:*", "http://127.0.0.1:*", "https://127.0.0.1:*")
_FRAMES = {"iframe", "frame", "embed", "object", "fencedframe"}


@dataclass(frozen=True, slots=True)
class Framing:
    """How one request for the embed's document is to be answered.

    Attributes:
        framers: sources for ``frame-ancestors``.
        avatar: the only one it may show, or None.
        page_token: to be exchanged for a session token right before an offer; empty where none is needed.
        token: a session token that came with the address; empty when none did.
        problem: code of why there is nothing to show but an explanation; empty when all is well. The explanation may
            stand in any frame: whoever built that page has to read it.
        message: the same for whoever builds the page around it.
    """

    framers: tuple[str, ...]
    avatar: str | None = None
    page_token: str = ""
    token: str = ""
    problem: str = ""
    message: str = ""


def framing(access: Access, config: Config, request: web.Request) -> Framing:
    """Decides for one request; its query has ``key`` or ``token``, and perhaps ``avatar``."""
    try:
        if key := request.query.get("key", ""):
            return _with_key(access, key, request)
        if token := request.query.get("token", ""):
            claims = access.session_claims(token)
            framers = (claims.origin,) if claims.origin else _listed(config)
            return Framing(framers, claims.avatar, token=token)
    except AccessDenied as error:
        return Framing(("*",), problem=error.code, message=error.message)
    if access.is_open(request):
        return _without_key(config, request)
    return Framing(
        ("*",), problem="embed_key_required",
        message="This server needs an embed key in the address of the frame; its operator makes one with: python -m"
        " server embeds add.",
    )  # fmt: skip


def _without_key(config: Config, request: web.Request) -> Framing:
    """Where nothing is needed: pages on this machine, where nobody else is served, and the listed origins."""
    framers = _listed(config) + (_THIS_MACHINE if is_loopback(config.host) else ())
    origin = _page_around(request)
    if origin is None or "*" in framers or origin in framers:
        # Without a Referer the browser still holds the page around it to the list.
        return Framing(framers)
    name = urlsplit(origin).hostname or ""
    if urlsplit(origin).netloc == request.host.lower() or (is_loopback(config.host) and is_loopback(name)):
        return Framing(framers)
    return Framing(
        ("*",), problem="embed_origin_not_listed",
        message=f"The origin {origin} may not frame this server; its operator can list it in allowed_origins.",
    )  # fmt: skip


def _listed(config: Config) -> tuple[str, ...]:
    return ("'self'", *sorted(config.allowed_origins))


def _with_key(access: Access, key: str, request: web.Request) -> Framing:
    embed = access.embeds.find(key)
    if embed is None:
        raise AccessDenied("embed_key_unknown", "This embed key is not one of this server's, or was removed.")
    if request.query.get("avatar", embed.avatar) != embed.avatar:
        raise AccessDenied("embed_avatar", f"This embed key is for the avatar {embed.avatar} alone.")
    if request.headers.get("Sec-Fetch-Dest", "iframe") not in _FRAMES:
        raise AccessDenied("embed_not_framed", "This address belongs into a frame on a page of the listed origins.")
    origin = _page_around(request)
    if origin is None:
        raise AccessDenied(
            "embed_referrer_missing",
            "The page around this frame hides its origin; add referrerpolicy=\"origin\" to the iframe.",
        )
    if origin not in embed.origins:
        raise AccessDenied(
            "embed_origin_not_listed",
            f"The origin {origin} is not listed for this embed key; the server's operator can add it.",
        )
    return Framing(embed.origins, embed.avatar, page_token=access.page_token(embed.id, embed.avatar, origin))


def _page_around(request: web.Request) -> str | None:
    try:
        parts = urlsplit(request.headers.get("Referer", ""))
        return origin_of(f"{parts.scheme}://{parts.netloc}")
    except (ValueError, InvalidInput):
        return None
