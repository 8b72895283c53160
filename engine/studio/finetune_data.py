"""A video of the avatar's person -> pairs to learn from: rest picture, mouth vector, how the mouth really looked.

Place in the flow: avatar as prepared by the built-in model + clips -> ``observe`` -> ``Observed`` -> ``finetune``.

Invariants:
    * rest pictures are what the network sees in the product: its squares, in the colours it knows;
    * every real picture lies over one of the avatar's own by the points of the face that no expression moves;
    * every clip shows the avatar's person, or nothing is learned;
    * pictures in which the head is turned too differently for that are left out;
    * rows are in the order of the clips, so that the last ones are a stretch the network has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engine.array_file import open_arrays
from engine.avatar.checks import FaceChoice, choose_face
from engine.avatar.landmarks import Face, FaceMesh, FaceTrack
from engine.avatar.source import VideoSource
from engine.errors import PortraitInvalid
from engine.evaluate.lips import lip_shape
from engine.lipsync.builtin.crop import CROP_SIZE
from engine.lipsync.builtin.model import BuiltinPrepared
from engine.lipsync.builtin.rounding import rounded
from engine.lipsync.builtin.warp import cut
from engine.studio.likeness import LIMIT, Likeness
from engine.studio.lip_map import LipMap
from engine.types import FPS

LEAST_SECONDS = 20.0
"""Of usable video, all clips together."""
GOOD_SECONDS = 60.0
"""Of usable video: with less, sounds are missing and the gain is smaller."""
MOST_PAIRS = 1200
"""More pictures than this are thinned out evenly."""

_RIGID = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 10, 151, 9, 8)
_MOST_APART = 0.045
"""Mean distance of rigid points after laying over, in distances of the outer eye corners."""
_REFERENCES = 12
_BRIGHTEST_GAIN = 1.6
_LOOKED_AT_EVERY = 5
"""Every so many pictures the face is compared with the avatar's."""
_FACES_TO_JUDGE = 24
_COMPANY_EVERY = 25
"""Every so many pictures the whole picture is searched for more faces."""
_LEAST_SPEAKING = 0.008
"""Spread of the gap between the inner lips, in distances of the outer eye corners: 3 s of talk 0.014 to 0.055, idle
loops up to 0.004."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Observed:
    """Pairs, s = CROP_SIZE.

    Attributes:
        references: (R, s, s, 3) uint8 BGR crops of the avatar at rest, as the network sees them.
        chosen: (N,) int which reference a pair belongs to.
        targets: (N, s, s, 3) uint8 BGR real pictures laid over it, in its colours.
        insides: (N, s, s, 3) uint8 BGR teeth and tongue as the product draws them.
        mouths: (N, 10) float32 in [0, 1].
        bends: (N, 2, s, s) float16 how the product bends the network's layers for these mouths, x and y in grid units.
        gains: (3,) float32 what the avatar's colours were multiplied with for the network.
        seconds: () float64 length of the video that could be used.
    """

    references: np.ndarray
    chosen: np.ndarray
    targets: np.ndarray
    insides: np.ndarray
    mouths: np.ndarray
    bends: np.ndarray
    gains: np.ndarray
    seconds: np.ndarray

    def save(self, path: Path) -> None:
        """Writes one file, complete or not at all."""
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **vars(self))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Observed:
        """Reads what ``save`` wrote."""
        with open_arrays(path) as file:
            return cls(**{name: file[name] for name in file.files})


def observe(
    prepared: BuiltinPrepared,
    clips: Sequence[Path],
    mesh: FaceMesh,
    *,
    face: FaceChoice = "only",
    any_person: bool = False,
    progress: Progress = lambda stage, share: None,
) -> Observed:
    """Reads the clips.

    Args:
        prepared: the avatar, as the built-in model prepared it.
        clips: videos of the same person talking; sound is not needed.
        mesh: finds faces.
        face: ``only`` refuses company, ``largest`` ignores it.
        any_person: do not compare the face in the clips with the avatar's.
        progress: told the stage and its share done, in [0, 1].

    Raises:
        PortraitInvalid: ``source_missing``, ``source_unreadable``, ``source_too_long`` and so on; ``no_face``,
            ``several_faces``; ``finetune_face_missing`` when the avatar shows no face; ``finetune_other_person``;
            ``finetune_still_mouth``; ``clip_too_short`` when too little of the video can be used.
    """
    avatar = prepared.avatar
    sources = [_source(clip) for clip in clips]
    numbers, points = _at_rest(prepared, mesh)
    references = prepared.references[numbers]
    rest = np.median(lip_shape(points), 0)
    likeness, lip_map = Likeness.load(), LipMap.load()
    chosen, targets, shapes = [], [], []
    every = max(1, sum(source.count for source in sources) // MOST_PAIRS)
    size = (avatar.size[0], avatar.size[1])
    for number, source in enumerate(sources):
        track, seen = FaceTrack(mesh), list[np.ndarray]()
        for index, frame in enumerate(source.frames()):
            progress("reading the video", min((number + index / max(1, source.count)) / len(sources), 1.0))
            if index % _COMPANY_EVERY == 0:
                _check_company(mesh.find(frame), face, source)
            if index % every and index % _LOOKED_AT_EVERY:
                continue
            if (found := track.next(frame)) is None:
                continue
            if index % _LOOKED_AT_EVERY == 0:
                seen.append(found.points)
                if len(seen) == _FACES_TO_JUDGE and not any_person:
                    _check_person(likeness, points, seen, avatar.name, source)
            if index % every:
                continue
            matrices = [_laid_over(found.points, there) for there in points]
            apart = [_apart(found.points, there, matrix) for there, matrix in zip(points, matrices, strict=True)]
            best = int(np.argmin(apart))
            if apart[best] > _MOST_APART:
                continue
            laid = cv2.warpAffine(frame, matrices[best], size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            crop = _crop(laid, prepared.boxes[numbers[best]])
            chosen.append(best)
            targets.append(_in_colours(crop, references[best], prepared.gains))
            shapes.append(lip_shape(found.points[None])[0])
        if not seen:
            raise PortraitInvalid("no_face", f"No face was found in {source.path.name}. Use a video of the person.")
        if not any_person:
            _check_person(likeness, points, seen, avatar.name, source)
    seconds = len(targets) * every / FPS
    if seconds < LEAST_SECONDS:
        raise PortraitInvalid(
            "clip_too_short",
            f"Only {seconds:.0f} s of the video can be used; {LEAST_SECONDS:.0f} s are needed. Record 1 to 5 minutes "
            "of the same person talking, looking at the camera as the avatar does.",
        )
    measured = np.stack(shapes)
    if measured[:, 0].std() < _LEAST_SPEAKING:
        raise PortraitInvalid(
            "finetune_still_mouth", "The mouth hardly moves in this video. Use one in which the person talks."
        )
    mouths = lip_map.mouths(measured, rest)
    shown = [(numbers[best], mouth) for best, mouth in zip(chosen, mouths, strict=True)]
    insides = np.stack([_inside(prepared, number, mouth) for number, mouth in shown])
    bends = np.stack([_bend(prepared, number, mouth) for number, mouth in shown])
    return Observed(
        references, np.array(chosen), np.stack(targets), insides, mouths, bends, prepared.gains, np.array(seconds)
    )


def _source(clip: Path) -> VideoSource:
    try:
        return VideoSource(clip)
    except PortraitInvalid as error:
        if error.code == "source_too_long":
            raise PortraitInvalid(
                error.code, f"{clip.name} is longer than 5 minutes. Cut it into parts of at most 5 minutes, or use one."
            ) from error
        raise


def _check_company(faces: list[Face], face: FaceChoice, source: VideoSource) -> None:
    """Refuses a picture with several people; one without anybody may be a turned head."""
    if faces:
        try:
            choose_face(faces, face)
        except PortraitInvalid as error:
            raise PortraitInvalid(error.code, f"{source.path.name}: {error.message}") from error


def _check_person(
    likeness: Likeness, avatar_points: np.ndarray, seen: list[np.ndarray], name: str, source: VideoSource
) -> None:
    distance = likeness.distance(avatar_points, np.stack(seen))
    if distance > LIMIT:
        raise PortraitInvalid(
            "finetune_other_person",
            f"{source.path.name} seems to show somebody else than avatar {name!r}: the faces differ by {distance:.1f}, "
            f"at most {LIMIT:.1f} passes. Use a video of the same person, seen from the front; if it is the same, add "
            "--any-person.",
        )


def _inside(prepared: BuiltinPrepared, number: int, mouth: np.ndarray) -> np.ndarray:
    """(s, s, 3) uint8 BGR teeth and tongue in a mouth square."""
    box = prepared.boxes[number]
    steps = (np.arange(CROP_SIZE) + 0.5) * ((box[1] - box[0]) / CROP_SIZE)
    drawn = prepared.inside.draw(steps + box[0], steps + box[2], prepared.places[number], mouth)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


def _bend(prepared: BuiltinPrepared, number: int, mouth: np.ndarray) -> np.ndarray:
    """(2, s, s) float16 what the product adds to a network that moves nothing."""
    still = np.zeros((3, CROP_SIZE, CROP_SIZE), np.float32)
    bent, _ = rounded(still[:2], still[2], prepared.boxes[number], prepared.places[number], mouth)
    return bent.astype(np.float16)


def _at_rest(prepared: BuiltinPrepared, mesh: FaceMesh) -> tuple[list[int], np.ndarray]:
    """Numbers of some pictures of the idle loop, and their (R, 468, 3) points."""
    avatar = prepared.avatar
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


def _in_colours(picture: np.ndarray, reference: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """The picture with the mean colours that the reference has beside and above the mouth.

    Args:
        picture: (s, s, 3) uint8 BGR as filmed.
        reference: (s, s, 3) uint8 BGR, its colours multiplied with the gains.
        gains: (3,) of the avatar. The video may have been filmed with the avatar's cast or without one, so both must
            be within reach.
    """
    edge = np.ones(picture.shape[:2], bool)
    edge[CROP_SIZE // 6 :, CROP_SIZE // 5 : -CROP_SIZE // 5] = False
    gain = reference[edge].mean(0) / np.maximum(picture[edge].mean(0), 1.0)
    gain = np.clip(gain, np.minimum(gains, 1) / _BRIGHTEST_GAIN, np.maximum(gains, 1) * _BRIGHTEST_GAIN)
    return np.clip(np.rint(picture * gain), 0, 255).astype(np.uint8)
