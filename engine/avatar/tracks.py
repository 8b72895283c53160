"""Every way an avatar's body can move, and where one way can best pass into another.

Place in the flow: ``Avatar`` -> ``tracks_of`` -> ``Body``, which picks pictures.

Invariants:
    * the idle loop is the track ``IDLE``; every clip is a track of its own name;
    * where two tracks meet is decided by their pictures and faces alone, so the same request gives the same frames.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import cv2
import numpy as np

from engine.avatar.bundle import Avatar

IDLE = ""
"""Name of the idle loop among the tracks."""
FADE_FRAMES = 10
"""Pictures of a cross-fade, 0.4 s: a turn of the head takes about as long."""
MAX_DELAY_FRAMES = 8
"""How long a track that must be entered at its first picture may be waited for."""

# A patch of an eye, in distances between the eyes, and the size in which patches are compared.
_EYE_WIDTH, _EYE_HEIGHT = 0.5, 0.3
_EYE_SIZE = (16, 10)
# Grey levels by which a shut eye differs from the usual one at least, and an open one at most; a blink of the shipped
# avatars reaches 55, all other movement stays below 8.
_SHUT_LEVEL, _OPEN_LEVEL = 30.0, 10.0
# What one shut and one open eye in the same place cost, in heads' distances from eyes to mouth.
_BLINK_COST = 0.1
# What each frame of delay costs, likewise.
_DELAY_COST = 0.002


@dataclass(frozen=True, slots=True)
class Track:
    """One stretch of pictures.

    Attributes:
        start: number of its first picture among all of the avatar.
        count: its pictures.
        loop: the last picture flows into the first.
    """

    start: int
    count: int
    loop: bool

    def picture(self, position: int) -> int:
        """Number among all pictures of the one at ``position``, which may lie beyond the end: loops go round, others
        stay at their last picture."""
        return self.start + (position % self.count if self.loop else min(position, self.count - 1))

    def pictures(self, positions: np.ndarray) -> np.ndarray:
        """``picture`` of many positions, in their shape."""
        return self.start + (positions % self.count if self.loop else np.minimum(positions, self.count - 1))


class Tracks:
    """The tracks of one avatar; ``tracks_of`` is the usual way to them.

    Args:
        avatar: whose.

    Attributes:
        by_name: the tracks; ``IDLE`` among them.
        landmarks: (picture_count, 5, 2) float32 of all pictures.
    """

    def __init__(self, avatar: Avatar) -> None:
        self.landmarks = avatar.all_landmarks()
        self.by_name = {IDLE: Track(0, len(avatar.frames), True)}
        for name, start in avatar.starts.items():
            clip = avatar.clips[name]
            self.by_name[name] = Track(start, len(clip.frames), clip.loop)
        eyes, mouth = self.landmarks[:, :2].mean(1), self.landmarks[:, 3:].mean(1)
        self._unit = max(float(np.median(np.linalg.norm(mouth - eyes, axis=1))), 1.0)
        # Without clips nothing ever passes into anything else.
        self._shut = _shut_eyes(avatar, self.landmarks) if avatar.clips else np.zeros(avatar.picture_count, np.float32)

    def enter(self, leaving: str, position: int, entering: str) -> tuple[int, int]:
        """How one track best passes into another.

        Args:
            leaving: the track that is shown.
            position: of the picture that is due on it.
            entering: the track that is wanted.

        Returns:
            Frames to wait before the fade begins, and the position at which ``entering`` begins. A loop is entered at
            once, wherever it looks most like what is shown; any other track at its beginning, perhaps after a blink.
        """
        out, into = self.by_name[leaving], self.by_name[entering]
        window = np.arange(FADE_FRAMES)
        if into.loop:
            costs = self._costs(out.pictures(position + window), into.pictures(np.arange(into.count)[:, None] + window))
            return 0, int(costs.argmin())
        delays = np.arange(MAX_DELAY_FRAMES + 1)
        if not out.loop:
            delays = delays[: max(1, out.count - FADE_FRAMES - position + 1)]
        costs = self._costs(out.pictures(position + delays[:, None] + window), into.pictures(window))
        return int((costs + _DELAY_COST * delays).argmin()), 0

    def _costs(self, out: np.ndarray, into: np.ndarray) -> np.ndarray:
        """How unlike pictures are that would be shown through each other, in heads; the mean over a fade."""
        apart = np.linalg.norm(self.landmarks[out] - self.landmarks[into], axis=-1).mean(-1) / self._unit
        blinks = np.abs(self._shut[out] - self._shut[into])
        return (apart + _BLINK_COST * blinks).mean(-1)


_known: weakref.WeakKeyDictionary[Avatar, Tracks] = weakref.WeakKeyDictionary()


def tracks_of(avatar: Avatar) -> Tracks:
    """The tracks of an avatar; looked for once, which takes 50 microseconds a picture where there are clips."""
    tracks = _known.get(avatar)
    if tracks is None:
        tracks = _known[avatar] = Tracks(avatar)
    return tracks


def _shut_eyes(avatar: Avatar, landmarks: np.ndarray) -> np.ndarray:
    """(picture_count,) float32: how shut the eyes are, 0 to 1, judged by how much they differ from what is usual."""
    patches = np.empty((len(landmarks), 2, _EYE_SIZE[1], _EYE_SIZE[0]), np.float32)
    apart = float(np.median(np.linalg.norm(landmarks[:, 1] - landmarks[:, 0], axis=-1)))
    size = (max(4, round(_EYE_WIDTH * apart)), max(3, round(_EYE_HEIGHT * apart)))
    for index, eyes in enumerate(landmarks[:, :2]):
        picture = avatar.picture(index)
        for side, (x, y) in enumerate(eyes):
            patch = cv2.getRectSubPix(picture, size, (float(x), float(y)))
            patches[index, side] = cv2.resize(patch, _EYE_SIZE, interpolation=cv2.INTER_AREA).mean(-1)
    usual = np.median(patches[: len(avatar.frames)], axis=0)
    change = np.abs(patches - usual).mean((1, 2, 3))
    return np.clip((change - _OPEN_LEVEL) / (_SHUT_LEVEL - _OPEN_LEVEL), 0, 1).astype(np.float32)
