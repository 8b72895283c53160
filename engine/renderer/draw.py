"""Draws one picture: the body as its pose says, with the mouth that a lip-sync model predicts for the sound.

Place in the flow: PictureJob -> ``draw`` -> Drawn -> (restorer) -> ``finish`` -> Rendered.

Invariants:
    * a picture depends on its job alone, so streaming equals offline;
    * a body between two pictures is drawn on both, mouth and all, and then faded: speech is never seen through itself;
    * what a restorer gets is the head in its own place: leaning comes last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.avatar.body import Pose
from engine.avatar.head_move import cross_fade, lean
from engine.compose import paste
from engine.lipsync.base import FacePatch, LipJob, LipSync, PreparedAvatar
from engine.schedule import NOT_URGENT, Urgency
from engine.types import REST_MOUTH

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished picture.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        mouth: (len(MOUTH_SHAPES),) float32 weights, or None when the model does not tell.
    """

    image: np.ndarray
    mouth: np.ndarray | None


@dataclass(frozen=True, slots=True)
class PictureJob:
    """A picture to draw.

    Attributes:
        prepared: the avatar, prepared by the model.
        pose: what the body does.
        mel: (80, columns) float32 in [-4, 4], what the mouth says; None leaves it as it is.
        strength: how far the mouth follows, in (0, 1].
        other: the same avatar with its other look, restored pictures of the same poses, while one passes into the
            other.
        other_share: how much of ``other`` is seen, in (0, 1).
        sequence: which frame of its session it is; a later one is greater.
        urgency: when it is needed; has no influence on the picture.
    """

    prepared: PreparedAvatar
    pose: Pose
    mel: np.ndarray | None
    strength: float = 1.0
    other: PreparedAvatar | None = None
    other_share: float = 0.0
    sequence: int = 0
    urgency: Urgency = NOT_URGENT


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture before it is restored and leans.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        mouth: as in ``Rendered``.
        landmarks: (5, 2) float32 pixels of this picture.
        box: (y1, y2, x1, x2) where the mouth's patch is; None when the mouth is the one in the avatar's picture.
    """

    image: np.ndarray
    mouth: np.ndarray | None
    landmarks: np.ndarray
    box: Box | None


def _nobody(_stage: str, _seconds: float) -> None:
    pass


def render_now(lipsync: LipSync, job: PictureJob) -> Rendered:
    """Draws one picture on the calling thread; what live and offline rendering share."""
    return finish(job, draw(lipsync, job))


def draw(lipsync: LipSync, job: PictureJob, observe: Callable[[str, float], None] = _nobody) -> Drawn:
    """Draws everything but the leaning; see ``draw_all``."""
    return draw_all(lipsync, [job], observe)[0]


def draw_all(
    lipsync: LipSync, jobs: Sequence[PictureJob], observe: Callable[[str, float], None] = _nobody
) -> list[Drawn]:
    """Draws everything but the leaning; the model sees all jobs at once.

    Args:
        lipsync: the model.
        jobs: what to draw.
        observe: told what the stages ``predict`` and ``paste`` took for one picture, seconds.
    """
    mouths = [
        LipJob(look, index, job.mel, job.strength, job.urgency)
        for job in jobs
        if job.mel is not None
        for look in _looks(job)
        for index in _pictures(job.pose)
    ]
    if not mouths:
        return [_compose(job, []) for job in jobs]
    started_s = time.monotonic()
    patches = lipsync.predict(mouths)
    predicted_s = time.monotonic()
    drawn, taken = [], 0
    for job in jobs:
        count = len(_looks(job)) * len(_pictures(job.pose)) if job.mel is not None else 0
        drawn.append(_compose(job, patches[taken : taken + count]))
        taken += count
    speaking = sum(job.mel is not None for job in jobs)
    observe("predict", (predicted_s - started_s) / speaking)
    observe("paste", (time.monotonic() - predicted_s) / speaking)
    return drawn


def _looks(job: PictureJob) -> list[PreparedAvatar]:
    return [job.prepared] if job.other is None else [job.prepared, job.other]


def _pictures(pose: Pose) -> list[int]:
    return [pose.index] if pose.other is None else [pose.index, pose.other]


def _compose(job: PictureJob, patches: Sequence[FacePatch]) -> Drawn:
    """Puts mouths, if any, onto the pictures of a job, and brings those together."""
    pose, avatar = job.pose, job.prepared.avatar
    indices = _pictures(pose)
    images = [look.avatar.picture(index) for look in _looks(job) for index in indices]
    mouth: np.ndarray | None = REST_MOUTH
    box: Box | None = None
    if patches:
        images = [paste(image, patch) for image, patch in zip(images, patches, strict=True)]
        mouth = patches[0].mouth
        box = patches[0].box if pose.other is None else _between(patches[0].box, patches[1].box, pose.weight)
    if job.other is not None:
        poses = len(indices)
        images = [_blend(images[at], images[poses + at], job.other_share) for at in range(poses)]
    image, landmarks = images[0], avatar.landmarks_of(pose.index)
    if pose.other is not None:
        other_landmarks = avatar.landmarks_of(pose.other)
        image = cross_fade(images[0], landmarks, images[1], other_landmarks, pose.weight)
        landmarks = (1 - pose.weight) * landmarks + pose.weight * other_landmarks
    return Drawn(image, mouth, landmarks, box)


def finish(job: PictureJob, drawn: Drawn, image: np.ndarray | None = None) -> Rendered:
    """The picture as it is shown.

    Args:
        job: what was drawn.
        drawn: what came of it.
        image: (H, W, 3) uint8 BGR to show in place of the one in ``drawn``; of the same head in the same place.
    """
    image = drawn.image if image is None else image
    if job.pose.lean:
        image = lean(image, job.prepared.avatar.landmarks.mean(0), job.pose.lean)
    return Rendered(image, drawn.mouth)


def _between(one: Box, other: Box, weight: float) -> Box:
    y1, y2, x1, x2 = (round((1 - weight) * a + weight * b) for a, b in zip(one, other, strict=True))
    return y1, y2, x1, x2


def _blend(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Two pictures of one pose, ``share`` of the other one."""
    height, width = one.shape[:2]
    mask = np.full((height, width), round(255 * share), np.uint8)
    return paste(one, FacePatch(other, (0, height, 0, width), mask))
