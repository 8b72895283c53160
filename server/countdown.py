"""Tells a browser that its session is about to end, early enough for a countdown.

Place in the flow: the clock of ``Sessions`` (longest life) and of ``Peer`` (idleness) -> ``Countdown`` -> data channel:
``{"type": "state", "state": "ending", "reason", "seconds_left"}``; the page counts on by itself.

Invariant: what was announced and does not come is called off, with ``seconds_left`` null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from server.metrics import EndReason

WARNINGS_S = (60.0, 30.0)


class Countdown:
    """One reason for which a session may end."""

    def __init__(self, tell: Callable[[str, Mapping[str, Any]], None], reason: EndReason) -> None:
        """Args: tell: sends an event of a type; reason: of the end."""
        self._tell = tell
        self._reason = reason
        self._passed: int | None = None

    def left(self, seconds: float) -> float:
        """Takes how long is left, and tells what is to be told; returns when to call again at the latest, seconds.

        A session that was never to last longer than a warning begins without it.
        """
        passed = sum(seconds <= warning for warning in WARNINGS_S)
        before, self._passed = self._passed, passed
        if before is not None and passed > before:
            self._announce(math.ceil(seconds))
        elif before is not None and 0 == passed < before:
            self._announce(None)
        return seconds - (WARNINGS_S[passed] if passed < len(WARNINGS_S) else 0.0)

    def _announce(self, seconds_left: int | None) -> None:
        self._tell("state", {"state": "ending", "reason": self._reason, "seconds_left": seconds_left})
