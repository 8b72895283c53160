"""Runs all checks, one group after the other, and tells what each has found as soon as it is known.

Place in the flow: Config -> ``examine`` -> findings -> command line.

Invariants:
    * a check that fails itself, or takes too long, is a finding and not the end of the others;
    * nothing is changed: what was opened is closed, what was allocated is given back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator

from engine.config import Config
from engine.lipsync.base import LipSync
from server.doctor import address, codecs, conversation, devices, face, installation, relays, udp
from server.doctor.report import Finding, Secrets

_LIMIT_S = 60.0
"""For a group of checks; what is slower than this hangs."""

_log = logging.getLogger(__name__)


async def examine(config: Config, *, running: bool = False) -> AsyncIterator[Finding]:
    """All findings, without secrets.

    Args:
        config: options of the server to look at.
        running: whether it is a running server with these options that asks.
    """
    secrets = Secrets(config)
    found = await asyncio.to_thread(face.cast, config)
    groups: list[tuple[str, AsyncIterator[Finding]]] = [
        ("installation", _blocking(lambda: installation.examine(config))),
        ("face", _faces(config, found)),
        ("conversation", conversation.examine(config, found)),
        ("address", address.examine(config, running)),
        ("network", _network(config)),
    ]
    for group, findings in groups:
        async for finding in _guarded(group, findings):
            yield secrets.hide(finding)


async def _faces(config: Config, found: face.Cast) -> AsyncIterator[Finding]:
    async for finding in _blocking(lambda: face.avatars(config, found)):
        yield finding
    lipsync: LipSync | None = None
    for finding, loaded in await asyncio.to_thread(lambda: list(face.models(config))):
        lipsync = loaded or lipsync
        yield finding
    async for finding in _blocking(devices.devices):
        yield finding
    async for finding in _blocking(codecs.codecs):
        yield finding
    if found.default and lipsync is not None:
        model = lipsync
        # Alone: the processor time of the whole process is what is measured.
        yield await asyncio.to_thread(lambda: face.speed(config, found, model))


async def _network(config: Config) -> AsyncIterator[Finding]:
    servers, wrong = relays.servers(config)
    if wrong is not None:
        yield wrong
    async for finding in relays.examine(servers):
        yield finding
    yield await udp.connection(config, servers)


async def _blocking(checks: Callable[[], Iterator[Finding]]) -> AsyncIterator[Finding]:
    """Findings of checks that block, from another thread."""
    for finding in await asyncio.to_thread(lambda: list(checks())):
        yield finding


async def _guarded(group: str, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    while True:
        try:
            async with asyncio.timeout(_LIMIT_S):
                finding = await anext(findings, None)
        except TimeoutError:
            change = "See what hangs there, then ask again."
            told = f"A check of this group took more than {_LIMIT_S:.0f} s and was given up."
            yield Finding("unfinished", group, "warning", told, change)
            return
        except Exception as error:  # whatever a broken installation leads to is what people come here for
            _log.debug("a check of the group %s failed", group, exc_info=True)
            told = f"A check of this group failed itself: {type(error).__name__}: {error}"
            yield Finding("unfinished", group, "problem", told, "Start with --log-level debug to see where.")
            return
        if finding is None:
            return
        yield finding
