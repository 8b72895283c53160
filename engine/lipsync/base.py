"""What every lip-sync model is to the rest of Visavis: prepare an avatar once, then predict a mouth per mel window.

Place in the flow: mel window + idle frame -> LipSync -> face patch -> paste-back.

Invariants:
    * ``predict`` is a pure function of its jobs: no state is carried from one call to the next, so that
      streaming equals offline and jobs of different sessions may share a batch;
    * ``predict`` may be called from several threads at once, on one prepared avatar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from engine.schedule import NOT_URGENT, Urgency

if TYPE_CHECKING:
    from engine.audio.window import MelWindow
    from engine.avatar.bundle import Avatar


class PreparedAvatar(Protocol):
    """Whatever a model caches of an avatar; opaque to everybody but that model."""

    @property
    def avatar(self) -> Avatar:
        """Whom it was prepared from."""
        ...


@dataclass(frozen=True, slots=True)
class LipJob:
    """One mouth to predict.

    Attributes:
        prepared: what this model's ``prepare`` returned for the avatar.
        frame_index: which picture of the avatar the mouth goes onto, numbered as in ``Avatar``.
        mel: (80, window.columns) float32 in [-4, 4], the window of this video frame.
        strength: 0 leaves the face at rest, 1 speaks fully; eases speech in and out.
        urgency: when it is needed; has no influence on what is predicted.
    """

    prepared: PreparedAvatar
    frame_index: int
    mel: np.ndarray
    strength: float = 1.0
    urgency: Urgency = NOT_URGENT


@dataclass(frozen=True, slots=True)
class FacePatch:
    """The part of the picture that speech changes.

    Attributes:
        image: (h, w, 3) uint8 BGR; resized to the box on paste-back when the sizes differ.
        box: (y1, y2, x1, x2) in pixels of the idle frame.
        mask: (h, w) uint8, 255 where the patch replaces the frame, feathered at its border.
        mouth: (len(MOUTH_SHAPES),) float32 weights in [0, 1], or None when the model has none.
    """

    image: np.ndarray
    box: tuple[int, int, int, int]
    mask: np.ndarray
    mouth: np.ndarray | None = None


class LipSync(Protocol):
    """A lip-sync model: weights plus these methods."""

    crop_size: int
    """Side of the square face crop the network sees, pixels."""
    window: MelWindow
    """Which mel columns it hears around a video frame."""

    def prepare(self, avatar: Avatar) -> PreparedAvatar:
        """Computes everything that does not depend on sound; slow is fine, called once per avatar."""
        ...

    def predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        """One patch per job, in order."""
        ...

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """Makes the first real call as fast as every other one."""
        ...
