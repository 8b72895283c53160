"""Where the time of one turn goes: from the end of what a person said to the first frame that answers.

Place in the flow: dialogue -> Waterfall -> ``latency`` event, metrics.

Invariants: every stage counts from the end of speech, so the last one is the whole; a stage that did not happen, such
as recognising typed text, is not told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.metrics import TURN_STAGES

STAGES = TURN_STAGES
"""What is reached, in order: it is certain that the person has finished; their words are known; the language model
begins to answer; the voice has its first sound; the first frame with that sound is published."""


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
