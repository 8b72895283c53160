"""When sound need not be sent: discontinuous transmission of Opus (RFC 6716, 2.1.9; RFC 7587, 3.1.3).

Place in the flow: whether a frame is silent -> Silence -> encode it, keep the line alive, or send nothing.

A pure state machine. Silence is encoded like all sound until the listener's decoder has faded to it; then a packet that
says no more than "nothing" goes out ten times in four seconds, and the decoder goes on by itself.

Invariants:
    * a frame that is not silent is always sent, from its first sample on;
    * a pause shorter than ``HANGOVER_FRAMES`` is sent as it is.
"""

from __future__ import annotations

from enum import Enum, auto

from engine.types import FRAME_MS

HANGOVER_FRAMES = 400 // FRAME_MS
"""Silent frames that are still encoded: pauses between words are shorter."""
REFRESH_FRAMES = 400 // FRAME_MS
"""Frames from one sign of life to the next."""


NOTHING = bytes([0x78])
"""An Opus packet of 20 ms of nothing: the first byte of one (mono, hybrid, full band), and no sound after it. Decoders
go on from what they last heard; browsers count what follows as silence, not as loss."""


class Sending(Enum):
    """What becomes of a frame's sound."""

    SOUND = auto()
    """It is encoded."""
    NOTHING_NEW = auto()
    """A packet says that there is nothing."""
    NONE = auto()
    """Nothing is sent."""


class Silence:
    """How long one stream has been silent."""

    def __init__(self) -> None:
        self._frames = 0

    def take(self, silent: bool) -> Sending:
        """What becomes of the next frame.

        Args:
            silent: all of it is digital silence.
        """
        if not silent:
            self._frames = 0
            return Sending.SOUND
        self._frames += 1
        since = self._frames - HANGOVER_FRAMES
        if since <= 0:
            return Sending.SOUND
        return Sending.NOTHING_NEW if since % REFRESH_FRAMES == 1 else Sending.NONE
