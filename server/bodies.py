"""Bodies of requests: bounded in size and time, then checked.

Place in the flow: client -> ``read_json`` or ``read_text`` -> handler.

Invariants: no more than ``MAX_BODY_BYTES`` is ever taken in, whatever the headers claim.
"""

from __future__ import annotations

import asyncio
import json
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from engine.errors import InvalidInput

MAX_BODY_BYTES = 64_000
"""A browser's offer is about 6 kB, a long one 20."""
BODY_TIMEOUT_S = 10.0

M = TypeVar("M", bound=BaseModel)


async def read_json(request: web.Request, model: type[M]) -> M:
    """The body as a checked model.

    Raises:
        InvalidInput: ``unsupported_media_type``, ``body_too_large``, ``request_timeout`` or ``invalid_json``.
        ValidationError: a member is missing, unknown or of the wrong type.
    """
    if request.content_type != "application/json":
        raise InvalidInput("unsupported_media_type", "Send JSON, with Content-Type: application/json.")
    try:
        content = json.loads(await read_bytes(request))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("invalid_json", "The body is not JSON.") from error
    return model.model_validate(content)


async def read_text(request: web.Request, content_type: str) -> str:
    """The body as text of one type, such as ``application/sdp``.

    Raises:
        InvalidInput: ``unsupported_media_type``, ``body_too_large``, ``request_timeout`` or ``invalid_text``.
    """
    if request.content_type != content_type:
        raise InvalidInput("unsupported_media_type", f"Send Content-Type: {content_type}.")
    try:
        return (await read_bytes(request)).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("invalid_text", "The body is not UTF-8 text.") from error


async def read_bytes(request: web.Request) -> bytes:
    """The body as it is. Raises InvalidInput ``body_too_large`` or ``request_timeout``."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise InvalidInput("body_too_large", f"The body may have {MAX_BODY_BYTES} bytes at most.")
    except TimeoutError:
        raise InvalidInput("request_timeout", "The body did not arrive in time.") from None
    return bytes(body)
