"""The real server with a diary of who had the floor: when the avatar was made to wait, went on, or was cut off.

Place in the flow: ``python -m server`` with one class replaced by one that notes the time and changes nothing; the
diary goes to the log, line by line, for conversation_live.py to read.

Invariants: times are CLOCK_MONOTONIC, which the browser on the same machine counts by, too.
"""

from __future__ import annotations

import json
import sys
import time

import server.__main__
import server.stage
from engine.session import Session
from tests.benchmarks.serving import DIARY_MARK


def _note(kind: str) -> None:
    print(DIARY_MARK + json.dumps({"kind": kind, "at_ms": time.monotonic() * 1000}), flush=True)


class NotedSession(Session):
    """A session that notes what its dialogue decides."""

    def pause(self) -> None:
        """Notes a barge-in."""
        _note("pause")
        super().pause()

    def resume(self) -> None:
        """Notes a false interruption."""
        _note("resume")
        super().resume()

    def duck(self, level: float) -> None:
        """Notes that the avatar speaks lower, or as loud as before."""
        _note("duck" if level < 1 else "unduck")
        super().duck(level)

    async def cut_off(self) -> None:
        """Notes the end of an answer that was interrupted or withdrawn."""
        _note("cut_off")
        await super().cut_off()


if __name__ == "__main__":
    server.stage.Session = NotedSession
    sys.exit(server.__main__.main())
