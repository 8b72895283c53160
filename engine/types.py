"""The values that travel through Visavis: sound in, pictures with their sound out, and the events beside them.

Every stage speaks in these types, so that a picture and the 40 ms of sound it belongs to are never two things.

Invariants:
    * one video frame lasts 40 ms and owns exactly ``FRAME_SAMPLES`` samples of playout sound;
    * playout sound is mono int16 at ``PLAYOUT_RATE``; models listen to the same sound at ``ANALYSIS_RATE``;
    * images are BGR uint8, height x width x 3;
    * an ``utterance_id`` is positive and grows within a session; 0 belongs to idle.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from engine.avatar.body import Pose
    from engine.avatar.bundle import Avatar

FPS = 25
FRAME_MS = 1000 // FPS
CHUNK_MS = 20
CHUNKS_PER_FRAME = FRAME_MS // CHUNK_MS

PLAYOUT_RATE = 48_000
"""Sound that people hear, Hz: WebRTC's own rate, so nothing is resampled on its way out."""
ANALYSIS_RATE = 16_000
"""Sound that models hear, Hz; an exact third of ``PLAYOUT_RATE``."""

CHUNK_SAMPLES = PLAYOUT_RATE * CHUNK_MS // 1000
FRAME_SAMPLES = PLAYOUT_RATE * FRAME_MS // 1000

VIDEO_TIME_BASE = Fraction(1, FPS)

IDLE_UTTERANCE = 0

MOUTH_SHAPES: tuple[str, ...] = (
    "jawOpen",
    "mouthPress",
    "mouthFunnel",
    "mouthPucker",
    "mouthStretch",
    "mouthUpperUp",
    "mouthLowerDown",
    "mouthRollLower",
    "mouthSmile",
    "tongueOut",
)
"""Mouth blendshapes in the order of every mouth vector (ARKit names; left and right move together)."""


def _rest_mouth() -> np.ndarray:
    mouth = np.zeros(len(MOUTH_SHAPES), np.float32)
    mouth.flags.writeable = False
    return mouth


REST_MOUTH = _rest_mouth()
"""The mouth vector of a picture without speech; read-only."""


@dataclass(frozen=True, slots=True)
class AvatarFrame:
    """One 40 ms picture together with its 40 ms of sound.

    Attributes:
        image: (H, W, 3) uint8 BGR; shared and read-only by convention.
        audio: (1920,) int16 mono at 48 kHz.
        pts: position in the session's stream, in units of ``VIDEO_TIME_BASE``; consecutive.
        utterance_id: 0 while idle.
        speaking: True while sound of an utterance plays.
        mouth: (len(MOUTH_SHAPES),) float32 weights in [0, 1], or None when the model does not tell.
        pose: which of the avatar's pictures ``image`` was made of, and how; None where nobody tells.
        still: whose picture ``image`` is, and its number, when it is that picture as it is: no mouth, no fade, no lean.
            Whoever has it encoded already need not look at ``image``. Else None.
        held: ``image`` is an earlier one, because the machine had no time for this one's.
    """

    image: np.ndarray
    audio: np.ndarray
    pts: int
    utterance_id: int = IDLE_UTTERANCE
    speaking: bool = False
    mouth: np.ndarray | None = None
    pose: Pose | None = None
    still: tuple[Avatar, int] | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class Playback:
    """What of an utterance was really played, as told by an interrupt.

    Attributes:
        utterance_id: the utterance that was cut off; 0 when nothing was playing.
        played_ms: sound that left the producer, milliseconds.
        dropped_ms: sound that was queued or synthesised and will never be heard, milliseconds.
    """

    utterance_id: int
    played_ms: int
    dropped_ms: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a session, for whoever watches it.

    Attributes:
        type: ``state``, ``speaking``, ``caption``, ``viseme``, ``action_started``, ``action_ended``, ``quality``,
            ``encoder``, ``metrics``, ``error``, or one of a conversation: ``user_speaking``, ``transcript``, ``turn``,
            ``latency``, ``interrupted``.
        data: JSON-ready content; keys are listed in ``server/README.md``.
        at_s: monotonic time of the event, seconds.
    """

    type: str
    data: Mapping[str, object]
    at_s: float = field(default_factory=time.monotonic)
