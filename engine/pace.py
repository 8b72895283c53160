"""When a frame is decided: at the earliest so long before it is published, at the latest so that it can still be drawn.

Place in the flow: what pictures took -> Pace -> producer, which commits frames between the two moments.

Invariants: pure; a picture that took longer counts at once, so at most one is late for it.
"""

from __future__ import annotations

from engine.clock import FRAME_S
from engine.speech import Speech

LEAD_S = 5 * FRAME_S
"""How far ahead of its publication a frame may be committed: drawing ahead rides out a machine that is busy for a
moment, and an interrupt takes it back."""
LIVE_LEAD_S = 2 * FRAME_S
"""The same for live sound, of which no more can be there unless it comes in bursts."""

_MARGIN_LEAST_S = 0.012
_MARGIN_MOST_S = 0.060
# Taken for the first picture, and for the first of a cross-fade, before one was measured.
_RENDER_GUESS_S = 0.012
_FADE_GUESS_S = 0.030


def lead_s(speech: Speech | None) -> float:
    """How long before its publication a frame may be committed at the earliest."""
    return LIVE_LEAD_S if speech is None or speech.live else LEAD_S


class Pace:
    """What drawing takes in one session.

    Attributes:
        render_s: from asking for a picture to having it; follows a slow one at once, forgets it in seconds.
        fade_s: the same of a cross-fade, which is drawn from two pictures.
    """

    def __init__(self) -> None:
        self.render_s = _RENDER_GUESS_S
        self.fade_s = _FADE_GUESS_S

    def drew(self, took_s: float, *, fading: bool) -> None:
        """Takes what a picture took."""
        if fading:
            self.fade_s = _followed(self.fade_s, took_s)
        else:
            self.render_s = _followed(self.render_s, took_s)

    def margin_s(self, fading: bool) -> float:
        """How long before its publication a frame is decided at the latest."""
        expected_s = max(self.render_s, self.fade_s) if fading else self.render_s
        return min(_MARGIN_MOST_S, max(_MARGIN_LEAST_S, 1.25 * expected_s + 0.004))


def _followed(expected_s: float, took_s: float) -> float:
    """Follows a slow picture at once and forgets it over a second: a margin too small costs a held picture."""
    return max(took_s, expected_s + 0.04 * (took_s - expected_s))
