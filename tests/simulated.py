"""A renderer in virtual time that does what the governor says: costs in, levels and late pictures out."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.clock import FRAME_S
from engine.governor import Governor, Seat
from engine.quality import LIVE, Quality, wanted_level
from engine.schedule import PRIORITY


@dataclass(eq=False)
class Speaker:
    """A session that speaks without end.

    Attributes:
        seat: at the governor.
        lead_s: how long before it is due a picture is asked for.
        levels: (time, level) of every change.
        shown: level at which each picture was restored.
        late: pictures whose mouth was not drawn in time.
        unrestored: pictures that could not wait for the restorer.
    """

    seat: Seat
    lead_s: float
    speaks: Callable[[float], bool]
    levels: list[tuple[float, int]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    late: int = 0
    unrestored: int = 0
    restored: int = 0


@dataclass
class Machine:
    """One thread that draws and restores the pictures of all speakers, earliest deadline first.

    Attributes:
        restore_s: what restoring a picture costs at a time.
        draw_s: what drawing a picture costs at a time.
        probes: (time, level) of every measurement beside the live path.
    """

    restore_s: Callable[[float], float]
    draw_s: Callable[[float], float] = lambda now_s: 0.006
    now_s: float = 0.0
    governor: Governor = field(default_factory=Governor)
    speakers: list[Speaker] = field(default_factory=list)
    probes: list[tuple[float, int]] = field(default_factory=list)
    ready: bool = False

    def __post_init__(self) -> None:
        self.governor.learn(self.restore_s(0.0), 0.0)

    def speaker(
        self,
        asked: Quality,
        lead_s: float = 0.2,
        speaks: Callable[[float], bool] = lambda now_s: True,
        priority: int = PRIORITY,
    ) -> Speaker:
        """A session that begins now."""
        wanted = wanted_level(asked, self.governor.fast())
        seat = self.governor.enrol(asked, wanted, lambda seat, before, after: self._changed(seat), self.now_s, priority)
        speaker = Speaker(seat, lead_s, speaks, [(self.now_s, seat.level)])
        self.speakers.append(speaker)
        if self.ready:
            self.governor.prepared(seat, True)
        return speaker

    def run(self, seconds: float) -> None:
        """Lets time pass: every speaker's pictures that fall due in it are drawn."""
        end_s = self.now_s + seconds
        frames = [
            (self.now_s + number * FRAME_S, order, speaker)
            for order, speaker in enumerate(self.speakers)
            for number in range(round(seconds / FRAME_S))
        ]
        coming = sorted(frames, key=lambda frame: frame[:2])
        queue: list[tuple[float, int, Speaker]] = []
        order = itertools.count()
        landed: list[tuple[float, Speaker, int]] = []
        while coming or queue:
            while coming and coming[0][0] <= self.now_s:
                asked_s, _, speaker = coming.pop(0)
                if speaker.speaks(asked_s):
                    heapq.heappush(queue, (asked_s + speaker.lead_s, next(order), speaker))
            while landed and landed[0][0] <= self.now_s:
                at_s, speaker, level = landed.pop(0)
                self.governor.probed(speaker.seat, level, self.restore_s(at_s), self.now_s)
            if queue:
                due_s, _, speaker = heapq.heappop(queue)
                self._picture(speaker, due_s, sorted(waiting for waiting, _, _ in queue), landed)
            elif coming:
                self.now_s = max(self.now_s, coming[0][0])
        self.now_s = max(self.now_s, end_s)

    def _picture(self, speaker: Speaker, due_s: float, waiting_s: list[float], landed: list) -> None:
        drawn_s = self.draw_s(self.now_s)
        self.now_s += drawn_s
        self.governor.observe("predict", drawn_s)
        speaker.late += self.now_s > due_s
        admission = self.governor.admit(speaker.seat, self.now_s, due_s, waiting_s)
        if admission.probe is not None:
            self.probes.append((self.now_s, admission.probe))
            landed.append((self.now_s + self.restore_s(self.now_s), speaker, admission.probe))
        speaker.shown.append(admission.level)
        if admission.level < LIVE:
            return
        speaker.restored += 1
        took_s = self.restore_s(self.now_s) if admission.level > LIVE or speaker.restored % 2 else 0.001
        self.now_s += took_s
        if self.now_s > due_s:
            speaker.unrestored += 1
            self.governor.missed(speaker.seat, self.now_s)
        self.governor.restored(speaker.seat, admission.level, took_s, self.now_s)

    def _changed(self, seat: Seat) -> None:
        speaker = next(speaker for speaker in self.speakers if speaker.seat is seat)
        speaker.levels.append((self.now_s, seat.level))
        speaker.reasons.append(seat.state.reason)


def steps(speaker: Speaker) -> list[int]:
    """The levels a speaker went through."""
    return [level for level, _ in itertools.groupby(level for _, level in speaker.levels)]
