"""Wav2Lip as a lip-sync model: any checkpoint of the family on any avatar.

Place in the flow: ``LipJob`` -> face features of the picture (kept) + mel window -> strip -> ``FacePatch``.

Invariants:
    * a prediction depends on its job alone, and any number of threads may predict at once;
    * strength 0 leaves every pixel of the picture as it is;
    * only the half that the network invents is pasted: the upper face keeps the picture's own sharpness.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from engine.audio.mel import MEL_BANDS, SILENCE
from engine.errors import BackendFailed
from engine.lipsync.base import FacePatch, LipJob
from engine.lipsync.wav2lip.crop import Strip, cut_face, face_boxes, first_row_of, match_colour, network_face
from engine.lipsync.wav2lip.speaker import Features, Speaker, bytes_of
from engine.lipsync.wav2lip.variants import MEL_COLUMNS, Variant

if TYPE_CHECKING:
    from engine.avatar.bundle import Avatar

FEATURES_LIMIT_BYTES = 80 << 20
"""Memory for the kept features of one avatar: the idle loop of the 96 network. Pictures that found no room are encoded
anew each time; nothing is ever evicted, because a loop longer than the room would evict each picture before its turn.
"""
_SMALLEST_FACE_PX = 48
_BATCH_LIMIT = 16
"""Pictures of all sessions that a runtime which gains from it gets at once: more would keep the first one waiting."""


class Wav2LipPrepared:
    """What the model keeps of an avatar.

    Attributes:
        avatar: the avatar.
        boxes: (N, 4) int y1, y2, x1, x2 of the face in every picture, all of one size.
        strip: how the network's strip lands in a box.
    """

    def __init__(self, avatar: Avatar, boxes: np.ndarray, strip: Strip) -> None:
        self.avatar, self.boxes, self.strip = avatar, boxes, strip
        self._features: dict[int, Features] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def kept(self, index: int) -> Features | None:
        """Features of a picture, when they were kept."""
        return self._features.get(index)

    def keep(self, index: int, features: Features) -> None:
        """Keeps features while there is room."""
        size = bytes_of(features)
        with self._lock:
            if index not in self._features and self._bytes + size <= FEATURES_LIMIT_BYTES:
                self._features[index] = features
                self._bytes += size


class Wav2LipSync:
    """See ``engine.lipsync.base.LipSync``."""

    def __init__(self, variant: Variant, speaker: Speaker) -> None:
        """Takes a runtime with the network loaded; ``load`` is the usual way."""
        self.crop_size = variant.size
        self.window = variant.window
        self.batch_limit = _BATCH_LIMIT if speaker.batches else 1
        self._variant, self._speaker = variant, speaker

    @classmethod
    def load(cls, folder: Path, threads: int = 1, precision: str = "auto") -> Wav2LipSync:
        """Loads a folder of weights; the first time it is converted for the runtime, which takes some seconds.

        Args:
            folder: what ``python -m engine weights add`` made.
            threads: threads of one prediction on a CPU.
            precision: ``f32``, ``bf16``, ``int8``, or ``auto``: a GPU where there is one, else what was fastest in
                ``python -m engine bench`` here, else bf16 where the processor has it.

        Raises:
            WeightsInvalid: the folder is damaged.
            BackendFailed: the network cannot be loaded, or int8 would be too coarse for these weights.
        """
        from engine.lipsync.wav2lip.runtimes import open_speaker

        return cls(*open_speaker(folder, threads, precision))

    def prepare(self, avatar: Avatar) -> Wav2LipPrepared:
        """Finds the face box of every picture; features follow when a picture first speaks.

        Raises:
            BackendFailed: ``face_too_small``.
        """
        boxes = face_boxes(avatar.all_landmarks())
        height, width = int(boxes[0, 1] - boxes[0, 0]), int(boxes[0, 3] - boxes[0, 2])
        if height < _SMALLEST_FACE_PX:
            raise BackendFailed(
                "face_too_small", f"The face of avatar {avatar.name!r} is too small: its box is {height} pixels high."
            )
        strip = Strip(self.crop_size, first_row_of(self._variant), height, width)
        return Wav2LipPrepared(avatar, boxes, strip)

    def predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        """One patch per job, in order; runtimes that gain from it compute all jobs at once."""
        speaking = [job for job in jobs if job.strength > 0]
        strips = iter(self._strips(speaking))
        return [self._patch(job, next(strips) if job.strength > 0 else None) for job in jobs]

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """Runs each batch size once."""
        grey = np.full((self.crop_size, self.crop_size, 3), 128, np.uint8)
        face = self._speaker.encode_face(network_face(grey, self._variant.colour))
        silence = np.full((1, 1, MEL_BANDS, MEL_COLUMNS), SILENCE, np.float32)
        self._speaker.warmup(silence, face, batch_sizes)

    def _strips(self, jobs: Sequence[LipJob]) -> np.ndarray | list[np.ndarray]:
        if not jobs:
            return []
        mels = np.stack([np.asarray(job.mel, np.float32) for job in jobs])[:, None]
        return self._speaker.speak(mels, [self._features(_own(job), job.frame_index) for job in jobs])

    def _features(self, prepared: Wav2LipPrepared, index: int) -> Features:
        features = prepared.kept(index)
        if features is None:
            crop = cut_face(prepared.avatar.picture(index), prepared.boxes[index], self.crop_size)
            features = self._speaker.encode_face(network_face(crop, self._variant.colour))
            prepared.keep(index, features)
        return features

    def _patch(self, job: LipJob, strip: np.ndarray | None) -> FacePatch:
        prepared = _own(job)
        frame = prepared.avatar.picture(job.frame_index)
        y1, y2, x1, x2 = (int(edge) for edge in prepared.boxes[job.frame_index])
        box, mask = (y1 + prepared.strip.top, y2, x1, x2), prepared.strip.mask
        below = _cut(frame, box)
        if strip is None:
            return FacePatch(below, box, mask)
        image = match_colour(prepared.strip.enlarge(strip), below, mask)
        if job.strength < 1:
            # The network knows no half-open way back to rest, so the picture fades where the sound begins and ends.
            image = cv2.addWeighted(image, job.strength, below, 1 - job.strength, 0)
        return FacePatch(image, box, mask)


def _own(job: LipJob) -> Wav2LipPrepared:
    if not isinstance(job.prepared, Wav2LipPrepared):
        raise TypeError("the job's avatar was not prepared by this model")
    return job.prepared


def _cut(frame: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The pixels of a box, the picture's border repeated where it reaches beyond it."""
    y1, y2, x1, x2 = box
    height, width = frame.shape[:2]
    if y1 >= 0 and x1 >= 0 and y2 <= height and x2 <= width:
        return frame[y1:y2, x1:x2]
    rows, columns = np.clip(np.arange(y1, y2), 0, height - 1), np.clip(np.arange(x1, x2), 0, width - 1)
    return frame[rows[:, None], columns]
