"""Looks at where the server listens, who may come in, and which pages may embed it.

Place in the flow: ``examine`` -> findings of the group ``address``.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import aiohttp

from engine.config import Config
from engine.errors import ConfigInvalid, InvalidInput
from server.access.address import is_loopback
from server.access.embeds import FILE as EMBEDS_FILE
from server.access.embeds import Embed, Embeds, origin_of
from server.access.keys import FILE as KEYS_FILE
from server.access.keys import ApiKeys
from server.doctor.report import Figures, Finding
from server.library import Library

_GROUP = "address"
_PROBE_S = 2.0
_ANY_ADDRESS = ("0.0.0.0", "::")


async def examine(config: Config, running: bool) -> AsyncIterator[Finding]:
    """All checks of this group.

    Args:
        config: options.
        running: whether a server with these options is what asks.
    """
    yield await port(config, running)
    yield secure_context(config)
    for finding in (*origins(config), *access(config)):
        yield finding


async def port(config: Config, running: bool) -> Finding:
    """Whether the port is free, or ours. Args: as ``examine``."""
    where = f"port {config.port} of {config.host}"
    if running:
        return Finding("port", _GROUP, "ok", f"This server listens on {where}.")
    try:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, config.host, config.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            if await _is_visavis(config):
                return Finding("port", _GROUP, "ok", f"A Visavis listens on {where} already.")
            change = "Stop what uses it, or choose another one: --port or VISAVIS_PORT."
            return Finding("port", _GROUP, "problem", f"Something else uses {where}.", change)
        if error.errno == errno.EACCES:
            change = "Choose one above 1023, and let a reverse proxy serve 80 and 443."
            return Finding("port", _GROUP, "problem", f"{where.capitalize()} needs special rights.", change)
        change = "Set --host to an address of this machine, to 0.0.0.0 for all of them, or to 127.0.0.1."
        return Finding("port", _GROUP, "problem", f"Nobody can listen on {where}: {error.strerror or error}.", change)
    server.close()
    await server.wait_closed()
    return Finding("port", _GROUP, "ok", f"{where.capitalize()} is free.")


async def _is_visavis(config: Config) -> bool:
    host = "127.0.0.1" if config.host in _ANY_ADDRESS else config.host
    host = f"[{host}]" if ":" in host else host
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_S)) as client,
            client.get(f"http://{host}:{config.port}/healthz") as answer,
        ):
            return answer.headers.get("Server") == "Visavis"
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def secure_context(config: Config) -> Finding:
    """Whether browsers will give a page from here the microphone. Args: config: options."""
    if is_loopback(config.host):
        told = "Only this machine is served, and browsers give its pages the microphone"
        change = "" if not config.trusted_proxies else "Others come through the reverse proxy, which needs TLS."
        return Finding("secure_context", _GROUP, "ok", f"{told}.", change)
    if config.trusted_proxies:
        told = "The network is served, behind a reverse proxy; browsers give the microphone only where it speaks https"
        return Finding("secure_context", _GROUP, "note", f"{told}.")
    told = "The network is served without TLS: browsers on other machines will not give the microphone"
    change = (
        "Put a reverse proxy with a certificate in front (Caddy: reverse_proxy 127.0.0.1:"
        f"{config.port}), listen on --host 127.0.0.1 and name the proxy in --trusted-proxies."
    )
    return Finding("secure_context", _GROUP, "warning", f"{told}.", change)


def origins(config: Config) -> Iterator[Finding]:
    """Whether the listed origins are such as browsers send. Args: config: options."""
    listed = config.allowed_origins
    if not listed:
        yield Finding("allowed_origins", _GROUP, "ok", "No other site may call the API, beside embeds with a key.")
        return
    bad = list(_bad_origins(config))
    yield from bad
    if not bad:
        yield Finding("allowed_origins", _GROUP, "ok", f"These sites may call the API: {', '.join(listed)}.")


def _bad_origins(config: Config) -> Iterator[Finding]:
    if "*" in config.allowed_origins:
        told = "Every site of the web may call the API and embed the page (allowed_origins is *)."
        harmless = is_loopback(config.host) or config.access == "closed"
        change = "List the sites that do, such as https://shop.example."
        yield Finding("allowed_origins", _GROUP, "note" if harmless else "warning", told, change)
    for origin in config.allowed_origins:
        if origin == "*":
            continue
        try:
            sent = origin_of(origin)
        except InvalidInput as error:
            yield Finding("allowed_origins", _GROUP, "problem", error.message, "Correct allowed_origins.")
            continue
        if sent != origin:
            told = f"No browser sends {origin}: it sends {sent}, which is not on the list."
            yield Finding("allowed_origins", _GROUP, "problem", told, f"Write {sent} in allowed_origins.")
        elif _insecure(origin):
            yield Finding("allowed_origins", _GROUP, "warning", *_without_microphone(origin))


def _insecure(origin: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _without_microphone(origin: str) -> tuple[str, str]:
    return f"On {origin} the microphone stays off: browsers want https of every page around a frame.", (
        f"Serve that site as https://{urlsplit(origin).netloc} and list it so."
    )


def access(config: Config) -> Iterator[Finding]:
    """Whether those who should can come in, and nobody else. Args: config: options."""
    try:
        keys, embeds = ApiKeys(config.data_dir).listed(), Embeds(config.data_dir).listed()
    except ConfigInvalid as error:
        yield Finding("access", _GROUP, "problem", error.message, "Nobody gets in with what is in a broken file.")
        return
    own_machine = is_loopback(config.host)
    closed = config.access == "closed" or (config.access == "auto" and not own_machine)
    figures: Figures = {"keys": len(keys), "embeds": len(embeds)}
    if closed and not keys and not embeds:
        told = "The server asks for a key or token, and there is none: nobody can come in."
        change = "python -m server keys create NAME, or python -m server embeds add AVATAR --origin https://…"
        yield Finding("access", _GROUP, "problem", told, change, figures)
    elif closed:
        told = f"A key or token is asked for; there are {_count(len(keys), 'key')} and {_count(len(embeds), 'embed')}."
        yield Finding("access", _GROUP, "ok", told, "", figures)
    elif own_machine:
        yield Finding("access", _GROUP, "ok", "Nothing is asked of whoever is on this machine.", "", figures)
    else:
        told = "Everybody who reaches this server may use it (access is open)."
        change = "Where strangers reach it: --access auto, and python -m server keys create NAME."
        yield Finding("access", _GROUP, "warning", told, change, figures)
    for file in (KEYS_FILE, EMBEDS_FILE):
        path = config.data_dir / file
        if path.exists() and path.stat().st_mode & 0o077:
            told = f"Others on this machine may read {path}."
            yield Finding("access_files", _GROUP, "warning", told, f"chmod 600 {path}")
    yield from _embeds(config, embeds)


def _embeds(config: Config, embeds: list[Embed]) -> Iterator[Finding]:
    known = Library(config.avatars_dir, config.data_dir / "avatars").cards
    for embed in embeds:
        if embed.avatar not in known:
            told = f"An embed on {', '.join(embed.origins)} shows the avatar {embed.avatar}, which there is not."
            yield Finding("embeds", _GROUP, "problem", told, f"python -m server embeds remove {embed.key}")
        for origin in filter(_insecure, embed.origins):
            yield Finding("embeds", _GROUP, "warning", *_without_microphone(origin))


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
