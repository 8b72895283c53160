"""Asks every configured STUN and TURN server for what browsers will want of it.

Place in the flow: ``examine`` -> findings of the group ``network``.

A STUN server is asked how it sees us (RFC 8489), a TURN server for an allocation with the credentials that a session
would get (RFC 8656), which is given back at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from aioice import stun, turn
from aiortc.rtcicetransport import parse_stun_turn_uri

from engine.config import Config
from engine.errors import ConfigInvalid
from server.access.turn import IceServers
from server.doctor.report import Figures, Finding

_GROUP = "network"
_TIMEOUT_S = 6.0
_RETRANSMISSIONS = 3
_LIFETIME_S = 60
_CREDENTIALS_REFUSED = (401, 403, 441)
_NO_ROOM = (486, 508)


def servers(config: Config) -> tuple[list[dict[str, Any]], Finding | None]:
    """The servers of one session, and what is wrong with the options, if anything. Args: config: options."""
    try:
        return IceServers(config).fresh(), None
    except ConfigInvalid as error:
        return [], Finding("turn", _GROUP, "problem", error.message, "Set --turn-secret, or leave --turn-urls out.")


async def examine(ice_servers: Sequence[dict[str, Any]]) -> AsyncIterator[Finding]:
    """Asks all at the same time. Args: ice_servers: in the browser's own form, with credentials."""
    asked = [
        _ask(url, server)
        for server in ice_servers
        for url in ([server["urls"]] if isinstance(server["urls"], str) else server["urls"])
    ]
    for finding in await asyncio.gather(*asked):
        yield finding


async def _ask(url: str, server: dict[str, Any]) -> Finding:
    check = url.split(":")[0].rstrip("s")
    try:
        parsed = parse_stun_turn_uri(url)
    except ValueError:
        change = "Write it as stun:host:port, turn:host:port or turns:host:port?transport=tcp."
        return Finding(check, _GROUP, "problem", f"{url} is no address of such a server.", change)
    started_s = time.monotonic()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            if check == "stun":
                seen = await _binding(parsed)
            else:
                seen = await _allocation(parsed, server.get("username"), server.get("credential"))
    except stun.TransactionFailed as error:
        return _refused(check, url, error)
    except (TimeoutError, stun.TransactionTimeout, ssl.SSLError, OSError) as error:
        return _unreached(check, url, parsed, error)
    took_ms = round(1000 * (time.monotonic() - started_s))
    figures: Figures = {"answer_ms": took_ms}
    if check == "stun":
        return Finding(check, _GROUP, "ok", f"{url} tells us our address, in {took_ms} ms.", "", figures)
    if await _is_hidden(parsed["host"], seen):
        told = f"{url} relays, but at a private address that browsers of other networks cannot reach."
        return Finding(check, _GROUP, "warning", told, "Set external-ip in coturn's configuration.", figures)
    return Finding(check, _GROUP, "ok", f"{url} takes our credentials and relays, in {took_ms} ms.", "", figures)


async def _binding(parsed: dict[str, Any]) -> str:
    """The address that a STUN server sees us at."""
    loop = asyncio.get_running_loop()
    where = (parsed["host"], parsed["port"])
    if parsed["scheme"] == "stuns":
        # What only TLS brings there is the connection; the answer is the same as over UDP.
        _, writer = await asyncio.open_connection(*where, ssl=ssl.create_default_context())
        writer.close()
        return ""
    transport, asker = await loop.create_datagram_endpoint(_Asker, remote_addr=where)
    try:
        answer = await asker.ask(where)
    finally:
        transport.close()
    return str(answer.attributes["XOR-MAPPED-ADDRESS"][0]) if "XOR-MAPPED-ADDRESS" in answer.attributes else ""


class _Asker(asyncio.DatagramProtocol):
    """Sends one binding request, some times, until an answer or an error comes."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._transaction: stun.Transaction | None = None
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's own class is no subclass of the one that the types name.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        try:
            message = stun.parse_message(data)
        except ValueError:
            return
        if self._transaction is not None and message.message_class in (stun.Class.RESPONSE, stun.Class.ERROR):
            self._transaction.response_received(message, (addr[0], addr[1]))

    def error_received(self, error: Exception) -> None:
        # The system was told that nobody listens there.
        if not self._failed.done():
            self._failed.set_exception(error)

    def send_stun(self, message: stun.Message, _addr: tuple[str, int]) -> None:
        """Called by the transaction."""
        assert self._transport is not None
        self._transport.sendto(bytes(message))

    async def ask(self, where: tuple[str, int]) -> stun.Message:
        """The answer. Raises ``stun.TransactionError`` or ``OSError``."""
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        self._transaction = stun.Transaction(request, where, self, retransmissions=_RETRANSMISSIONS)
        running = asyncio.create_task(self._transaction.run(), name="doctor-stun")
        try:
            waited: set[asyncio.Future[Any]] = {running, self._failed}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            return (await running)[0]
        finally:
            running.cancel()
            self._failed.cancel()


async def _allocation(parsed: dict[str, Any], username: str | None, credential: str | None) -> str:
    """The address at which a TURN server relays for us; the allocation is given back."""
    transport, _ = await turn.create_turn_endpoint(
        asyncio.DatagramProtocol,
        server_addr=(parsed["host"], parsed["port"]),
        username=username,
        password=credential,
        lifetime=_LIFETIME_S,
        ssl=parsed["scheme"] == "turns",
        transport=parsed["transport"],
    )
    relayed = transport.get_extra_info("sockname")
    transport.close()
    # The word that it is not needed any more is sent by a task that closing has started.
    await asyncio.sleep(0)
    return str(relayed[0])


async def _is_hidden(host: str, relayed: str) -> bool:
    """Whether a server at a public address relays at a private one."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
        return ipaddress.ip_address(found[0][4][0]).is_global and not ipaddress.ip_address(relayed).is_global
    except (OSError, ValueError):
        return False


def _refused(check: str, url: str, error: stun.TransactionFailed) -> Finding:
    number = error.response.attributes.get("ERROR-CODE", (0, ""))[0]
    if number in _CREDENTIALS_REFUSED:
        told = f"{url} refuses our credentials (error {number})."
        change = (
            "turn_secret must be coturn's static-auth-secret (with use-auth-secret and a realm), and both clocks right;"
            " credentials in ice_servers must be a user it knows."
        )
    elif number in _NO_ROOM:
        told = f"{url} has no allocation left (error {number})."
        change = "Raise its total-quota, user-quota or its range of ports."
    else:
        told, change = f"{url} refuses (error {number}).", "Its own log says why."
    return Finding(check, _GROUP, "problem", told, change)


def _unreached(check: str, url: str, parsed: dict[str, Any], error: Exception) -> Finding:
    if isinstance(error, ssl.SSLError):
        told = f"{url} has no certificate that is trusted here."
        return Finding(check, _GROUP, "problem", told, "Give it one for exactly this name; its cert and pkey options.")
    over = "TCP" if parsed.get("transport") == "tcp" or parsed["scheme"].endswith("s") else "UDP"
    change = f"See that it runs, that the name is right, and that {over} port {parsed['port']} is open to this machine."
    return Finding(check, _GROUP, "problem", f"{url} does not answer.", change)
