"""Decides how much restoring every session gets, so that no picture is ever late for it.

Place in the flow: what stages cost, when pictures are due -> Governor -> quality level of each picture -> renderer.

A pure state machine: it reads no clock, starts nothing, and the same calls give the same answers. It governs restoring
only; the order in which quality goes when time is short is: restoring, level by level; smaller batches where there are
batches (``renderer.batches``); then the renderer gives up pictures that would be late, and the producer holds the one
before.

Going down. Before a picture is restored, ``admit`` compares what that costs with the time that is left once every
waiting picture got its mouth in time. A picture it does not fit into goes out unrestored; after the third in a second
the session steps down (``late``). And as soon as the sum of what all speaking sessions cost exceeds ``DOWN_LOAD``,
those at the highest level step down together (``load``): the dearest first, and nobody before others of that level; a
session that does so for one of a higher priority says so (``priority``).

Who does without. Sessions have priorities. The lowest one that still restores steps down, to the end, before the next
one loses anything, whoever's pictures there is no time for; and no session steps up while one of a higher priority
could. Among equals nobody is before others.

Going up. A session steps up one level when it has been below what it wants for its patience and everybody at its level
could do so within ``UP_LOAD``. What a level costs after seconds without it is not known, so before restoring begins
again, one picture is restored for measurement beside the live path (``Admission.probe``). An attempt that fails doubles
the patience, up to ``LONGEST_PATIENCE_S``; one that lasts brings it back.

Invariants:
    * a session is never above the level it wants, and never below 0;
    * level changes of a session upwards lie at least its patience apart;
    * a probe is only asked for when the best cost ever seen would fit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.quality import AUTO, LIVE, OFF, RESTORED_AVATAR, Quality, QualityState, Reason
from engine.restore_costs import WEIGHT, RestoreCosts, duty
from engine.schedule import PRIORITY
from engine.types import FPS

STAGES = ("window", "predict", "paste", "restore", "encode")
"""What is measured, in the order in which a picture passes through."""
DOWN_LOAD = 0.85
"""Share of the time there is that pictures may take; beyond it, waiting grows without bound when costs vary."""
UP_LOAD = 0.70
"""What may be taken after a step up. The gap to ``DOWN_LOAD`` keeps a small change from being a step back."""
MARGIN_S = 0.004
"""Kept free before a deadline."""
PATIENCE_S = 3.0
LONGEST_PATIENCE_S = 60.0
MISSES = 3
"""Pictures that did not fit, within ``MISSES_WITHIN_S``, that make a session step down: one may have had bad luck."""
MISSES_WITHIN_S = 1.0
ACTIVE_S = 0.5
"""A session that drew no mouth for so long takes no part in the load."""
RELAPSE_S = 10.0
"""An attempt that ends sooner has failed."""

@dataclass(frozen=True, slots=True)
class Admission:
    """What a picture may have.

    Attributes:
        level: to restore it at; below ``LIVE``, not at all.
        probe: a level that somebody should measure beside the live path, and tell ``probed``; None mostly.
    """

    level: int
    probe: int | None = None


@dataclass(eq=False, slots=True)
class Seat:
    """One session as the governor sees it; everybody else only reads it.

    Attributes:
        asked: the quality it asked for.
        wanted: the level it gets when nothing is short.
        cap: the level it may have now.
        ready: whether the avatar's restored pictures are there; None while nobody knows.
        reason: why it is at its level.
        on_change: called with this seat, its level before and its level now when its state changed, inside the call
            that changed it.
        priority: 0 to 9; who has a lower one does without first.
    """

    asked: Quality
    wanted: int
    on_change: Callable[[Seat, int, int], None]
    priority: int = PRIORITY
    cap: int = 0
    ready: bool | None = None
    reason: Reason = "asked"
    _told: QualityState | None = None
    _patience_s: float = PATIENCE_S
    _changed_s: float = 0.0
    _raised_s: float | None = None
    _active_s: float | None = None
    _fits_since_s: float | None = None
    _missed_s: deque[float] = field(default_factory=lambda: deque(maxlen=MISSES))
    _probing: bool = False

    @property
    def level(self) -> int:
        """What it gets, 0 to 5."""
        level = min(self.wanted, self.cap)
        return level if level >= LIVE or (level == RESTORED_AVATAR and self.ready) else OFF

    @property
    def state(self) -> QualityState:
        """What can be told about it."""
        reason = self.reason
        if self.cap >= self.wanted:
            reason = "auto" if self.asked == AUTO else "asked"
            if self.level < self.wanted:
                reason = "preparing" if self.ready is None else "failed"
        return QualityState(self.asked, self.level, reason)


class Governor:
    """Governs the sessions of one renderer.

    Args:
        threads: pictures drawn at a time.
        cores: CPU cores for everything together.
        patience_s: how long a session stays at a level at least before it tries the next one up.
    """

    def __init__(self, threads: int = 1, cores: int = 1, patience_s: float = PATIENCE_S) -> None:
        self.costs_s: dict[str, float | None] = dict.fromkeys(STAGES)
        """Running mean of what one picture costs by stage, seconds; None before the first. ``restore`` is that of all
        levels."""
        self._threads = threads
        self._cores = max(cores, threads)
        self._patience_s = patience_s
        self._seats: list[Seat] = []
        self._restoring = RestoreCosts()

    # Sessions -----------------------------------------------------------------------------------------------------

    def enrol(
        self,
        asked: Quality,
        wanted: int,
        on_change: Callable[[Seat, int, int], None],
        now_s: float,
        priority: int = PRIORITY,
    ) -> Seat:
        """A new session. Its first state is told by its ``state``, not by ``on_change``."""
        seat = Seat(asked, wanted, on_change, priority, cap=wanted, _patience_s=self._patience_s, _changed_s=now_s)
        # Whoever comes while others that matter as much do without, does without, too.
        short = [other.cap for other in self._short(now_s) if other.priority >= priority]
        if short and min(short) < wanted:
            seat.cap, seat.reason = min(short), "load"
        seat._told = seat.state
        self._seats.append(seat)
        return seat

    def leave(self, seat: Seat) -> bool:
        """A session has ended; False when it had before."""
        if seat not in self._seats:
            return False
        self._seats.remove(seat)
        return True

    def ask(self, seat: Seat, asked: Quality, wanted: int, now_s: float) -> None:
        """A session wants something else from now on; what was learned about its patience is forgotten."""
        if wanted == seat.wanted:
            # Asking again for the same does not get it.
            seat.asked = asked
            self._tell(seat)
            return
        seat.asked, seat.wanted, seat.cap, seat.reason = asked, wanted, wanted, "asked"
        seat._patience_s, seat._changed_s, seat._raised_s = self._patience_s, now_s, None
        seat._missed_s.clear()
        self._tell(seat)

    def prepared(self, seat: Seat, ready: bool) -> None:
        """The avatar's restored pictures are there, or (False) will not be."""
        seat.ready = ready
        self._tell(seat)

    @property
    def seats(self) -> tuple[Seat, ...]:
        """All sessions."""
        return tuple(self._seats)

    # Measuring ----------------------------------------------------------------------------------------------------

    def observe(self, stage: str, seconds: float) -> None:
        """What a stage cost for one picture; for ``restore``, tell ``restored``."""
        mean_s = self.costs_s[stage]
        self.costs_s[stage] = seconds if mean_s is None else mean_s + WEIGHT * (seconds - mean_s)

    def learn(self, seconds: float, now_s: float) -> None:
        """What restoring one picture costs, measured before anybody is waiting for one."""
        self._restoring.learn(LIVE, seconds, now_s)
        self._restoring.learn(LIVE + 1, seconds, now_s)

    def restored(self, seat: Seat, level: int, seconds: float, now_s: float) -> None:
        """A picture of a session was restored."""
        self.observe("restore", seconds)
        self._restoring.add(level, seconds, now_s)
        self._relieve(now_s)

    def probed(self, seat: Seat, level: int, seconds: float | None, now_s: float) -> None:
        """What a probe found; None when there was none after all. The session steps up if it fits."""
        seat._probing = False
        if seconds is not None:
            self._restoring.learn(level, seconds, now_s)
            if self._load_if_raised(seat, now_s) <= UP_LOAD:
                self._raise(seat, now_s)
                return
        seat._patience_s = min(LONGEST_PATIENCE_S, 2 * seat._patience_s)
        seat._changed_s = now_s

    def missed(self, seat: Seat, now_s: float) -> None:
        """A picture of a session did not fit, or its restoring came too late."""
        if seat.level < LIVE:
            return
        seat._missed_s.append(now_s)
        if len(seat._missed_s) < MISSES or now_s - seat._missed_s[0] > MISSES_WITHIN_S:
            return
        levels = {id(other): other.level for other in self._seats}
        below = [other for other in self._active(now_s) if other.level >= LIVE and other.priority < seat.priority]
        if not below:
            self._lower(seat, self._affordable(seat, now_s), "late", now_s)
            return
        seat._missed_s.clear()
        for other in _dearest(below, levels):
            self._lower(other, other.level - 1, "priority", now_s)

    def failed(self, seat: Seat, now_s: float) -> None:
        """Restoring a picture of a session failed; it is tried again after a while."""
        self._lower(seat, RESTORED_AVATAR, "failed", now_s)

    # Deciding -----------------------------------------------------------------------------------------------------

    def admit(
        self, seat: Seat, now_s: float, due_s: float, waiting_s: Sequence[float] = (), beside: int = 0
    ) -> Admission:
        """What may be done for a picture that has just got its mouth.

        Args:
            seat: whose picture.
            now_s: monotonic time, seconds.
            due_s: when the picture is due, or the most urgent of those beside it.
            waiting_s: when every picture is due that waits to be drawn; the first one first.
            beside: pictures that are restored together with it.
        """
        began = seat._active_s is None or now_s - seat._active_s > ACTIVE_S
        seat._active_s = now_s
        if began:
            # What it does to the others is known before it happens.
            self._relieve(now_s)
        probe = self._step_up(seat, now_s)
        if seat.level < LIVE:
            return Admission(seat.level, probe)
        if not self.fits(seat.level, now_s, due_s, waiting_s, beside):
            self.missed(seat, now_s)
            return Admission(OFF, probe)
        return Admission(seat.level, probe)

    def fits(self, level: int, now_s: float, due_s: float, waiting_s: Sequence[float], beside: int) -> bool:
        """Whether there is time to restore a picture at a level together with so many others; see ``admit``."""
        return now_s + (1 + beside) * self._restoring.peak_s(level, now_s) <= self._free_until_s(due_s, waiting_s)

    def fast(self) -> bool:
        """Whether restoring is so fast that two sessions on a thread could have it, as learned; else it is for few."""
        known = self._restoring.of(LIVE + 1)
        return known is not None and 2 * FPS * known.best_s <= UP_LOAD

    def load(self, now_s: float) -> float:
        """Share of the time there is that the speaking sessions take, as they are."""
        return self._load({id(seat): seat.level for seat in self._seats}, now_s)

    def _load(self, levels: dict[int, int], now_s: float) -> float:
        cost_s = {stage: mean_s or 0.0 for stage, mean_s in self.costs_s.items()}
        drawn_s = cost_s["predict"] + cost_s["paste"]
        active = self._active(now_s)
        renderer_s = sum(drawn_s + self._restoring.mean_s(levels[id(seat)], now_s) for seat in active)
        # Sessions that do not speak send packets that are encoded once for all.
        machine_s = renderer_s + len(active) * (cost_s["window"] + cost_s["encode"])
        return FPS * max(renderer_s / self._threads, machine_s / self._cores)

    def _relieve(self, now_s: float) -> None:
        """Steps down until the load fits or nobody is restored while speaking."""
        levels = {id(seat): seat.level for seat in self._seats}
        while self._load(levels, now_s) > DOWN_LOAD:
            live = [seat for seat in self._active(now_s) if levels[id(seat)] >= LIVE]
            if not live:
                break
            for seat in _dearest(live, levels):
                levels[id(seat)] -= 1
        kept = max((seat.priority for seat in self._active(now_s) if levels[id(seat)] >= LIVE), default=0)
        for seat in self._seats:
            if levels[id(seat)] < seat.level:
                self._lower(seat, levels[id(seat)], "priority" if seat.priority < kept else "load", now_s)

    def _affordable(self, seat: Seat, now_s: float) -> int:
        """The next level down that costs less in its dearest picture than the present one."""
        level, peak_s = seat.level - 1, self._restoring.peak_s(seat.level, now_s)
        while level >= LIVE and self._restoring.peak_s(level, now_s) >= peak_s:
            level -= 1
        return level

    def _active(self, now_s: float) -> list[Seat]:
        return [seat for seat in self._seats if seat._active_s is not None and now_s - seat._active_s <= ACTIVE_S]

    def _free_until_s(self, due_s: float, waiting_s: Sequence[float]) -> float:
        """Until when a thread may restore a picture: then all that wait still get their mouths in time."""
        drawn_s = ((self.costs_s["predict"] or 0.0) + (self.costs_s["paste"] or 0.0)) / self._threads
        all_s = len(waiting_s) * drawn_s
        for at, waiting in enumerate(waiting_s, 1):
            if waiting - all_s >= due_s:
                break  # nor do those after it
            due_s = min(due_s, waiting - at * drawn_s)
        return due_s - MARGIN_S

    def _step_up(self, seat: Seat, now_s: float) -> int | None:
        """Raises a session whose time has come; or returns what must be measured before that."""
        if seat.cap >= seat.wanted or seat._probing:
            seat._fits_since_s = None
            return None
        if seat._raised_s is not None and now_s - seat._raised_s > RELAPSE_S:
            seat._patience_s = self._patience_s
        level = seat.cap + 1
        known = self._restoring.of(level)
        measured = level < LIVE or known is None or seat.level >= LIVE or known.fresh(now_s)
        if measured and self._load_if_raised(seat, now_s) > UP_LOAD:
            seat._fits_since_s = None
            return None
        if any(
            other.priority > seat.priority and self._load_if_raised(other, now_s) <= UP_LOAD
            for other in self._short(now_s)
        ):
            seat._fits_since_s = None
            return None
        if seat._fits_since_s is None:
            seat._fits_since_s = now_s
        if now_s - max(seat._changed_s, seat._fits_since_s) < seat._patience_s:
            return None
        if measured:
            self._raise(seat, now_s)
            return None
        assert known is not None
        if FPS * known.best_s * duty(level) / self._threads > UP_LOAD:
            return None  # more than this machine can, however idle
        seat._probing = True
        return level

    def _load_if_raised(self, seat: Seat, now_s: float) -> float:
        """The load when all its equals at its level that want more step up with it, and lower ones do without."""

        def level(other: Seat) -> int:
            if other.priority == seat.priority and other.cap == seat.cap < other.wanted:
                return other.cap + 1
            return OFF if other.priority < seat.priority else other.level

        return self._load({id(other): level(other) for other in self._seats}, now_s)

    def _short(self, now_s: float) -> list[Seat]:
        """Speaking sessions that would have more if there were time."""
        return [seat for seat in self._active(now_s) if seat.cap < seat.wanted and seat.reason != "failed"]

    # Changing -----------------------------------------------------------------------------------------------------

    def _lower(self, seat: Seat, level: int, reason: Reason, now_s: float) -> None:
        relapsed = seat._raised_s is not None and now_s - seat._raised_s <= RELAPSE_S
        seat._patience_s = min(LONGEST_PATIENCE_S, 2 * seat._patience_s) if relapsed else self._patience_s
        seat.cap, seat.reason, seat._changed_s, seat._raised_s = max(OFF, level), reason, now_s, None
        seat._missed_s.clear()
        self._tell(seat)

    def _raise(self, seat: Seat, now_s: float) -> None:
        seat.cap, seat.reason, seat._changed_s, seat._raised_s = seat.cap + 1, "recovered", now_s, now_s
        seat._fits_since_s = None
        self._tell(seat)
        # Those that it matters more than make room.
        self._relieve(now_s)

    def _tell(self, seat: Seat) -> None:
        state = seat.state
        if state != seat._told:
            before, seat._told = seat._told, state
            seat.on_change(seat, before.level if before is not None else state.level, state.level)


def _dearest(live: Sequence[Seat], levels: dict[int, int]) -> list[Seat]:
    """Who steps down next: of the lowest priority those at the highest level."""
    lowest = min(seat.priority for seat in live)
    highest = max(levels[id(seat)] for seat in live if seat.priority == lowest)
    return [seat for seat in live if seat.priority == lowest and levels[id(seat)] == highest]
