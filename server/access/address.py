"""Where a request comes from, and whether that is this machine.

Place in the flow: request -> ``caller``, ``is_local`` -> rates and the decision whether anything must be shown.

Invariants: a header is believed only from a proxy that the options name; what came through any proxy is not local.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web

from engine.config import Network

_SIGNS_OF_A_PROXY = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


def is_loopback(name: str) -> bool:
    """Whether a host name or address can only be this machine."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def is_local(request: web.Request) -> bool:
    """Whether a request to a server on a loopback address was meant for it by somebody on this machine.

    The name it was sent to must be a loopback one too (another is a reverse proxy's, or was pointed here by somebody
    else), and no proxy may have said that it passed it on.
    """
    try:
        name = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) and not any(header in request.headers for header in _SIGNS_OF_A_PROXY)


def caller(request: web.Request, proxies: Collection[Network]) -> str:
    """Whose request it is, for counting: an IPv4 address, or the /64 network that one IPv6 customer has.

    Args:
        request: as it came.
        proxies: networks of reverse proxies whose ``X-Forwarded-For`` is believed.
    """
    address = request.remote or ""
    hops = [hop.strip() for value in request.headers.getall("X-Forwarded-For", ()) for hop in value.split(",")]
    # The last one was added by the proxy that spoke to us, the one before it by the proxy that spoke to that one …
    while hops and _within(address, proxies):
        address = hops.pop()
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


def _within(address: str, networks: Collection[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)
