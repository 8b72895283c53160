"""The frames between the producer's two moments: committed, then published.

Place in the flow: producer -> Slot (committed) -> Published -> narrator, session.

Invariants:
    * a slot's sound and body are settled when it is made; only its picture may still be on its way;
    * a slot leaves exactly once, with its own picture or, when that is late, with an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.avatar.body import IDLE_DOING, Doing, Pose
from engine.planner import FramePlan
from engine.renderer import Rendering
from engine.speech import Speech, Taken
from engine.types import AvatarFrame


@dataclass(frozen=True, slots=True)
class Published:
    """A frame as it left, and what is known about it.

    Attributes:
        frame: the frame.
        speech: the utterance that plays, or waits for more of its sound; None while idle or quiet.
        index: which frame of the speech it is; None when it holds no sound of it.
        held: its own picture was late.
        action: which request for an action the body answers; its track is empty when none.
        listening: the body listens.
    """

    frame: AvatarFrame
    speech: Speech | None
    index: int | None
    held: bool
    action: Doing = IDLE_DOING
    listening: bool = False


class Shown(NamedTuple):
    """The newest picture there is.

    Attributes:
        sequence: of the plan it was drawn for.
        image: (H, W, 3) uint8 BGR.
        mouth: as in ``AvatarFrame``.
        pose: what of the avatar it shows.
    """

    sequence: int
    image: np.ndarray
    mouth: np.ndarray | None
    pose: Pose


@dataclass(slots=True, eq=False)
class Slot:
    """A committed frame; ``taken`` is what it took from its speech, None when it holds no sound of it."""

    plan: FramePlan
    speech: Speech | None
    taken: Taken | None
    rendering: Rendering | None = None
    image: np.ndarray | None = None
    mouth: np.ndarray | None = None
    published: bool = False

    @property
    def index(self) -> int | None:
        """Which frame of the speech it is; None when it holds no sound of it."""
        return self.taken[0] if self.taken is not None else None


@dataclass(slots=True)
class ProducerCounts:
    """What a producer did so far.

    Attributes:
        frames: published.
        held: published with an earlier picture because their own was late.
        underruns: times an utterance had to wait for its sound.
        caught_up: live frames skipped to keep the delay small.
        skipped: positions without a frame, because the machine stood still.
        unrestored: published without restoring, because it took too long; these are not late.
    """

    frames: int = 0
    held: int = 0
    underruns: int = 0
    caught_up: int = 0
    skipped: int = 0
    unrestored: int = 0
