"""A session on its way to one target: connects, sends, and connects again for as long as it is wanted.

Place in the flow: ``Outputs`` -> ``Output`` -> ``Delivery`` (WHIP or RTMP) -> somebody else's server.

Invariants:
    * a session never waits for an output, and nothing that goes wrong here reaches it;
    * a target that cannot be reached is tried again after a wait that doubles up to ``LONGEST_WAIT_S``;
    * neither state, log nor error holds an address, a key or a token.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal, Protocol

from engine.errors import BackendFailed, Busy, VisavisError
from engine.types import AvatarFrame
from server.fan import Fan

logger = logging.getLogger(__name__)

SHORTEST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0
STEADY_S = 10.0
"""A connection that lasted so long was a good one: the next wait is the shortest again."""
RATE_S = 2.0
"""The bitrate that is told is that of so many seconds."""
KEY_FRAME_S = 1.9
"""Distributors hand out streams in pieces that begin with key frames, and want them no more than two seconds long; one
that is asked for comes a picture or two later."""

Kind = Literal["whip", "rtmp"]


class OutputState(StrEnum):
    """How an output is."""

    CONNECTING = "connecting"
    LIVE = "live"
    WAITING = "waiting"
    """It failed, ``error`` says why, and will be tried again."""


class Shown(Protocol):
    """The part of a ``LiveSession`` that is sent."""

    @property
    def fan(self) -> Fan:
        """Its pictures and its sound, encoded once for all who want them."""
        ...

    @property
    def watchers(self) -> set[Callable[[AvatarFrame], None]]:
        """Who is shown every frame."""
        ...


class Delivery(Protocol):
    """One way of sending; made once and used for one connection after the other."""

    @property
    def kind(self) -> Kind:
        """What is spoken."""
        ...

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far, over all connections."""
        ...

    async def deliver(self, shown: Shown, live: Callable[[], None]) -> None:
        """Connects and sends until that fails; cancellation ends it in good order and in bounded time.

        Args:
            shown: the session.
            live: called when the other side takes it.

        Raises:
            BackendFailed: the connection did not come about, or is over.
            Busy: the other side asks for patience.
        """
        ...


class Output:
    """One running output. It begins to connect when it is made; end it with ``aclose``."""

    def __init__(
        self, name: str, delivery: Delivery, shown: Shown, changed: Callable[[OutputState | None], None]
    ) -> None:
        """
        Args:
            name: of the target.
            delivery: how it gets there.
            shown: what is sent.
            changed: told each new state, and None at the end.
        """
        self._name = name
        self._delivery = delivery
        self._shown = shown
        self._changed = changed
        self._state = OutputState.CONNECTING
        self._error: VisavisError | None = None
        self._reconnects = 0
        self._kbps = 0
        self._counted = (time.monotonic(), 0)
        changed(self._state)
        shown.fan.keepers.add(self)
        self._task = asyncio.create_task(self._run(), name=f"output-{delivery.kind}")

    def to_dict(self) -> dict[str, Any]:
        """How it is now, as the API shows it."""
        (since_s, before), now_s, sent = self._counted, time.monotonic(), self._delivery.sent_bytes
        if now_s - since_s >= RATE_S:
            self._kbps = round((sent - before) * 8 / 1000 / (now_s - since_s))
            self._counted = (now_s, sent)
        return {
            "name": self._name,
            "kind": self._delivery.kind,
            "state": self._state,
            "kbps": self._kbps if self._state is OutputState.LIVE else 0,
            "reconnects": self._reconnects,
            "error": self._error.to_dict() if self._error is not None else None,
        }

    async def aclose(self) -> None:
        """Ends it; idempotent."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        wait_s = SHORTEST_WAIT_S
        try:
            while True:
                begun_s = time.monotonic()
                self._error = error = await self._deliver()
                if time.monotonic() - begun_s >= STEADY_S:
                    wait_s = SHORTEST_WAIT_S
                logger.warning("output %s: %s Next try in about %.1f s.", self._name, error.message, wait_s)
                self._become(OutputState.WAITING)
                asked_s = error.retry_after_s or 0 if isinstance(error, Busy) else 0
                # Spread, so that all sessions of a server that was down do not come back in one moment.
                await asyncio.sleep(max(min(asked_s, LONGEST_WAIT_S), wait_s * random.uniform(0.8, 1.2)))
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                self._reconnects += 1
                self._become(OutputState.CONNECTING)
        finally:
            self._shown.fan.keepers.discard(self)
            self._changed(None)

    async def _deliver(self) -> VisavisError:
        try:
            await self._delivery.deliver(self._shown, self._is_live)
        except (BackendFailed, Busy) as error:
            return error
        except Exception:
            logger.exception("output %s failed", self._name)
        return BackendFailed("publish_lost", "The connection is over.")

    def _is_live(self) -> None:
        self._error = None
        self._become(OutputState.LIVE)

    def _become(self, state: OutputState) -> None:
        if state is not self._state:
            self._state = state
            self._changed(state)
