"""How many workers there should be: what the option says, and what that means for a cluster at one moment.

Place in the flow: directory, once a second -> ``changes`` -> workers started, drained or no longer waited for.

Invariants:
    * pure: the same state gives the same changes, and nothing here knows of Ray;
    * a worker that has sessions is drained, never stopped: an actor that may be one, unheard, is left alone;
    * growing is quick and shrinking is slow, so that a crowd that comes and goes does not make workers do so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import ConfigInvalid

HEADROOM = 0.15
"""Share of all places that should be free: a node that is lost leaves its sessions somewhere to go."""
CALM_S = 300.0
"""How long there must have been too many workers before one is drained."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many workers: as many as the cluster has room for (``most`` None), or by demand between two numbers."""

    least: int = 1
    most: int | None = None

    @classmethod
    def parse(cls, text: str) -> Size:
        """``auto``, ``4`` or ``2-10``.

        Raises:
            ConfigInvalid: ``option_invalid``.
        """
        if text == "auto":
            return cls()
        if found := re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text):
            least = int(found[1])
            most = int(found[2] or least)
            if 1 <= least <= most:
                return cls(least, most)
        raise ConfigInvalid(
            "option_invalid", f"cluster_workers is {text!r}: say auto, a number such as 4, or a range such as 2-10."
        )


@dataclass(frozen=True, slots=True)
class Crew:
    """A worker, or the actor that will be one, as far as its number matters.

    Attributes:
        slot: name of the actor.
        is_up: it takes sessions; otherwise it is starting, or waits for a machine.
        places, taken: as ``WorkerState``.
        is_new: it has been a worker never yet, so nobody can be there.
    """

    slot: str
    is_up: bool
    places: int = 0
    taken: int = 0
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do: ``start`` so many actors, ``drain`` these workers, ``give_up`` actors that never became one."""

    start: int = 0
    drain: tuple[str, ...] = ()
    give_up: tuple[str, ...] = ()


def changes(size: Size, crew: Sequence[Crew], room: int, waiting: int, calm_s: float) -> Changes:
    """What brings a cluster to its right size.

    Args:
        size: what is wanted.
        crew: all actors that are not draining.
        room: how many workers the machines that are there could hold together; matters where ``size.most`` is None.
        waiting: newcomers in the line, and those who were sent away lately.
        calm_s: for how long nobody waited and ``HEADROOM`` was more than kept.
    """
    up = [one for one in crew if one.is_up]
    new = [one for one in crew if one.is_new and not one.is_up]
    if size.most is None:
        wanted = max(size.least, room)
    else:
        typical = max((one.places for one in up), default=1) or 1
        places = sum(one.places for one in up)
        taken = sum(one.taken for one in up)
        needed = math.ceil((taken + waiting + max(1.0, HEADROOM * places)) / typical)
        wanted = min(max(size.least, needed), size.most)
        if wanted < len(up) and calm_s < CALM_S:
            wanted = len(up)
    if wanted > len(crew):
        return Changes(start=wanted - len(crew))
    surplus = len(crew) - wanted
    # Whoever is not there yet is not missed; then those with the fewest people, one at a time, and as long as enough
    # are heard of without those that are not.
    give_up = tuple(one.slot for one in new[max(0, len(new) - surplus) :]) if surplus else ()
    if len(up) > wanted and surplus > len(give_up) and calm_s >= CALM_S:
        emptiest = min(up, key=lambda one: (one.taken, one.slot))
        return Changes(drain=(emptiest.slot,), give_up=give_up)
    return Changes(give_up=give_up)


def is_roomy(crew: Sequence[Crew]) -> bool:
    """Whether one worker less would still keep the headroom."""
    up = [one for one in crew if one.is_up]
    places = sum(one.places for one in up) - max((one.places for one in up), default=0)
    return places - sum(one.taken for one in up) > max(1.0, HEADROOM * places)
