"""What every request passes: errors become JSON, foreign pages are refused, answers carry their protective headers.

Place in the flow: client -> ``origins`` -> ``errors`` -> ``static_files`` -> handler.

Invariants:
    * an answer with status 400 or more is ``{"error": {"code", "message"}}``, whatever went wrong;
    * what the server does not expect is logged with its trace and answered without it;
    * a page of another origin can change nothing, unless the configuration lists it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import ValidationError

from engine.errors import (
    AccessDenied,
    AudioInvalid,
    Busy,
    Closed,
    DiskFull,
    InvalidInput,
    NotFound,
    OfferInvalid,
    VisavisError,
)
from server.access.address import is_loopback
from server.access.line import Waiting
from server.metrics import ServerMetrics
from server.schemas import explain_validation

logger = logging.getLogger(__name__)

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}

_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob: mediastream:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors "
)

_PERMISSIONS = "microphone=(self), camera={camera}, geolocation=()"
_CAMERA_PAGES = {"/studio", "/studio.html"}
"""The studio films whom it is to show; no other page may."""

FRAMERS: web.RequestKey[tuple[str, ...]] = web.RequestKey("framers", tuple)
"""Set by a handler whose answer other pages may frame: them, as sources of a security policy."""

_STATUS_BY_CODE = {
    "body_incomplete": 400,
    "invalid_json": 400,
    "avatar_shipped": 403,
    "origin_forbidden": 403,
    "studio_off": 403,
    "token_avatar": 403,
    "priority_denied": 403,
    "token_origin": 403,
    "not_acceptable": 406,
    "request_timeout": 408,
    "avatar_exists": 409,
    "studio_full": 409,
    "precondition_failed": 412,
    "audio_too_long": 413,
    "body_too_large": 413,
    "source_too_large": 413,
    "audio_unreadable": 415,
    "source_type": 415,
    "unsupported_media_type": 415,
    "upgrade_required": 426,
    "server_full": 503,
    "shutting_down": 503,
    "worker_lost": 503,
    "worker_silent": 504,
}
_STATUS_BY_CLASS: tuple[tuple[type[VisavisError], int], ...] = (
    (OfferInvalid, 400),
    (AudioInvalid, 422),
    (InvalidInput, 422),
    (NotFound, 404),
    (AccessDenied, 401),
    (Closed, 409),
    (Busy, 429),
    (DiskFull, 507),
)
_HTTP_CODES = {
    400: ("bad_request", "The request is not valid HTTP for this address."),
    403: ("forbidden", "This is not allowed."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not know that method."),
    411: ("length_required", "Say how long the body is."),
    413: ("body_too_large", "The request body is too large."),
    415: ("unsupported_media_type", "This type of body is not understood here."),
    426: ("upgrade_required", "This address is a WebSocket."),
}
_RETRY_AFTER_S = {429: "1", 503: "5"}


def status_of(error: VisavisError) -> int:
    """The HTTP status that says the same as an error of ours."""
    if error.code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[error.code]
    return next((status for kind, status in _STATUS_BY_CLASS if isinstance(error, kind)), 500)


def error_response(
    status: int, code: str, message: str, headers: dict[str, str] | None = None, **more: Any
) -> web.Response:
    """The one shape of all errors; ``more`` are members beside ``error``."""
    headers = {"Cache-Control": "no-store", **(headers or {})}
    if status in _RETRY_AFTER_S:
        headers.setdefault("Retry-After", _RETRY_AFTER_S[status])
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response({"error": {"code": code, "message": message}, **more}, status=status, headers=headers)


def _from_ours(error: VisavisError) -> web.Response:
    again_s = error.retry_after_s if isinstance(error, Busy) else None
    headers = {} if again_s is None else {"Retry-After": str(again_s)}
    more = {"queue": error.queue()} if isinstance(error, Waiting) else {}
    return error_response(status_of(error), error.code, error.message, headers, **more)


def errors(metrics: ServerMetrics) -> Middleware:
    """Middleware that turns everything raised into the shape above and counts all answers."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except VisavisError as error:
            status = status_of(error)
            if status >= 500 and status != 503:
                logger.error("%s %s: %s: %s", request.method, request.path, error.code, error.message)
            response = _from_ours(error)
        except ValidationError as error:
            response = error_response(422, "invalid_request", explain_validation(error))
        except web.HTTPException as error:
            response = _from_http(error)
        except (asyncio.CancelledError, ConnectionResetError):
            raise
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            response = error_response(500, "internal", "Something went wrong on the server; its log says what.")
        metrics.request(response.status)
        return response

    return middleware


def _from_http(error: web.HTTPException) -> web.StreamResponse:
    if error.status < 400:
        raise error
    code, message = _HTTP_CODES.get(error.status, ("http_error", error.reason))
    allow = error.headers.get("Allow")
    return error_response(error.status, code, message, {"Allow": allow} if allow else None)


def origins(allowed: frozenset[str], loopback_only: bool) -> Middleware:
    """Middleware that decides which pages may call.

    Args:
        allowed: origins beside our own, exactly as browsers send them (``https://example.org``); ``*`` is any.
        loopback_only: the server is bound to a loopback address, so a page that calls itself by another name has
            pointed that name here (DNS rebinding) and is not ours.
    """

    def same_origin(origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
            caller, ours = _authority(origin), _authority(f"{parts.scheme}://{host}")
        except ValueError:
            return False
        if loopback_only and not is_loopback(caller[0]):
            return False
        return bool(caller[0]) and caller == ours

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        listed = origin is not None and (origin in allowed or "*" in allowed)
        foreign = origin is not None and not listed and not same_origin(origin, request.host)
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        if foreign and (upgrade or request.method not in SAFE_METHODS):
            response: web.StreamResponse = error_response(
                403, "origin_forbidden", "Pages of this origin may not call; list it in allowed_origins."
            )
        elif listed and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            response = web.Response(
                status=204,
                headers={
                    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
                    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
                    "Access-Control-Max-Age": "600",
                },
            )
        else:
            response = await handler(request)
        if listed and not response.prepared:
            response.headers["Access-Control-Allow-Origin"] = str(origin)
            response.headers["Access-Control-Expose-Headers"] = "Accept-Patch, ETag, Link, Location, Retry-After"
        if not response.prepared:
            response.headers.add("Vary", "Origin")
        return response

    return middleware


def _authority(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def protective_headers(allowed: frozenset[str]) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Signal handler that adds the headers every answer carries.

    Args:
        allowed: origins that may frame the page; as for ``origins``.
    """
    framers = " ".join(["'self'", *sorted(allowed)]) if allowed else "'none'"
    headers = {
        "Content-Security-Policy": _CONTENT_SECURITY_POLICY + framers,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": _PERMISSIONS.format(camera="()"),
        "Server": "Visavis",
    }

    async def handler(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)
        if request.path in _CAMERA_PAGES:
            response.headers["Permissions-Policy"] = _PERMISSIONS.format(camera="(self)")
        if FRAMERS in request:
            framers = request[FRAMERS]
            response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY + " ".join(framers)

    return handler


_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


def static_files(folder: Path) -> Middleware:
    """Middleware that serves a folder wherever no route answers, so that routes keep their own 404 and 405.

    Only files with a type from the table are served, and only from inside the folder. A page may be asked for without
    its ending.
    """
    root = folder.resolve()

    def find(path: str) -> Path | None:
        if "\0" in path or "\\" in path:
            return None
        try:
            file = (root / (path.lstrip("/") or "index.html")).resolve()
            if not file.suffix:
                file = file.with_suffix(".html")
            is_ours = file.is_relative_to(root) and file.suffix in _CONTENT_TYPES and file.is_file()
        except (OSError, ValueError):
            # A path that climbs to where there are no names, or a name longer than any file's.
            return None
        return file if is_ours else None

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        missing = request.match_info.http_exception
        file = find(request.path) if isinstance(missing, web.HTTPNotFound) else None
        if file is None:
            return await handler(request)
        if request.method not in ("GET", "HEAD"):
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
        # Revalidated each time: a page and its modules must never be of two versions.
        return web.FileResponse(
            file, headers={"Content-Type": _CONTENT_TYPES[file.suffix], "Cache-Control": "no-cache"}
        )

    return middleware
