"""Decides everything about a frame but its pixels: body, sound, and how far the mouth follows the speech.

Place in the flow: (mel window, sound) or nothing -> FramePlanner -> FramePlan -> renderer, live and offline alike.

Invariants:
    * the body moves one picture a frame, whatever the mouth does; what it does follows ``wishes``, see ``avatar.body``;
    * the mouth eases in over 3 frames and out over 5, so no frame jumps;
    * the network is spared where there is nothing to say: digital silence and long quiet stretches;
    * a plan depends on the frames before it and never on the time of day, so streaming equals offline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from engine.avatar.body import Body, BodyState, Pose, Wishes
from engine.avatar.head_move import ease
from engine.lipsync.base import PreparedAvatar
from engine.renderer import PictureJob
from engine.types import FRAME_SAMPLES, IDLE_UTTERANCE

QUIET_MEL = -1.7
"""A window that nowhere exceeds this is quiet. Mel values are in [-4, 4], 12.5 dB each: a still room (white noise of
-63 dBFS) stays below, speech of -40 dBFS on average is above in 98 windows of 100 that hold any."""
QUIET_FRAMES = 8
"""Quiet stretches up to this long (320 ms) stay the model's job; pauses between words are shorter."""

# Both eases in one integer scale: 3 frames up, 5 frames down.
_LEVELS = 15
_RISE = 5
_FALL = 3


def _silence() -> np.ndarray:
    samples = np.zeros(FRAME_SAMPLES, np.int16)
    samples.flags.writeable = False
    return samples


SILENCE = _silence()
"""(1920,) int16: the sound of an idle frame; read-only."""


@dataclass(frozen=True, slots=True)
class _State:
    """What one frame hands on to the next."""

    body: BodyState
    sequence: int = 0
    level: int = 0
    quiet_frames: int = 0
    mel: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class FramePlan:
    """One frame before it is drawn.

    Attributes:
        sequence: how many frames this planner made before.
        pose: pictures of the body.
        audio: (1920,) int16 mono at 48 kHz.
        utterance_id: 0 while idle.
        speaking: True while sound of an utterance plays.
        mel: (80, columns) window for the model, or None when the mouth is the one in the pictures.
        strength: how far the mouth follows, in (0, 1]; 0 without ``mel``.
        before: the planner's state before this frame.
    """

    sequence: int
    pose: Pose
    audio: np.ndarray
    utterance_id: int
    speaking: bool
    mel: np.ndarray | None
    strength: float
    before: _State

    @property
    def drawn(self) -> bool:
        """Whether the frame has to be drawn; otherwise it is a picture of the avatar as it is."""
        return self.mel is not None or not self.pose.plain

    def job(
        self, prepared: PreparedAvatar, other: PreparedAvatar | None = None, other_share: float = 0.0
    ) -> PictureJob:
        """The work that draws this frame, as one of the avatar's looks or between two; see ``renderer.Looks``."""
        return PictureJob(prepared, self.pose, self.mel, self.strength, other, other_share, self.sequence)

    def silenced(self) -> FramePlan:
        """The same picture after its utterance was cut off."""
        return replace(self, audio=SILENCE, utterance_id=IDLE_UTTERANCE, speaking=False)


class FramePlanner:
    """Plans frame after frame of one session.

    Args:
        body: how the avatar moves.

    Attributes:
        wishes: what the body is to do from the next frame on; taking plans back does not take wishes back.
    """

    def __init__(self, body: Body) -> None:
        self.wishes = Wishes()
        self._body = body
        self._state = _State(body.initial)

    @property
    def restless(self) -> bool:
        """Whether the body may be changing what it does, so that the next frame takes longer to draw."""
        return self._body.restless(self._state.body, self.wishes)

    @property
    def settled(self) -> bool:
        """Whether the next silent frame needs no drawing, and nothing about it can be decided but that it is silent."""
        return self._state.level == 0 and self._body.settled(self._state.body, self.wishes)

    def speak(self, mel: np.ndarray, audio: np.ndarray, utterance_id: int, *, gated: bool = False) -> FramePlan:
        """The next frame, with sound.

        Args:
            mel: (80, columns) float32 in [-4, 4].
            audio: (1920,) int16 mono at 48 kHz.
            utterance_id: whose sound it is.
            gated: quiet stretches count as not speaking, as for a microphone that is always on.
        """
        state = self._state
        quiet_frames = state.quiet_frames + 1 if float(mel.max()) <= QUIET_MEL else 0
        # A mouth that is shut stays shut until there is sound; one that speaks is left to the model in short pauses.
        shut = quiet_frames > (QUIET_FRAMES if state.level else 0)
        level = max(0, state.level - _FALL) if shut else min(_LEVELS, state.level + _RISE)
        speaking = level > 0 or not gated
        return self._plan(level, quiet_frames, mel, audio, utterance_id, speaking)

    def rest(self, utterance_id: int = IDLE_UTTERANCE) -> FramePlan:
        """The next frame, silent: idle, or the mouth easing shut on the last sound it spoke.

        Args:
            utterance_id: set while an utterance waits for more sound.
        """
        state = self._state
        return self._plan(max(0, state.level - _FALL), 0, state.mel, SILENCE, utterance_id, False)

    def rewind(self, plan: FramePlan) -> None:
        """Forgets ``plan`` and all later ones; the next plan takes its place."""
        self._state = plan.before

    def _plan(
        self,
        level: int,
        quiet_frames: int,
        mel: np.ndarray | None,
        audio: np.ndarray,
        utterance_id: int,
        speaking: bool,
    ) -> FramePlan:
        before = self._state
        mel = mel if level else None
        talking = speaking or utterance_id != IDLE_UTTERANCE
        pose, body = self._body.step(before.body, self.wishes, talking)
        self._state = _State(body, before.sequence + 1, level, quiet_frames, mel)
        strength = ease(level / _LEVELS)
        return FramePlan(before.sequence, pose, audio, utterance_id, speaking, mel, strength, before)
