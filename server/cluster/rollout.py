"""A rolling update: workers are replaced a few at a time, and nobody loses a session for it.

Place in the flow: ``python -m server.cluster rollout`` -> directory -> ``Rollout.step``, once a second.

Invariants:
    * an old worker is drained only when a new one has taken its place, or when there is no room for a new one first;
    * never more than ``at_once`` old workers are leaving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from server.cluster.size import Changes, Crew

PATIENCE_S = 20.0
"""A new worker that has not come up by then waits for room that an old one must make."""
STUCK_S = 120.0
"""Where workers are missing besides, as when a machine was lost, one makes room only so often."""


@dataclass(slots=True)
class Rollout:
    """One update.

    Attributes:
        at_once: how many are replaced at the same time.
        keep: workers that should be up all the while.
    """

    at_once: int
    keep: int
    _made_room_s: float = field(default=float("-inf"), repr=False)

    def step(
        self, todo: Changes, crew: Sequence[Crew], *, olds: frozenset[str], leaving: int, waits_s: float, now_s: float
    ) -> Changes:
        """What to do now.

        Args:
            todo: what would be done without an update.
            crew: all actors that are not draining.
            olds: those of them to be replaced.
            leaving: old ones that are draining.
            waits_s: for how long the actor that was started first has not come up.
            now_s: the time.
        """
        coming = sum(not one.is_up for one in crew)
        up = len(crew) - coming
        may_leave = max(0, self.at_once - leaving)
        start = max(todo.start, min(self.at_once, len(olds)) - coming)
        surplus = up - self.keep
        if surplus <= 0 and coming and waits_s >= PATIENCE_S and not leaving:
            # Once one has left, the new one needs a moment to come up.
            if surplus == 0 or now_s - self._made_room_s >= STUCK_S:
                self._made_room_s = now_s
                surplus = 1
        candidates = sorted((one for one in crew if one.slot in olds), key=lambda one: (one.taken, one.slot))
        drain = tuple(one.slot for one in candidates[: max(0, min(surplus, may_leave))])
        return replace(todo, start=max(0, start), drain=drain, give_up=())
