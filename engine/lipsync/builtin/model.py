"""The built-in lip-sync model: sound -> mouth vector -> the avatar's own face speaking.

Place in the flow: ``LipJob`` -> audio network -> picture network -> warp, mouth's inside -> ``FacePatch``.

Invariants:
    * a prediction depends on its job alone, and any number of threads may predict at once;
    * a mouth at rest (strength 0) returns the idle frame's pixels bit for bit;
    * torch is never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from engine.audio.mel import MEL_BANDS
from engine.audio.window import MelWindow
from engine.avatar.pictures import beside
from engine.errors import BackendFailed
from engine.lipsync.base import FacePatch, LipJob
from engine.lipsync.builtin.crop import CROP_SIZE, colour_gains, eye_mouth_distance, mouth_boxes
from engine.lipsync.builtin.mouth_inside import MouthInside, Place, place_of
from engine.lipsync.builtin.rounding import rounded
from engine.lipsync.builtin.teeth_fit import PROBE, lip_edges, usual_edges
from engine.lipsync.builtin.warp import cut, feather_mask, speak
from engine.lipsync.openvino_runtime import Network, Precision
from engine.types import MOUTH_SHAPES

if TYPE_CHECKING:
    from engine.avatar.bundle import Avatar

_FOLDER = Path(__file__).parent
_PRESS, _BROAD_SMILE_D, _PRESS_LOST = MOUTH_SHAPES.index("mouthPress"), 0.22, 0.45
"""Lips that a smile has spread are thin already: pressed as hard as others they would bulge, and look parted."""
_PROBED = 7
"""Pictures of an avatar in which its lips are looked for."""
_STILL = 1e-3
"""Mouths below this are rest: the picture network would move nothing by a tenth of a grey level."""


@dataclass(frozen=True)
class BuiltinPrepared:
    """What the model keeps of an avatar.

    Attributes:
        avatar: the avatar.
        boxes: (N, 4) int y1, y2, x1, x2 of the mouth square in every picture, all of one size.
        mask: (side, side) uint8 feathered mask of the patches.
        references: (N, CROP_SIZE, CROP_SIZE, 3) uint8 BGR, the squares as the network sees them.
        gains: (3,) float32 what the squares' colours were multiplied with.
        inside: teeth and tongue in the face's size.
        places: where they are in every picture.
        picture: the picture network: the avatar's own, or the one of all.
    """

    avatar: Avatar
    boxes: np.ndarray
    mask: np.ndarray
    references: np.ndarray
    gains: np.ndarray
    inside: MouthInside
    places: Sequence[Place]
    picture: Network


class BuiltinLipSync:
    """See ``engine.lipsync.base.LipSync``."""

    crop_size = CROP_SIZE
    window = MelWindow(columns=32, offset=-24)

    def __init__(
        self,
        audio: Network,
        picture: Network,
        inside: MouthInside,
        open_picture: Callable[[Path], Network] = lambda path: Network(path, 1, "f32"),
    ) -> None:
        """Takes compiled networks; ``load`` is the usual way.

        Args:
            audio: mel (1, 1, 80, 32) -> mouth (1, 10).
            picture: reference (1, 3, s, s), mouth (1, 10) -> flow, alpha, shade.
            inside: teeth and tongue.
            open_picture: opens the picture network that an avatar brings along.
        """
        self._open_picture = open_picture
        self._audio, self._picture, self._inside = audio, picture, inside

    @classmethod
    def load(cls, threads: int = 1, precision: Precision = "f32") -> BuiltinLipSync:
        """Loads the model that comes with the project.

        Args:
            threads: threads of one prediction.
            precision: arithmetic of the picture network, ``f32`` or ``bf16``.

        Raises:
            BackendFailed: a model file is missing or cannot be read.
        """
        audio, picture = _FOLDER / "audio.xml", _FOLDER / "picture.xml"
        inside = MouthInside.load(_FOLDER / "mouth_inside.npz")

        def open_picture(path: Path) -> Network:
            return Network(path, threads, precision)

        # Threads that draw compile these for themselves when they are warmed up.
        hears, draws = Network(audio, threads, "f32", own=True), Network(picture, threads, precision, own=True)
        return cls(hears, draws, inside, open_picture)

    def prepare(self, avatar: Avatar) -> BuiltinPrepared:
        """Cuts the mouth square out of every picture.

        Raises:
            BackendFailed: the face is too small to hold a mouth, or the avatar's own network cannot be read.
        """
        landmarks = avatar.all_landmarks()
        boxes = mouth_boxes(landmarks)
        side = int(boxes[0, 1] - boxes[0, 0])
        if side < CROP_SIZE // 4:
            raise BackendFailed(
                "face_too_small", f"The face of avatar {avatar.name!r} is too small: its mouth square is {side} pixels."
            )
        way = cv2.INTER_AREA if side > CROP_SIZE else cv2.INTER_LINEAR
        references = np.empty((len(boxes), CROP_SIZE, CROP_SIZE, 3), np.uint8)
        for index, (reference, box) in enumerate(zip(references, boxes, strict=True)):
            cv2.resize(cut(avatar.picture(index), box), (CROP_SIZE, CROP_SIZE), dst=reference, interpolation=way)
        gains = colour_gains(references)
        if np.any(gains != 1):
            for reference in references:
                np.copyto(reference, np.clip(np.rint(reference * gains), 0, 255), casting="unsafe")
        references = beside(avatar.frames, references)
        distance_px = float(np.median(eye_mouth_distance(landmarks)))
        places = [place_of(points, distance_px) for points in landmarks]
        own = avatar.picture_model
        picture = self._picture if own is None else self._open_picture(own)
        probed = np.linspace(0, len(avatar.frames) - 1, min(_PROBED, len(avatar.frames))).astype(int)
        edges = []
        for index in probed:
            flow, alpha, _ = self._layers(picture, references[index], PROBE)
            _, opening = rounded(flow[0], alpha[0, 0], boxes[index], places[index], PROBE)
            edges.append(lip_edges(opening, boxes[index], places[index]))
        inside = self._inside.sized(distance_px).fitted(usual_edges(edges), avatar.name)
        return BuiltinPrepared(avatar, boxes, feather_mask(side), references, gains, inside, places, picture)

    def predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        """One patch per job, in order."""
        return [self._predict(job) for job in jobs]

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        """Runs both networks once in the calling thread; jobs are predicted one by one, so sizes do not matter."""
        self._hear(np.zeros((MEL_BANDS, self.window.columns), np.float32))
        black = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
        self._layers(self._picture, black, np.ones(len(MOUTH_SHAPES), np.float32))

    def _predict(self, job: LipJob) -> FacePatch:
        prepared = job.prepared
        if not isinstance(prepared, BuiltinPrepared):
            raise TypeError("the job's avatar was not prepared by this model")
        mouth = np.zeros(len(MOUTH_SHAPES), np.float32)
        if job.strength > 0:
            mouth = self._hear(job.mel) * np.float32(job.strength)
        return self.draw(prepared, job.frame_index, mouth)

    def draw(self, prepared: BuiltinPrepared, frame_index: int, mouth: np.ndarray) -> FacePatch:
        """The patch of a given mouth, without sound.

        Args:
            prepared: what ``prepare`` returned.
            frame_index: number of a picture of the avatar.
            mouth: (10,) float32 in [0, 1].
        """
        frame, box = prepared.avatar.picture(frame_index), prepared.boxes[frame_index]
        place = (int(box[0]), int(box[1]), int(box[2]), int(box[3]))
        if mouth.max() < _STILL:
            return FacePatch(cut(frame, box), place, prepared.mask, mouth)
        where = prepared.places[frame_index]
        shown = mouth.copy()
        shown[_PRESS] *= 1 - _PRESS_LOST * min(where.smile / _BROAD_SMILE_D, 1.0)
        flow, alpha, shade = self._layers(prepared.picture, prepared.references[frame_index], shown)
        moved, opening = rounded(flow[0], alpha[0, 0], box, where, shown)
        layers = (moved, opening, shade[0] / prepared.gains[:, None, None])
        image = speak(frame, box, layers, prepared.inside, where, shown)
        return FacePatch(image, place, prepared.mask, mouth)

    def _hear(self, mel: np.ndarray) -> np.ndarray:
        """(10,) float32 mouth vector in [0, 1] of a (80, columns) mel window."""
        return np.clip(self._audio(np.ascontiguousarray(mel, np.float32)[None, None])[0][0], 0, 1)

    @staticmethod
    def _layers(network: Network, reference: np.ndarray, mouth: np.ndarray) -> list[np.ndarray]:
        """Flow, alpha and shade of a (s, s, 3) uint8 reference and a (10,) mouth."""
        picture = reference.transpose(2, 0, 1)[None].astype(np.float32) / 255
        return network(picture, mouth[None])
