"""A video of the avatar's person -> pairs to learn from: rest picture, mouth vector, how the mouth really looked.

Place in the flow: avatar + clips -> ``observe`` -> ``Observed`` -> ``finetune``.

Invariants:
    * every real picture lies over one of the avatar's own by the points of the face that no expression moves;
    * pictures in which the head is turned too differently for that are left out;
    * rows are in the order of the clips, so that the last ones are a stretch the network has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.avatar.bundle import Avatar
from engine.avatar.landmarks import FaceMesh, FaceTrack
from engine.avatar.source import VideoSource
from engine.errors import PortraitInvalid
from engine.evaluate.lips import lip_shape
from engine.lipsync.builtin.crop import CROP_SIZE, eye_mouth_distance, mouth_boxes
from engine.lipsync.builtin.mouth_inside import MouthInside, place_of
from engine.lipsync.builtin.warp import cut
from engine.studio.lip_map import LipMap
from engine.types import FPS

LEAST_SECONDS = 20.0
"""Of usable video, all clips together."""
MOST_PAIRS = 1200
"""More pictures than this are thinned out evenly."""

_RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 10, 151, 9, 8)
_MOST_APART = 0.045
"""Mean distance of rigid points after laying over, in distances of the outer eye corners."""
_REFERENCES = 12
_BRIGHTEST_GAIN = 1.6

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Observed:
    """Pairs, s = CROP_SIZE.

    Attributes:
        references: (R, s, s, 3) uint8 BGR crops of the avatar at rest.
        chosen: (N,) int which reference a pair belongs to.
        targets: (N, s, s, 3) uint8 BGR real pictures laid over it, in its colours.
        insides: (N, s, s, 3) uint8 BGR teeth and tongue as the product draws them.
        mouths: (N, 10) float32 in [0, 1].
    """

    references: np.ndarray
    chosen: np.ndarray
    targets: np.ndarray
    insides: np.ndarray
    mouths: np.ndarray

    def save(self, path: Path) -> None:
        """Writes one file, complete or not at all."""
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **vars(self))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Observed:
        """Reads what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in file.files})


def observe(
    avatar: Avatar,
    clips: Sequence[Path],
    mesh: FaceMesh,
    inside: MouthInside,
    progress: Progress = lambda stage, share: None,
) -> Observed:
    """Reads the clips.

    Args:
        avatar: of the same person.
        clips: videos of them talking.
        mesh: finds faces.
        inside: teeth and tongue, as loaded.
        progress: told the stage and its share done, in [0, 1].

    Raises:
        PortraitInvalid: ``source_missing``, ``source_unreadable`` and so on; ``finetune_face_missing`` when the avatar
            shows no face; ``clip_too_short`` when too little of the video can be used.
    """
    pictures, points = _at_rest(avatar, mesh)
    landmarks = avatar.all_landmarks()
    boxes = mouth_boxes(landmarks)
    distance_px = float(np.median(eye_mouth_distance(landmarks)))
    rest = np.median(lip_shape(points), 0)
    references = np.stack([_crop(avatar.picture(index), boxes[index]) for index in pictures])
    sized = inside.sized(distance_px)
    lip_map = LipMap.load()
    chosen, targets, shapes = [], [], []
    sources = [VideoSource(clip) for clip in clips]
    every = max(1, sum(source.count for source in sources) // MOST_PAIRS)
    for number, source in enumerate(sources):
        track = FaceTrack(mesh)
        for index, frame in enumerate(source.frames()):
            progress("reading the video", min((number + index / max(1, source.count)) / len(sources), 1.0))
            if index % every or (face := track.next(frame)) is None:
                continue
            matrices = [_laid_over(face.points, there) for there in points]
            apart = [_apart(face.points, there, matrix) for there, matrix in zip(points, matrices, strict=True)]
            best = int(np.argmin(apart))
            if apart[best] > _MOST_APART:
                continue
            size = (avatar.size[0], avatar.size[1])
            laid = cv2.warpAffine(frame, matrices[best], size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            chosen.append(best)
            targets.append(_in_colours(_crop(laid, boxes[pictures[best]]), references[best]))
            shapes.append(lip_shape(face.points[None])[0])
    seconds = len(targets) * every / FPS
    if seconds < LEAST_SECONDS:
        raise PortraitInvalid(
            "clip_too_short",
            f"Only {seconds:.0f} s of the video can be used; {LEAST_SECONDS:.0f} s are needed. Record 1 to 5 minutes "
            "of the same person talking, looking at the camera as the avatar does.",
        )
    mouths = lip_map.mouths(np.stack(shapes), rest)
    insides = []
    for best, mouth in zip(chosen, mouths, strict=True):
        box, place = boxes[pictures[best]], place_of(landmarks[pictures[best]], distance_px)
        steps = (np.arange(CROP_SIZE) + 0.5) * ((box[1] - box[0]) / CROP_SIZE)
        drawn = sized.draw(steps + box[0], steps + box[2], place, mouth)
        insides.append(np.clip(np.rint(drawn), 0, 255).astype(np.uint8))
    return Observed(references, np.array(chosen), np.stack(targets), np.stack(insides), mouths)


def _at_rest(avatar: Avatar, mesh: FaceMesh) -> tuple[list[int], np.ndarray]:
    """Numbers of some pictures of the idle loop, and their (R, 468, 3) points."""
    numbers, points = [], []
    for number in np.linspace(0, len(avatar.frames) - 1, _REFERENCES).astype(int):
        faces = mesh.find(avatar.picture(int(number)))
        if faces:
            numbers.append(int(number))
            points.append(faces[0].points)
    if not numbers:
        raise PortraitInvalid("finetune_face_missing", f"No face can be found in avatar {avatar.name!r}.")
    return numbers, np.stack(points)


def _crop(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    square = cut(picture, box)
    way = cv2.INTER_AREA if len(square) > CROP_SIZE else cv2.INTER_LINEAR
    return cv2.resize(square, (CROP_SIZE, CROP_SIZE), interpolation=way)


def _laid_over(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) shift, turn and scale that lays the rigid points of a face over those of another best."""
    a, b = (points[list(_RIGID), :2].astype(np.float64) @ np.array([1, 1j]) for points in (source, target))
    # In the plane a turn and a scale are one complex factor.
    factor = ((b - b.mean()) * (a - a.mean()).conj()).sum() / (np.abs(a - a.mean()) ** 2).sum()
    shift = b.mean() - factor * a.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def _apart(source: np.ndarray, target: np.ndarray, matrix: np.ndarray) -> float:
    moved = source[list(_RIGID), :2] @ matrix[:, :2].T + matrix[:, 2]
    unit = np.linalg.norm(target[33, :2] - target[263, :2])
    return float(np.linalg.norm(moved - target[list(_RIGID), :2], axis=1).mean() / unit)


def _in_colours(picture: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The picture with the mean colours that the reference has beside and above the mouth."""
    edge = np.ones(picture.shape[:2], bool)
    edge[CROP_SIZE // 6 :, CROP_SIZE // 5 : -CROP_SIZE // 5] = False
    gain = reference[edge].mean(0) / np.maximum(picture[edge].mean(0), 1.0)
    gain = np.clip(gain, 1 / _BRIGHTEST_GAIN, _BRIGHTEST_GAIN)
    return np.clip(np.rint(picture * gain), 0, 255).astype(np.uint8)
