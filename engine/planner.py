"""Decides everything about a frame but its pixels: body, sound, and how far the mouth follows the speech.

Place in the flow: (mel window, sound) or nothing -> FramePlanner -> FramePlan -> renderer, live and offline alike.

Invariants:
    * the body moves one idle picture a frame, whatever the mouth does;
    * the mouth eases in over 3 frames and out over 5, so no frame jumps;
    * the network is spared where there is nothing to say: digital silence and long quiet stretches;
    * a plan depends on the frames before it and never on the time of day, so streaming equals offline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from engine.avatar.idle import IdleLoop
from engine.lipsync.base import LipJob, PreparedAvatar
from engine.types import FRAME_SAMPLES, IDLE_UTTERANCE, MOUTH_SHAPES

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


def _rest_mouth() -> np.ndarray:
    mouth = np.zeros(len(MOUTH_SHAPES), np.float32)
    mouth.flags.writeable = False
    return mouth


REST_MOUTH = _rest_mouth()
"""The mouth vector of an idle picture; read-only."""


@dataclass(frozen=True, slots=True)
class _State:
    """What one frame hands on to the next."""

    sequence: int = 0
    level: int = 0
    quiet_frames: int = 0
    mel: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class FramePlan:
    """One frame before it is drawn.

    Attributes:
        sequence: how many frames this planner made before.
        frame_index: idle picture of the body.
        audio: (1920,) int16 mono at 48 kHz.
        utterance_id: 0 while idle.
        speaking: True while sound of an utterance plays.
        mel: (80, columns) window for the model, or None when the idle picture is the picture.
        strength: how far the mouth follows, in (0, 1]; 0 without ``mel``.
        before: the planner's state before this frame.
    """

    sequence: int
    frame_index: int
    audio: np.ndarray
    utterance_id: int
    speaking: bool
    mel: np.ndarray | None
    strength: float
    before: _State

    def job(self, prepared: PreparedAvatar) -> LipJob:
        """The work that draws this frame; only for plans with ``mel``."""
        assert self.mel is not None
        return LipJob(prepared, self.frame_index, self.mel, self.strength)

    def silenced(self) -> FramePlan:
        """The same picture after its utterance was cut off."""
        return replace(self, audio=SILENCE, utterance_id=IDLE_UTTERANCE, speaking=False)


class FramePlanner:
    """Plans frame after frame of one session.

    Args:
        idle: the body's motion.
    """

    def __init__(self, idle: IdleLoop) -> None:
        self._idle = idle
        self._state = _State()

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
        self._state = _State(before.sequence + 1, level, quiet_frames, mel)
        index = self._idle.index(before.sequence)
        return FramePlan(before.sequence, index, audio, utterance_id, speaking, mel, _ease(level), before)


def _ease(level: int) -> float:
    """Smoothstep: starts and ends without a jerk, and is exactly 0 and 1 at its ends."""
    x = level / _LEVELS
    return x * x * (3 - 2 * x)
