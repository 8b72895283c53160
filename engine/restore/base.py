"""What every face restorer is to the rest of Visavis: sharpens the mouth a model drew, and an avatar's own pictures.

Place in the flow: picture with a pasted mouth -> FaceRestorer -> picture that is sent; avatar -> restored avatar, once.

Invariants:
    * ``restore`` carries no state from one call to the next: what a session needs again travels in its trace, so jobs
      of different sessions may share a batch, and a session may leave pictures out or start afresh with None;
    * ``restore`` may be called from several threads at once; no job's image is changed;
    * a trace belongs to the session whose job returned it and is opaque to everybody but the restorer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from engine.schedule import NOT_URGENT, Urgency

if TYPE_CHECKING:
    from engine.avatar.bundle import Avatar

MAX_LEVEL = 5
"""Highest quality level: the whole face, every frame."""
LIVE_LEVEL = 2
"""Lowest quality level that restores live pictures; below it ``restore`` returns them as they are."""

Progress = Callable[[int, int], None]
"""Told (pictures done, pictures in all); may raise ``Cancelled`` to interrupt, which loses no finished picture."""


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """One picture to restore.

    Attributes:
        image: (H, W, 3) uint8 BGR with the mouth already pasted.
        landmarks: (5, 2) float32 pixels (x, y) of this picture: left eye (image left), right eye, nose tip, mouth
            corner (image left), mouth corner (image right).
        box: (y1, y2, x1, x2) pixels, where the lip-sync patch was pasted; may reach over the border.
        level: 0 and 1 leave the picture alone, 2 restores the mouth every second picture and reuses its detail
            between, 3 the mouth, 4 the lower face, 5 the whole face.
        trace: what the session's previous job returned; None for its first or after a cut.
        urgency: when it is needed; has no influence on what comes of it.
    """

    image: np.ndarray
    landmarks: np.ndarray
    box: tuple[int, int, int, int]
    level: int
    trace: object | None = None
    urgency: Urgency = NOT_URGENT


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored picture.

    Attributes:
        image: (H, W, 3) uint8 BGR; the job's own image when its level is 0 or 1.
        trace: to be handed to the session's next job.
    """

    image: np.ndarray
    trace: object | None


class FaceRestorer(Protocol):
    """A restorer: weights plus these methods."""

    def restore(self, jobs: Sequence[RestoreJob]) -> list[Restored]:
        """One restored picture per job, in order."""
        ...

    def restore_avatar(self, avatar: Avatar, progress: Progress | None = None) -> Avatar:
        """The avatar with all its pictures restored; slow, called once per avatar and kept between runs.

        Raises:
            Cancelled: from ``progress``; the next call goes on where this one stopped.
            BackendFailed: the restorer failed, or its results cannot be kept.
        """
        ...

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """Makes the first real call as fast as every other one."""
        ...
