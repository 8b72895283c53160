"""A session that no browser of its own watches: a broadcast, or one whose browser is gone while an output goes on.

Place in the flow: session -> ``Audience`` -> watchers, among them the session's fan.

Invariants: it takes every frame, so that what is said is really played; it ends when for a while nobody has taken
anything and nothing was said.
"""

from __future__ import annotations

import asyncio
import time

from engine.session import Session
from server.fan import Fan
from server.manner import Manner
from server.metrics import EndReason
from server.peer_options import PeerOptions
from server.showing import Showing, Watcher

LOOK_S = 2.0
"""How often it looks whether anybody is there."""


class Audience(Showing):
    """Everybody who watches a session from afar."""

    def __init__(
        self,
        session: Session,
        manner: Manner,
        session_id: str,
        options: PeerOptions,
        fan: Fan,
        watchers: set[Watcher],
    ) -> None:
        """
        Args:
            session: what is shown; started, and not closed by it.
            manner: how it answers.
            session_id: of the session.
            options: how long nobody may be there.
            fan: what others get; while anybody takes it, somebody is there.
            watchers: who is shown every frame.
        """
        super().__init__(session, manner, session_id, options, watchers)
        self._fan = fan

    def begin(self) -> None:
        """Begins to take frames."""
        self._start("pump", self._pump(), EndReason.FAILED)
        self._start("channel", self.channel.run(), EndReason.FAILED)
        self._start("watch", self._watch(), EndReason.IDLE)

    async def _pump(self) -> None:
        async for frame in self._session:
            self._show(frame)

    async def _watch(self) -> None:
        """Returns when nobody has needed the session for a while."""
        seen_s = time.monotonic()
        while (now_s := time.monotonic()) < seen_s + self._options.idle_timeout_s:
            if self._fan.is_wanted:
                seen_s = now_s
            seen_s = max(seen_s, self.channel.last_speech_s)
            await asyncio.sleep(min(LOOK_S, self._options.idle_timeout_s / 4))
