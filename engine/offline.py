"""Renders a whole sound into frames as fast as the machine can: the same plans and pictures as live, without a clock.

Place in the flow: playout sound -> render_offline -> AvatarFrame -> video file, evaluation.

Invariants:
    * frame for frame and bit for bit what a session shows for the same sound from the same idle picture on;
    * exactly ``ceil(len / 1920)`` frames, holding every sample once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.audio.window import RollingWindows
from engine.avatar.body import Body
from engine.avatar.bundle import Avatar
from engine.lipsync.base import LipSync
from engine.planner import FramePlanner
from engine.renderer import render_now
from engine.types import AvatarFrame

OFFLINE_UTTERANCE = 1


def render_offline(avatar: Avatar, lipsync: LipSync, samples: np.ndarray, *, start: int = 0) -> Iterator[AvatarFrame]:
    """Frames of an avatar that says ``samples``.

    Args:
        avatar: who speaks.
        lipsync: the model; called on this thread.
        samples: (N,) int16 mono at 48 kHz.
        start: idle picture of the first frame.

    Yields:
        AvatarFrame with pts 0, 1, ...; the last one's sound is filled up with silence.
    """
    planner = FramePlanner(Body(avatar, start))
    prepared = lipsync.prepare(avatar)
    windows = RollingWindows(lipsync.window)
    windows.push(samples)
    windows.end()
    while windows.frames_ready:
        pts, mel, audio = windows.next()
        plan = planner.speak(mel, audio, OFFLINE_UTTERANCE)
        drawn = render_now(lipsync, plan.job(prepared))
        yield AvatarFrame(drawn.image, plan.audio, pts, plan.utterance_id, plan.speaking, drawn.mouth)
