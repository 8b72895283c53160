"""The server's HTTP interface as a client calls it: answers as objects, errors as the typed ones they were.

Place in the flow: ``TalkingHead`` -> ``Api`` -> server.

Invariants: whatever goes wrong is a ``VisavisError`` with the server's own code and message, where it told them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from engine.errors import AccessDenied, BackendFailed, Busy, Closed, InvalidInput, NotFound, VisavisError

TIMEOUT_S = 150.0
"""A large sound file takes a while to decode."""

_ERRORS: dict[int, type[VisavisError]] = {
    401: AccessDenied, 403: AccessDenied, 404: NotFound, 409: Closed, 429: Busy, 503: Busy,
}  # fmt: skip


class Api:
    """One server, and whoever calls it."""

    def __init__(self, url: str, key: str = "") -> None:
        """Args: url: the page's address; key: an API key or session token, where the server asks for one."""
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http: aiohttp.ClientSession | None = None
        self.has_key = key.startswith("vk_")
        """Whether tokens can be asked for."""

    async def call(self, method: str, path: str, body: Mapping[str, Any] | bytes | None = None) -> Any:
        """What a route answers: a JSON document, a text, or None.

        Args:
            method: of HTTP.
            path: begins with a slash.
            body: a JSON document, or the bytes of a file.

        Raises:
            VisavisError: what the server refused, or ``server_unreachable``.
        """
        if self._http is None:
            self._http = aiohttp.ClientSession(
                headers=self._headers, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=10)
            )
        sent: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        try:
            async with self._http.request(method, self.url + path, **sent) as response:
                if response.status >= 400:
                    raise await _refusal(response)
                if response.content_type == "application/json":
                    return await response.json()
                return await response.text() or None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise BackendFailed(
                "server_unreachable", f"There is no answer from {self.url}; is the server running there?"
            ) from error

    async def aclose(self) -> None:
        """Closes the connections. Idempotent."""
        if self._http is not None:
            await self._http.close()


def session_path(session_id: str, rest: str = "") -> str:
    """The address of a session, or of something of it."""
    return f"/sessions/{quote(session_id, safe='')}{rest}"


def file_bytes(sound: str | Path | bytes) -> bytes:
    """The bytes of a file; blocking.

    Raises:
        NotFound: ``file_not_found``.
    """
    if isinstance(sound, bytes):
        return sound
    try:
        return Path(sound).read_bytes()
    except OSError as error:
        raise NotFound("file_not_found", f"Cannot read {sound}: {error.strerror}.") from error


async def _refusal(response: aiohttp.ClientResponse) -> VisavisError:
    try:
        told = (await response.json(content_type=None))["error"]
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "http_error", f"The server answered {response.status} {response.reason}."
    kind = _ERRORS.get(response.status, InvalidInput if response.status < 500 else BackendFailed)
    return kind(code, message)
