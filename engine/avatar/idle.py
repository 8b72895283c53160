"""Walks through an avatar's idle loop, one picture a frame, through silence and speech alike.

Place in the flow: frame sequence -> idle picture -> paste-back or straight out.

Invariants:
    * the body never stops and never jumps: consecutive frames are consecutive pictures of the loop;
    * where a session is in the loop depends on the number of frames it has shown and on nothing else.
"""

from __future__ import annotations

from engine.avatar.bundle import Avatar


class IdleLoop:
    """The idle pictures of an avatar as an endless sequence.

    Args:
        avatar: its last picture flows into its first.
        start: picture shown first.
    """

    def __init__(self, avatar: Avatar, start: int = 0) -> None:
        self._count = len(avatar.frames)
        self._start = start

    def index(self, sequence: int) -> int:
        """Which picture of the loop frame number ``sequence`` shows."""
        return (self._start + sequence) % self._count
