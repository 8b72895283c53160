"""The real server with a diary: when microphone sound reached a session, and when each of its frames left.

Place in the flow: ``python -m server`` with one class replaced by one that notes the time and changes nothing; the
diary goes to the log, line by line, for measures.stages to read.

Invariants: times are CLOCK_MONOTONIC, which the browser on the same machine counts by, too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator

import numpy as np

import server.__main__
import server.stage
from engine.session import Session
from engine.types import AvatarFrame
from tests.benchmarks.serving import DIARY_MARK

FULL_SCALE = 32768


def _note(kind: str, samples: np.ndarray, **more: float) -> None:
    level = float(np.sqrt(np.mean(samples.astype(np.float32) ** 2))) / FULL_SCALE if len(samples) else 0.0
    print(DIARY_MARK + json.dumps({"kind": kind, "at_ms": time.monotonic() * 1000, "level": level, **more}), flush=True)


class TracedSession(Session):
    """A session that notes what comes and goes."""

    def hear(self, samples: np.ndarray) -> None:
        """Notes microphone sound and passes it on."""
        _note("heard", samples)
        super().hear(samples)

    async def __aiter__(self) -> AsyncIterator[AvatarFrame]:
        """Frames as the session makes them, each noted as it leaves."""
        async for frame in super().__aiter__():
            _note("left", frame.audio, due_ms=self.clock.due_s(frame.pts) * 1000, pts=frame.pts)
            yield frame


if __name__ == "__main__":
    server.stage.Session = TracedSession
    sys.exit(server.__main__.main())
