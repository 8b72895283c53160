"""The real server with frames that can be read: each carries its number, and beats flash and beep.

Place in the flow: ``python -m server`` with one class replaced: the session still makes its frames, on its clock; they
are stamped where they leave it. Tracks, encoders, clock and transport behind are the product's own.

Invariants: picture and sound of a beat leave in one frame; whatever pulls them apart afterwards is what is measured.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import server.__main__
import server.stage
from engine.planner import SILENCE
from engine.session import Session
from engine.types import AvatarFrame
from tests.benchmarks import strip

_BEEP = strip.beep()


class StampedSession(Session):
    """A session whose frames are stamped."""

    async def __aiter__(self) -> AsyncIterator[AvatarFrame]:
        """Frames as the session makes them, with their numbers on them and the probe's sound in them."""
        async for frame in super().__aiter__():
            sound = _BEEP if strip.is_beat(frame.pts) else SILENCE
            # No longer a picture that is encoded already.
            yield replace(frame, image=strip.stamp(frame.image, frame.pts), audio=sound, still=None)


if __name__ == "__main__":
    server.stage.Session = StampedSession
    sys.exit(server.__main__.main())
