"""Decides how hard the encoders try: well while pictures leave in time, fast when they would be late.

Place in the flow: how late encoded pictures are -> EncoderPressure -> preset of every encoder made from then on.

A pure state machine, one for all sessions of a process: it reads no clock, and the same calls give the same answers. It
goes to the fast preset as soon as a second shows that pictures are late for want of time to encode them, or were held
for want of time to draw them (models and encoders share the cores), and back with patience: when nothing was late for a
while, which is tried half as often each time it was too early.

Invariants:
    * changes back lie at least the patience apart;
    * one picture that had bad luck changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

LATE_SHARE = 0.1
"""Share of a second's pictures that may be late before the encoders hurry."""
LATE_LEAST = 3
"""Pictures that must be late in a second, whatever their share."""
WINDOW_S = 1.0
PATIENCE_S = 5.0
LONGEST_PATIENCE_S = 80.0
RELAPSE_S = 10.0
"""An attempt to go back that ends sooner has failed."""


class EncoderPressure:
    """Whether the encoders hurry.

    Args:
        on_change: called with the new ``hurried``, inside the call that changed it.

    Attributes:
        hurried: encoders made now should use the fast preset.
    """

    def __init__(self, on_change: Callable[[bool], None] = lambda hurried: None) -> None:
        self.hurried = False
        self._on_change = on_change
        self._window_s: float | None = None
        self._pictures = 0
        self._late = 0
        self._patience_s = PATIENCE_S
        self._calm_s: float | None = None
        self._eased_s: float | None = None

    def encoded(self, late_s: float, now_s: float, *, held: bool = False) -> None:
        """A picture of some session was encoded.

        Args:
            late_s: how long after its time it was ready, as far as encoding is to blame; not positive when in time.
            now_s: monotonic time, seconds.
            held: it shows an earlier picture, because its own was not drawn in time.
        """
        if self._window_s is None:
            self._window_s = now_s
        elif now_s - self._window_s >= WINDOW_S:
            self._judge(now_s)
            self._window_s, self._pictures, self._late = now_s, 0, 0
        self._pictures += 1
        self._late += late_s > 0 or held

    def _judge(self, now_s: float) -> None:
        if self._late >= max(LATE_LEAST, LATE_SHARE * self._pictures):
            self._calm_s = None
            if not self.hurried:
                relapsed = self._eased_s is not None and now_s - self._eased_s <= RELAPSE_S
                self._patience_s = min(LONGEST_PATIENCE_S, 2 * self._patience_s) if relapsed else PATIENCE_S
                self._change(True)
        elif self.hurried:
            if self._calm_s is None:
                self._calm_s = now_s
            elif now_s - self._calm_s >= self._patience_s:
                self._eased_s = now_s
                self._change(False)

    def _change(self, hurried: bool) -> None:
        self.hurried, self._calm_s = hurried, None
        self._on_change(hurried)
