"""Connects two peers of this machine as a browser would connect to it, to see whether UDP gets through.

Place in the flow: ``examine`` -> findings of the group ``network``.

Both ends use the servers of the options, so what one of them offers (its own addresses, the one a STUN server sees, a
relayed one) is what browsers are offered.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiortc import RTCPeerConnection, RTCSessionDescription

from engine.config import Config
from server import signaling
from server.access.address import is_loopback
from server.doctor.report import Figures, Finding

_GROUP = "network"
_CONNECT_S = 15.0
_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_SLOW_MS = 3000
"""Finding one's addresses takes milliseconds, and a round trip with STUN and TURN; longer than this, one is dead."""
_PING = "is anybody there"


async def connection(config: Config, ice_servers: Sequence[dict[str, Any]]) -> Finding:
    """Connects, and says what browsers are offered.

    Args:
        config: options.
        ice_servers: STUN and TURN servers, in the browser's own form.
    """
    signaling.allow_loopback_only_hosts()
    configuration = signaling.rtc_configuration(ice_servers)
    caller, callee = RTCPeerConnection(configuration), RTCPeerConnection(configuration)
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(_CONNECT_S):
            await _meet(caller, callee)
    except (TimeoutError, ConnectionError, OSError):
        change = "Let a firewall pass UDP of any port from and to this machine, also on its own addresses."
        return Finding("udp", _GROUP, "problem", "Two peers on this machine do not meet over UDP.", change)
    finally:
        offered = _candidates(caller)
        await asyncio.gather(caller.close(), callee.close())
    took_ms = round(1000 * (time.monotonic() - started_s))
    kinds = Counter(kind for kind, _ in offered)
    figures: Figures = {"connect_ms": took_ms}
    figures |= {f"{kind}_candidates": number for kind, number in kinds.items()}
    return reachability(config, offered, took_ms, figures)


def reachability(
    config: Config, offered: Sequence[tuple[str, str]], took_ms: int, figures: Figures
) -> Finding:
    """Who can reach a machine that offers these addresses.

    Args:
        config: options.
        offered: kind (``host``, ``srflx``, ``relay``) and address of each candidate.
        took_ms: how long two peers needed to meet, milliseconds.
        figures: of the finding.
    """
    public = [address for kind, address in offered if kind != "host" or ipaddress.ip_address(address).is_global]
    told = f"Two peers on this machine met over UDP in {took_ms} ms"
    if took_ms > _SLOW_MS:
        change = "Every session waits for a STUN or TURN server that does not answer: mend it, or take it out."
        return Finding("udp", _GROUP, "warning", f"{told}, which is long.", change, figures)
    if any(kind == "relay" for kind, _ in offered):
        return Finding("udp", _GROUP, "ok", f"{told}; browsers anywhere are offered a relay.", "", figures)
    if is_loopback(config.host) and not config.trusted_proxies:
        return Finding("udp", _GROUP, "ok", f"{told}, which is what this machine's browsers need.", "", figures)
    if public:
        told += "; browsers elsewhere are offered a public address"
        change = "A TURN server (--turn-urls, --turn-secret) also reaches those whose networks let no UDP through."
        return Finding("udp", _GROUP, "note", f"{told}, and no relay.", change, figures)
    if any(path.exists() for path in _CONTAINER):
        told += ", but only addresses inside a container are offered"
        change = "Run it on the host's network (docker run --network host), or set --turn-urls and --turn-secret."
        return Finding("udp", _GROUP, "warning", f"{told}.", change, figures)
    told += ", but only private addresses are offered: browsers of other networks will not connect"
    change = "For those, run coturn on a public address: --turn-urls turn:turn.example.org --turn-secret …"
    return Finding("udp", _GROUP, "warning", f"{told}.", change, figures)


async def _meet(caller: RTCPeerConnection, callee: RTCPeerConnection) -> None:
    """Returns when a message has gone there and back."""
    answered = asyncio.Event()
    channel = caller.createDataChannel("doctor")
    channel.on("open", lambda: channel.send(_PING))
    channel.on("message", lambda _text: answered.set())
    callee.on("datachannel", lambda theirs: theirs.on("message", theirs.send))
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(_described(caller))
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(_described(callee))
    await answered.wait()


def _described(connection: RTCPeerConnection) -> RTCSessionDescription:
    return RTCSessionDescription(connection.localDescription.sdp, connection.localDescription.type)


def _candidates(connection: RTCPeerConnection) -> list[tuple[str, str]]:
    """Kind and address of what a connection offers."""
    if connection.localDescription is None:
        return []
    lines = [text.split() for text in connection.localDescription.sdp.splitlines() if text.startswith("a=candidate:")]
    return [(words[7], words[4]) for words in lines if len(words) > 7]
