"""Where the time of one turn goes: from the end of what a person said to the sound at their ear that answers.

Place in the flow: dialogue -> Waterfall -> Latencies -> ``latency`` event, metrics.

Invariants:
    * every stage counts from the end of speech, so the last one is the whole; a stage that did not happen, such as
      recognising typed text, is not told;
    * a stage of a turn is counted once, and only the last few turns are remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.metrics import TURN_STAGES, EngineMetrics

STAGES = TURN_STAGES
"""What is reached, in order: it is certain that the person has finished; their words are known; the language model
begins to answer; the voice has its first sound; the first frame with that sound is published; that sound came out of
the person's device, where it tells."""
REMEMBERED_TURNS = 8
"""Turns whose sound may still be told to have been heard; it travels for less than a second."""


@dataclass(slots=True)
class Waterfall:
    """One turn.

    Attributes:
        from_s: end of speech, or when the text was sent; monotonic seconds.
        reached_s: when each stage was reached, by name.
    """

    from_s: float
    reached_s: dict[str, float] = field(default_factory=dict)

    def reach(self, stage: str, now_s: float) -> None:
        """Notes that a stage is reached; the first time counts."""
        self.reached_s.setdefault(stage, now_s)

    @property
    def stages_ms(self) -> dict[str, int]:
        """Milliseconds from the end of speech to each stage that was reached, in the order of ``STAGES``."""
        return {
            stage: max(0, round((self.reached_s[stage] - self.from_s) * 1000))
            for stage in STAGES
            if stage in self.reached_s
        }


class Latencies:
    """What the answers of one dialogue took.

    Args:
        tell: publishes an event.
        metrics: where to count.
    """

    def __init__(self, tell: Callable[..., None], metrics: EngineMetrics) -> None:
        self._tell = tell
        self._metrics = metrics
        self._turns: dict[int, Waterfall] = {}

    def answered(self, turn_id: int, waterfall: Waterfall) -> None:
        """Counts and tells a turn whose first frame left."""
        for stage, value in waterfall.stages_ms.items():
            self._metrics.turn_ms(stage).observe(value)
        self._turns[turn_id] = waterfall
        while len(self._turns) > REMEMBERED_TURNS:
            del self._turns[next(iter(self._turns))]
        self._tell("latency", turn_id=turn_id, stages_ms=waterfall.stages_ms)

    def heard(self, turn_id: int, at_s: float, now_s: float) -> None:
        """Adds when the answer came out of the person's device, and tells the turn again.

        What cannot be is ignored: a turn that is unknown or was heard already, and a time in the future or before its
        first frame left.

        Args:
            turn_id: as events call it.
            at_s: monotonic seconds.
            now_s: the time now.
        """
        waterfall = self._turns.get(turn_id)
        # "not <=" refuses what is not a number, too.
        if waterfall is None or not waterfall.reached_s["first_frame"] <= at_s <= now_s:
            return
        del self._turns[turn_id]
        waterfall.reach("first_heard", at_s)
        self._metrics.turn_ms("first_heard").observe(waterfall.stages_ms["first_heard"])
        self._tell("latency", turn_id=turn_id, stages_ms=waterfall.stages_ms)
