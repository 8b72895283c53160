"""What a client sees and hears, as an mp4: picture and sound as far apart as they left the server.

Place in the flow: ``TalkingHead.frames``, ``.audio`` -> ``Tape`` -> ``Recorder`` -> file.

The two streams count from random origins and nothing a client can read relates them. But the server sends a picture and
its sound at the same moment, and a network only ever delays: the least difference between arrival and place in the
stream, each stream's own, relates them to within the fastest packet's jitter.

Invariants: the file begins with the first picture and is as long as the sound; a lost picture is the one before it, and
lost sound is silence; after a failure nothing more is written.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from engine.errors import VisavisError
from engine.recorder import Recorder
from engine.types import FRAME_MS, FRAME_SAMPLES, PLAYOUT_RATE, AvatarFrame
from server.client.media import Picture, Sound

SETTLE_FRAMES = 12
"""Frames held back until the streams' relation is known: half a second."""
MAX_PICTURES = 75
"""In silence a packet of sound comes every 0.4 s, and aiortc hands each on when the fourth after it has come."""
MAX_GAP_S = 5.0
FRAME_S = FRAME_MS / 1000


class Tape:
    """One recording; blocking, so use it on a thread."""

    def __init__(self, path: str, crf: int = 18) -> None:
        """Args: path: the mp4 to write; crf: x264 quality."""
        self._path = path
        self._crf = crf
        self._recorder: Recorder | None = None
        self._failed = False
        self._pictures: deque[Picture] = deque(maxlen=MAX_PICTURES)
        self._shown: np.ndarray | None = None
        self._picture_offset_s = float("inf")
        self._sound_offset_s = float("inf")
        self._sound = np.zeros(0, np.int16)
        self._sound_pts_s: float | None = None
        """Place of the first sample of ``_sound``."""

    def picture(self, picture: Picture) -> None:
        """Takes a picture. Raises what ``Recorder`` raises."""
        self._picture_offset_s = min(self._picture_offset_s, picture.at_s - picture.pts_s)
        if self._recorder is None:
            height, width = picture.frame.height, picture.frame.width
            self._recorder = Recorder(self._path, (width, height), self._crf)
        self._pictures.append(picture)

    def sound(self, sound: Sound) -> None:
        """Takes 20 ms of sound, and writes what is settled. Raises what ``Recorder`` raises."""
        self._sound_offset_s = min(self._sound_offset_s, sound.at_s - sound.pts_s)
        if self._sound_pts_s is None:
            self._sound_pts_s = sound.pts_s
        expected_s = self._sound_pts_s + len(self._sound) / PLAYOUT_RATE
        missing_s = sound.pts_s - expected_s
        silence = np.zeros(round(missing_s * PLAYOUT_RATE) if 0 < missing_s <= MAX_GAP_S else 0, np.int16)
        self._sound = np.concatenate([self._sound, silence, sound.samples])
        while len(self._sound) >= (SETTLE_FRAMES + 1) * FRAME_SAMPLES:
            self._write()

    def close(self) -> None:
        """Completes the file, unless writing it has failed. Raises ``recording_empty`` when nothing was recorded."""
        if self._failed:
            # Whoever fed it was told why, and the recorder has left nothing.
            return
        if self._pictures and self._sound_pts_s is not None:
            # Silence is not sent: where there are pictures but no more sound, there was none.
            sound_at_s = self._sound_pts_s + len(self._sound) / PLAYOUT_RATE + self._sound_offset_s
            missing_s = self._pictures[-1].pts_s + self._picture_offset_s + FRAME_S - sound_at_s
            self._sound = np.append(self._sound, np.zeros(max(0, round(missing_s * PLAYOUT_RATE)), np.int16))
        while len(self._sound) >= FRAME_SAMPLES:
            self._write()
        if self._recorder is None:
            # It makes the error of an empty one.
            self._recorder = Recorder(self._path, (2, 2), self._crf)
        self._recorder.close()

    def _write(self) -> None:
        assert self._sound_pts_s is not None
        audio, self._sound = self._sound[:FRAME_SAMPLES], self._sound[FRAME_SAMPLES:]
        at_s = self._sound_pts_s + self._sound_offset_s
        self._sound_pts_s += FRAME_S
        # A picture belongs to the sound that begins with it, give or take half a frame.
        while self._pictures and self._pictures[0].pts_s + self._picture_offset_s < at_s + FRAME_S / 2:
            self._shown = self._pictures.popleft().image
        if self._shown is not None and self._recorder is not None:
            try:
                self._recorder.write(AvatarFrame(self._shown, audio, self._recorder.frames))
            except VisavisError:
                self._failed = True
                raise
