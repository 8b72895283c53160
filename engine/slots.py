"""The frames between the producer's two moments: committed, then published.

Place in the flow: producer -> Slot (committed) -> Published -> narrator, session.

Invariants:
    * a slot's sound and body are settled when it is made; only its picture may still be on its way;
    * a slot leaves exactly once, with its own picture or, when that is late, with an earlier one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.avatar.body import IDLE_DOING, Doing, Pose
from engine.avatar.bundle import Avatar
from engine.metrics import EngineMetrics
from engine.planner import FramePlan
from engine.renderer import Rendering
from engine.speech import Speech, Taken
from engine.types import REST_MOUTH, AvatarFrame


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
        still: as in ``AvatarFrame``.
    """

    sequence: int
    image: np.ndarray
    mouth: np.ndarray | None
    pose: Pose
    still: tuple[Avatar, int] | None = None


@dataclass(slots=True, eq=False)
class Slot:
    """A committed frame; ``taken`` is what it took from its speech, None when it holds no sound of it."""

    plan: FramePlan
    speech: Speech | None
    taken: Taken | None
    rendering: Rendering | None = None
    image: np.ndarray | None = None
    mouth: np.ndarray | None = None
    still: tuple[Avatar, int] | None = None
    published: bool = False

    @property
    def index(self) -> int | None:
        """Which frame of the speech it is; None when it holds no sound of it."""
        return self.taken[0] if self.taken is not None else None

    def show(self, avatar: Avatar, index: int) -> None:
        """Shows a picture of the avatar as it is."""
        self.image, self.mouth, self.still = avatar.picture(index), REST_MOUTH, (avatar, index)


class Slots(deque[Slot]):
    """The committed frames of one producer, the one that is published next first."""

    @property
    def speeches(self) -> list[Speech]:
        """Of each frame that has one."""
        return [slot.speech for slot in self if slot.speech is not None]

    def put_back(self, speeches: Iterable[Speech]) -> None:
        """Gives utterances back what was committed of them."""
        for speech in speeches:
            speech.put_back([slot.taken for slot in self if slot.speech is speech and slot.taken is not None])

    def withdraw(self) -> None:
        """Takes back whatever is committed, pictures that are being drawn included."""
        for slot in self:
            if slot.rendering is not None:
                slot.rendering.withdraw()
        self.clear()


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

    def published(self, frame: AvatarFrame, held: bool, lost: int, late_s: float, metrics: EngineMetrics) -> None:
        """Counts a frame that left.

        Args:
            frame: the frame.
            held: its own picture was late.
            lost: how many frames that nobody took it pushed out.
            late_s: how long after its due time it left; negative when before.
            metrics: where to count, too.
        """
        self.frames += 1
        self.held += held
        kind = metrics.frames_speaking if frame.speaking else metrics.frames_idle
        (metrics.frames_held if held else kind).inc()
        if lost:
            metrics.frames_dropped.inc(lost)
        metrics.frame_late_ms.observe(max(0.0, late_s) * 1000)
