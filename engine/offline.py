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
from engine.quality import LIVE, OFF, RESTORED_AVATAR
from engine.renderer.draw import draw, finish
from engine.restore.base import FaceRestorer, Progress, RestoreJob
from engine.types import AvatarFrame

OFFLINE_UTTERANCE = 1


def render_offline(
    avatar: Avatar,
    lipsync: LipSync,
    samples: np.ndarray,
    *,
    start: int = 0,
    restorer: FaceRestorer | None = None,
    level: int = OFF,
    progress: Progress | None = None,
) -> Iterator[AvatarFrame]:
    """Frames of an avatar that says ``samples``.

    Args:
        avatar: who speaks.
        lipsync: the model; called on this thread.
        samples: (N,) int16 mono at 48 kHz.
        start: idle picture of the first frame.
        restorer: what restores faces; called on this thread.
        level: how much is restored, see ``engine.quality``; there is no deadline, so that is what every frame gets.
        progress: told how many of the avatar's own pictures were restored, which comes first and takes long.

    Yields:
        AvatarFrame with pts 0, 1, ...; the last one's sound is filled up with silence.
    """
    planner = FramePlanner(Body(avatar, start))
    if restorer is not None and level >= RESTORED_AVATAR:
        avatar = restorer.restore_avatar(avatar, progress)
    prepared, trace = lipsync.prepare(avatar), None
    windows = RollingWindows(lipsync.window)
    windows.push(samples)
    windows.end()
    while windows.frames_ready:
        pts, mel, audio = windows.next()
        plan = planner.speak(mel, audio, OFFLINE_UTTERANCE)
        job, image = plan.job(prepared), None
        drawn = draw(lipsync, job)
        if restorer is not None and level >= LIVE and drawn.box is not None:
            restored = restorer.restore([RestoreJob(drawn.image, drawn.landmarks, drawn.box, level, trace)])[0]
            image, trace = restored.image, restored.trace
        shown = finish(job, drawn, image)
        yield AvatarFrame(shown.image, plan.audio, pts, plan.utterance_id, plan.speaking, shown.mouth)
