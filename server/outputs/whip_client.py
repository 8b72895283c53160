"""WHIP as a publisher speaks it (RFC 9725): an offer to an endpoint, its answer, and the end of what came of it.

Place in the flow: ``whip.WhipDelivery`` -> ``WhipClient`` -> HTTP.

Invariants:
    * a token goes to the endpoint's own origin, and elsewhere only where the endpoint sent us over TLS;
    * redirects, bodies and waits are bounded;
    * errors hold what the endpoint answered as a number, never an address.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiortc.rtcicetransport import parse_stun_turn_uri

from engine.conversation.retry_after import retry_after_s
from engine.errors import BackendFailed, Busy

SDP = "application/sdp"
REDIRECTS = (307, 308)
MAX_REDIRECTS = 3
MAX_ANSWER_BYTES = 64_000
TIMEOUT_S = 10.0
END_TIMEOUT_S = 2.0

_REASONS = {401: ": its token is missing or wrong", 403: ": the token is not good for this", 404: ": it is not there"}
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^",;\s]+))*)')
_PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^",;\s]+))')


@dataclass(frozen=True, slots=True)
class Published:
    """What an endpoint made of an offer.

    Attributes:
        answer: session description.
        resource: address by which it is ended; empty when the endpoint told none.
        ice_servers: that it recommends, in a browser's own form.
    """

    answer: str
    resource: str
    ice_servers: tuple[dict[str, str], ...]


class WhipClient:
    """Speaks to one endpoint."""

    def __init__(self, url: str, token: str | None) -> None:
        """Args: url: of the endpoint; token: shown as ``Authorization: Bearer``."""
        self._url = url
        self._token = token

    async def publish(self, offer: str) -> Published:
        """Sends an offer.

        Raises:
            BackendFailed: ``publish_unreachable``, ``publish_refused``, ``publish_timeout``.
            Busy: ``publish_busy``: the endpoint asks for patience.
        """
        url = self._url
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as http:
                for _ in range(MAX_REDIRECTS + 1):
                    headers = {"Content-Type": SDP, "Accept": SDP, **self._authorization(url)}
                    async with http.post(url, data=offer.encode(), headers=headers, allow_redirects=False) as answer:
                        if answer.status not in REDIRECTS:
                            return await _read(answer, url)
                        url = _redirected(url, answer.headers.get("Location", ""))
        except TimeoutError:
            raise BackendFailed("publish_timeout", "The endpoint did not answer in time.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            said = type(error).__name__
            raise BackendFailed("publish_unreachable", f"The endpoint cannot be reached: {said}.") from None
        raise BackendFailed("publish_refused", "The endpoint only sends us on and on.")

    async def end(self, published: Published) -> None:
        """Tells that nothing more will come; failures are no matter, since silence says the same."""
        if not published.resource:
            return
        timeout = aiohttp.ClientTimeout(total=END_TIMEOUT_S)
        with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            async with aiohttp.ClientSession(timeout=timeout) as http:
                headers = self._authorization(published.resource)
                async with http.delete(published.resource, headers=headers, allow_redirects=False):
                    pass

    def _authorization(self, url: str) -> dict[str, str]:
        ours, theirs = urlsplit(self._url), urlsplit(url)
        if self._token is None or (ours[:2] != theirs[:2] and theirs.scheme != "https"):
            return {}
        return {"Authorization": f"Bearer {self._token}"}


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    if not location or urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
        raise BackendFailed("publish_refused", "The endpoint sends us to where we do not go.")
    return target


async def _read(answer: aiohttp.ClientResponse, url: str) -> Published:
    if answer.status in (429, 503):
        wait_s = math.ceil(retry_after_s(answer.headers) or 0)
        raise Busy("publish_busy", f"The endpoint is busy ({answer.status}).", retry_after_s=wait_s)
    if answer.status != 201:
        why = _REASONS.get(answer.status, "")
        raise BackendFailed("publish_refused", f"The endpoint refused with {answer.status}{why}.")
    body = await answer.content.read(MAX_ANSWER_BYTES + 1)
    while len(body) <= MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES)):
        body += more
    if answer.content_type != SDP or len(body) > MAX_ANSWER_BYTES:
        raise BackendFailed("publish_refused", "The endpoint did not answer with a session description.")
    location = answer.headers.get("Location", "")
    resource = urljoin(url, location) if location else ""
    if urlsplit(resource).scheme not in ("", "https", urlsplit(url).scheme):
        resource = ""
    return Published(body.decode(errors="replace"), resource, tuple(ice_servers(answer.headers.getall("Link", ()))))


def ice_servers(links: Iterable[str]) -> list[dict[str, str]]:
    """STUN and TURN servers among ``Link`` headers (RFC 9725, 4.6) that can be used, in a browser's own form."""
    found = []
    for target, rest in (match.groups() for header in links for match in _LINK.finditer(header)):
        about: Mapping[str, Any] = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
            for name, quoted, plain in _PARAMETER.findall(rest)
        }
        if about.get("rel") == "ice-server" and _is_readable(target):
            server = {"urls": target}
            if "username" in about and "credential" in about:
                server |= {"username": about["username"], "credential": about["credential"]}
            found.append(server)
    return found


def _is_readable(uri: str) -> bool:
    """Whether aiortc can make anything of a server's address; one that it cannot read fails the whole connection."""
    try:
        parse_stun_turn_uri(uri)
    except ValueError:
        return False
    return True
