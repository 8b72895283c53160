"""How loud what leaves is, eased so that no change of it is a click.

Place in the flow: sound of one frame -> ``Gain`` -> AvatarFrame.

Invariants:
    * at full level, sound passes bit by bit;
    * the level moves along a line and reaches its target within one frame.
"""

from __future__ import annotations

import numpy as np

_INT16 = np.iinfo(np.int16)


class Gain:
    """A level between silence and as it is.

    Attributes:
        target: where the level goes within the next frame, 0 to 1.
    """

    def __init__(self) -> None:
        self.target = 1.0
        self._level = 1.0

    def mute(self) -> None:
        """Sets the level to 0 at once, for sound that was cut and begins anew; it rises back with the next frame."""
        self._level = 0.0

    def apply(self, samples: np.ndarray) -> np.ndarray:
        """(n,) int16 at the level -> (n,) int16; the array itself where nothing changes."""
        start, end = self._level, self.target
        self._level = end
        if start == end == 1.0:
            return samples
        ramp = np.linspace(start, end, len(samples), dtype=np.float32)
        return np.clip(np.rint(samples * ramp), _INT16.min, _INT16.max).astype(np.int16)
