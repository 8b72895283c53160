"""What restoring a picture costs at each level, as measured: usually, at its dearest, and at its best.

Place in the flow: renderer's measurements -> Governor -> RestoreCosts -> Governor's decisions.

Invariants: pure, time comes in with every call; a level that was not measured lately is judged by the nearest that was.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.quality import LIVE

FRESH_S = 0.5
"""A cost not measured for so long is not trusted."""

# Weight of a new measurement in a running mean.
WEIGHT = 0.1
# Level 2 restores every second picture.
_DUTY = {LIVE: 0.5}
# Pictures among which the second dearest tells what one costs: one that had bad luck is forgiven, two are a change.
# At level 2, half of which cost next to nothing and sessions may alternate in step, it takes twice as many.
_RECENT = 3


def duty(level: int) -> float:
    """Share of the pictures that are restored at a level."""
    return _DUTY.get(level, 1.0)


@dataclass(slots=True)
class LevelCost:
    """What a full restoration at a level costs.

    Attributes:
        peak_s: as dear as one may be; follows a rise at once and forgets it over a second.
        best_s: the least one ever cost.
        at_s: time of the last measurement.
        recent_s: the last measurements, seconds.
    """

    peak_s: float
    best_s: float
    at_s: float
    recent_s: deque[float]

    @property
    def usual_s(self) -> float:
        """What one is likely to cost."""
        return sorted(self.recent_s)[-2:][0]

    def fresh(self, now_s: float) -> bool:
        """Whether it was measured lately."""
        return now_s - self.at_s <= FRESH_S

    def add(self, seconds: float, now_s: float) -> None:
        """Takes another measurement."""
        self.peak_s = max(seconds, self.peak_s + WEIGHT * (seconds - self.peak_s))
        self.recent_s.append(seconds)
        self.at_s = now_s


class RestoreCosts:
    """The costs of all levels of one renderer."""

    def __init__(self) -> None:
        self._levels: dict[int, LevelCost] = {}

    def of(self, level: int) -> LevelCost | None:
        """What is known of a level itself."""
        return self._levels.get(level)

    def add(self, level: int, seconds: float, now_s: float) -> None:
        """A picture was restored at a level, fully or as little as its turn asked for."""
        cost = self._levels.get(level)
        if cost is not None and cost.fresh(now_s):
            cost.add(seconds, now_s)
            if level not in _DUTY:
                cost.best_s = min(seconds, cost.best_s)
        else:
            self.learn(level, seconds, now_s)

    def learn(self, level: int, seconds: float, now_s: float) -> None:
        """A full restoration at a level, taken as what it costs from now on."""
        known = self._levels.get(level)
        best_s = min(seconds, known.best_s) if known is not None else seconds
        recent_s = deque([seconds], maxlen=round(_RECENT / duty(level)))
        self._levels[level] = LevelCost(seconds, best_s, now_s, recent_s)

    def _known(self, level: int, now_s: float) -> LevelCost | None:
        """What tells most about the cost of a level: its own when fresh, else that of the nearest one that is."""
        fresh = [known for known, cost in self._levels.items() if cost.fresh(now_s)]
        among = fresh or [known for known in self._levels if known == level] or list(self._levels)
        return self._levels[min(among, key=lambda known: (abs(known - level), known))] if among else None

    def peak_s(self, level: int, now_s: float) -> float:
        """What a picture at a level costs at its dearest, seconds; 0 below ``LIVE`` and where nothing is known."""
        known = self._known(level, now_s)
        return known.peak_s if known is not None and level >= LIVE else 0.0

    def mean_s(self, level: int, now_s: float) -> float:
        """What pictures at a level cost on average, those that need no restoring included, seconds; 0 as ``peak_s``."""
        known = self._known(level, now_s)
        return known.usual_s * duty(level) if known is not None and level >= LIVE else 0.0
