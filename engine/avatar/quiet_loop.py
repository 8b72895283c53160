"""Chooses from a video which pictures become the idle loop, and in what order.

Place in the flow: face along a clip (``survey``) -> ``plan_loop`` -> ``LoopPlan`` -> pictures.

A stretch in which the mouth rests is taken as it is. In a clip of somebody who talks all the time the calmest stretch
is taken and its mouth is brought to rest (``rest_mouth``). A loop closes by a cut between two pictures that are
nearly the same, or by going back the way it came, slowing down before each turn.

Invariants:
    * every picture of a plan shows the face, frontal enough and wholly inside the picture;
    * the last picture of a plan flows into its first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.avatar.checks import choose_face, head_pose
from engine.avatar.landmarks import POINTS, FaceMesh, FaceTrack, lip_opening
from engine.avatar.smoothing import smooth
from engine.avatar.source import VideoSource
from engine.errors import Cancelled, PortraitInvalid
from engine.types import FPS

LEAST_FRAMES = 12
QUIET_FRAMES = 2 * FPS
"""A quiet stretch at least this long is taken as it is."""
QUIET_OPENING = 0.05

_CUT_FRAMES = 4 * FPS
"""Below this, going back and forth gives a longer loop than a cut."""
_CUT_MORPH_FRAMES = 10
_CUT_DISTANCE = 0.035
_EASE_FRAMES = 8
_COMPANY_EVERY = 2 * FPS
_LEAST_SIDE_SHARE = 0.02
_JUMP_PER_FACE = 0.25

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """The face along a whole clip.

    Attributes:
        points: (F, 468, 3) float32 pixels; rows without a face repeat the nearest.
        usable: (F,) bool: the face is there, inside the picture, and turned to the viewer.
        size: (width, height) of the pictures.
    """

    points: np.ndarray
    usable: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class LoopPlan:
    """Which pictures the loop shows.

    Attributes:
        first: (L,) int frame of the clip.
        second: (L,) int frame it is mixed with.
        share: (L,) float32 of the second one, in [0, 1).
        quiet: whether the mouth rests throughout.
        rest: frame with the most closed lips.
    """

    first: np.ndarray
    second: np.ndarray
    share: np.ndarray
    quiet: bool
    rest: int

    def mixed(self, values: np.ndarray) -> np.ndarray:
        """Values of frames (F, ...) -> of the loop's pictures (L, ...)."""
        share = self.share.reshape(-1, *[1] * (values.ndim - 1))
        return values[self.first] * (1 - share) + values[self.second] * share


def survey(
    source: VideoSource, mesh: FaceMesh, choice: str, progress: Progress, cancelled: Callable[[], bool]
) -> Survey:
    """Follows the face through the whole clip, one picture at a time.

    Args:
        source: the clip.
        mesh: finds faces.
        choice: ``only`` refuses other people in the picture, ``largest`` ignores them.
        progress: told the share done.
        cancelled: asked before every picture.

    Raises:
        PortraitInvalid: ``no_face``, ``several_faces``, or the file cannot be read.
        Cancelled: when asked to.
    """
    track = FaceTrack(mesh)
    rows: list[np.ndarray | None] = []
    usable: list[bool] = []
    size = (0, 0)
    for number, image in enumerate(source.frames()):
        if cancelled():
            raise Cancelled("cancelled", "Making the avatar was cancelled.")
        size = (image.shape[1], image.shape[0])
        if choice == "only" and number % _COMPANY_EVERY == 0 and (found := mesh.find(image)):
            choose_face(found)
        face = track.next(image)
        rows.append(None if face is None else face.points)
        usable.append(face is not None and _is_inside(face.box, size) and head_pose(face.points).is_frontal)
        progress(min(1.0, (number + 1) / max(source.count, number + 1)))
    seen = [number for number, row in enumerate(rows) if row is not None]
    if not seen:
        choose_face([])
    points = np.empty((len(rows), POINTS, 3), np.float32)
    nearest = np.array(seen)
    for number, row in enumerate(rows):
        points[number] = row if row is not None else rows[nearest[np.abs(nearest - number).argmin()]]
    _drop_jumps(points, usable)
    return Survey(points, np.array(usable), size)


def plan_loop(clip: Survey, frames: int) -> LoopPlan:
    """The loop of a clip.

    Args:
        clip: what ``survey`` saw.
        frames: wished length; a loop may be shorter, or a little longer.

    Raises:
        PortraitInvalid: ``clip_unusable``, when there are not twelve usable pictures in a row.
    """
    longest = _longest_run(clip.usable)
    if longest[1] - longest[0] < LEAST_FRAMES:
        raise PortraitInvalid(
            "clip_unusable",
            "The clip has no half second in which the face is wholly visible and turned to the camera. "
            "Film one person from the front, with a quiet camera.",
        )
    opening = smooth(lip_opening(clip.points), 1.0, cyclic=False)
    shut = max(QUIET_OPENING, 1.25 * float(np.percentile(opening[clip.usable], 10)))
    start, stop = _longest_run(clip.usable & (opening < min(shut, 1.6 * QUIET_OPENING)))
    quiet = stop - start >= QUIET_FRAMES
    if not quiet:
        start, stop = longest
    motion = _motion(clip.points)
    if stop - start >= _CUT_FRAMES:
        plan = _cut(clip.points, start, stop, frames)
        if plan is None:
            start, stop = _calmest(opening + motion, start, stop, max(frames // 2, LEAST_FRAMES))
            plan = _back_and_forth(motion, start, stop)
    else:
        plan = _back_and_forth(motion, start, min(stop, start + frames))
    used = np.unique(np.concatenate([plan[0], plan[1]]))
    # The picture whose mouth is borrowed should be close in pose to the others, which the middle of the loop is.
    typical = np.median(clip.points[used], 0)
    apart = np.linalg.norm(clip.points[used] - typical, axis=2).mean(1) / _face_height(typical)
    rest = int(used[(opening[used] + 0.3 * apart).argmin()])
    return LoopPlan(*plan, quiet, rest)


def _is_inside(box: np.ndarray, size: tuple[int, int]) -> bool:
    y1, y2, x1, x2 = box
    edge = _LEAST_SIDE_SHARE * min(size)
    return bool(x1 > 0 and y1 > 0 and x2 < size[0] - 1 - edge / 2 and y2 < size[1] - 1 - edge / 2)


def _drop_jumps(points: np.ndarray, usable: list[bool]) -> None:
    """Marks both sides of a jump (a cut in the film, another person) as unusable."""
    for number in range(1, len(points)):
        step = np.linalg.norm(points[number, :, :2] - points[number - 1, :, :2], axis=1).mean()
        if step > _JUMP_PER_FACE * _face_height(points[number]):
            usable[number - 1] = usable[number] = False


def _face_height(points: np.ndarray) -> float:
    return float(points[:, 1].max() - points[:, 1].min())


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    if not len(edges):
        return 0, 0
    starts, stops = edges[::2], edges[1::2]
    best = int((stops - starts).argmax())
    return int(starts[best]), int(stops[best])


def _motion(points: np.ndarray) -> np.ndarray:
    """(F,) movement of the upper face around each frame, per face height and frame."""
    steps = np.linalg.norm(np.diff(points[:, :, :2], axis=0), axis=2).mean(1) / _face_height(points[0])
    wide = np.concatenate([steps[:1], steps, steps[-1:]]) if len(steps) else np.zeros(2)
    return smooth((wide[1:] + wide[:-1]) / 2, 1.5, cyclic=False)


def _calmest(cost: np.ndarray, start: int, stop: int, length: int) -> tuple[int, int]:
    length = min(length, stop - start)
    sums = np.concatenate([[0.0], np.cumsum(cost[start:stop])])
    best = start + int((sums[length:] - sums[:-length]).argmin())
    return best, best + length


def _cut(points: np.ndarray, start: int, stop: int, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """A stretch whose end looks like its beginning, joined over a few pictures; None where there is none."""
    flat = points[start:stop, ::4, :2].reshape(stop - start, -1)
    speed = np.gradient(smooth(flat, 1.5, cyclic=False), axis=0)
    scale = _face_height(points[start]) * np.sqrt(flat.shape[1] / 2)
    best: tuple[float, int, int] | None = None
    shortest = min(_CUT_FRAMES, frames) - _CUT_MORPH_FRAMES
    for first in range(_CUT_MORPH_FRAMES, stop - start - shortest, 2):
        last = np.arange(first + shortest, min(stop - start, first + round(1.25 * frames)))
        apart = np.linalg.norm(flat[last] - flat[first], axis=1) / scale
        apart += 3 * np.linalg.norm(speed[last] - speed[first], axis=1) / scale
        wished = apart + 0.01 * np.abs(last - first - frames) / frames
        place = int(wished.argmin())
        if apart[place] < _CUT_DISTANCE and (best is None or wished[place] < best[0]):
            best = float(wished[place]), first, int(last[place])
    if best is None:
        return None
    begin, end = start + best[1], start + best[2]
    one = np.arange(begin, end)
    other, share = one.copy(), np.zeros(len(one), np.float32)
    ramp = (np.arange(_CUT_MORPH_FRAMES, dtype=np.float32) + 1) / (_CUT_MORPH_FRAMES + 1)
    other[-_CUT_MORPH_FRAMES:] = np.arange(begin - _CUT_MORPH_FRAMES, begin)
    share[-_CUT_MORPH_FRAMES:] = ramp * ramp * (3 - 2 * ramp)
    return one, other, share


def _back_and_forth(motion: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """There and back again, turning where the head hardly moves, and slowing down before it."""
    length = stop - start
    margin = length // 5
    if margin > 2:
        stop = stop - margin + int(motion[stop - margin : stop].argmin()) + 1
        start = start + int(motion[start : start + margin].argmin())
    way = stop - 1 - start
    ease = min(_EASE_FRAMES, way)
    # Speed falls evenly to nothing over the last ``ease`` / 2 pictures' way, which therefore takes ``ease`` pictures.
    steps = np.ones(max(way - ease, 0) + 2 * ease)
    ramp = (np.arange(ease) + 0.5) / ease
    steps[:ease], steps[len(steps) - ease :] = ramp, ramp[::-1]
    places = np.concatenate([[0.0], np.cumsum(steps)]) * (way / steps.sum())
    there = np.concatenate([places, places[-2:0:-1]])
    one = np.minimum(np.floor(there + 1e-6).astype(int), way)
    share = np.clip(there - one, 0, None).astype(np.float32)
    share[share < 0.02] = 0
    return start + one, start + np.minimum(one + 1, way), share
