"""Avatar folders on disk: reads and validates them, writes them.

Place in the flow: studio or photo preparation -> folder -> ``load_avatar`` -> ``LipSync.prepare``, idle pictures.

A folder ``avatars/<name>/`` holds nothing that could run code:
    * ``avatar.toml``: what it states about itself, see ``engine.avatar.card``;
    * ``idle.mp4``: the idle loop, H.264 yuv420p, BT.709 limited range, 25 fps; ``clip_<clip>.mp4``: a clip, likewise;
    * ``picture.xml``, ``picture.bin``: may be there, a picture network fitted to this person; weights, no code;
    * ``matte.mp4``: may be there, who of every picture is person, see ``engine.avatar.matte_file``;
    * ``faces.npz``: ``landmarks`` (N, 5, 2) float32 and ``boxes`` (N, 4) float32, one row per frame of the loop;
      ``clip_<clip>_landmarks`` and ``clip_<clip>_boxes`` for each clip.

Invariants:
    * the folder's name is the avatar's name;
    * a loaded avatar is complete and consistent: whoever holds one need not check again;
    * pictures are read-only, since every session of a server shares them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from engine.avatar.card import (
    CARD_FILE,
    MAX_CLIPS,
    NAME_PATTERN,
    AvatarCard,
    card_text,
    check_clip_names,
    check_consent,
    read_card,
)
from engine.avatar.footage import Clip, check_clips, check_footage, check_length, check_size, read_faces
from engine.avatar.footage import invalid as _invalid
from engine.avatar.footage import require_file as _require_file
from engine.avatar.pictures import PictureFiles, memory_bytes
from engine.avatar.video import decode_loop, encode_loop
from engine.errors import AvatarInvalid, NotFound
from engine.persona import Persona
from engine.types import FPS

PICTURE_MODEL_FILE = "picture.xml"
IDLE_FILE = "idle.mp4"
FACES_FILE = "faces.npz"

_FIRST_SHIPPED = "maya"

MAX_VIDEO_BYTES = 256 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Avatar:
    """A talking head at rest: the pictures speech is pasted onto, and where the face is in each.

    Attributes:
        name, title, size, licence, source, synthetic, consent, persona: as in ``AvatarCard``.
        frames: (N, H, W, 3) uint8 BGR idle loop; frame N-1 flows into frame 0.
        landmarks: (N, 5, 2) float32 pixels (x, y): left eye (image left), right eye, nose tip,
            mouth corner (image left), mouth corner (image right).
        boxes: (N, 4) float32 face boxes (y1, y2, x1, x2) in pixels.
        fps: pictures a second, always 25.
        clips: what it can do beside resting, by name.
        picture_model: picture network fitted to this person, or None for the one that comes with the project.
        folder: whose pictures these are; None when they exist in memory alone.

    All pictures together are numbered: those of the idle loop first, then those of the clips in order of their names.
    """

    name: str
    title: str
    size: tuple[int, int]
    licence: str
    source: str
    synthetic: bool
    consent: str
    frames: np.ndarray
    landmarks: np.ndarray
    boxes: np.ndarray
    fps: int = FPS
    clips: Mapping[str, Clip] = field(default_factory=dict)
    picture_model: Path | None = None
    persona: Persona = field(default_factory=Persona)
    folder: Path | None = None

    @property
    def starts(self) -> dict[str, int]:
        """Number of the first picture of each clip, by its name."""
        starts, start = {}, len(self.frames)
        for name in sorted(self.clips):
            starts[name] = start
            start += len(self.clips[name].frames)
        return starts

    @property
    def picture_count(self) -> int:
        """Pictures of the idle loop and all clips."""
        return len(self.frames) + sum(len(clip.frames) for clip in self.clips.values())

    @property
    def memory_bytes(self) -> int:
        """What its pictures take of memory for as long as it is there; those in a mapped file take none."""
        return memory_bytes(self.frames) + sum(memory_bytes(clip.frames) for clip in self.clips.values())

    def picture(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 BGR picture number ``index`` of all; read-only.

        Raises:
            IndexError: not within 0 to ``picture_count`` - 1.
        """
        footage, position = self._at(index)
        return footage.frames[position]

    def landmarks_of(self, index: int) -> np.ndarray:
        """(5, 2) float32 landmarks of picture number ``index`` of all.

        Raises:
            IndexError: as ``picture``.
        """
        footage, position = self._at(index)
        return footage.landmarks[position]

    def _at(self, index: int) -> tuple[Avatar | Clip, int]:
        if 0 <= index < len(self.frames):
            return self, index
        for name, start in self.starts.items():
            clip = self.clips[name]
            if 0 <= index - start < len(clip.frames):
                return clip, index - start
        raise IndexError(f"avatar {self.name!r} has no picture {index}")

    def all_landmarks(self) -> np.ndarray:
        """(picture_count, 5, 2) float32: ``landmarks`` of all pictures in their order."""
        return np.concatenate([self.landmarks, *(self.clips[name].landmarks for name in sorted(self.clips))])

    def all_boxes(self) -> np.ndarray:
        """(picture_count, 4) float32: ``boxes`` of all pictures in their order."""
        return np.concatenate([self.boxes, *(self.clips[name].boxes for name in sorted(self.clips))])


def list_avatars(directory: Path) -> dict[str, AvatarCard]:
    """Cards of all usable avatar folders below ``directory``, by name; broken ones are logged and left out."""
    cards: dict[str, AvatarCard] = {}
    if not directory.is_dir():
        return cards
    for folder in sorted(directory.iterdir()):
        if not (folder / CARD_FILE).is_file():
            continue
        try:
            cards[folder.name] = read_card(folder)
        except AvatarInvalid as error:
            _log.warning("avatar %s left out: %s", folder.name, error.message)
    return cards


def default_avatar(names: Iterable[str]) -> str:
    """The avatar shown when none is asked for: the first shipped one, or the first by name where it is missing."""
    known = sorted(names)
    return _FIRST_SHIPPED if _FIRST_SHIPPED in known else known[0]


def avatar_folder(directory: Path, name: str) -> Path:
    """The folder of an avatar asked for by name.

    Raises:
        NotFound: no such avatar, or a name that could leave ``directory``.
    """
    folder = directory / name if NAME_PATTERN.fullmatch(name) else None
    if folder is None or not (folder / CARD_FILE).is_file():
        known = ", ".join(list_avatars(directory)) or "none"
        raise NotFound("avatar_not_found", f"There is no avatar of this name; known avatars: {known}.")
    return folder


def load_avatar(folder: Path, pictures: PictureFiles | None = None) -> Avatar:
    """Reads, decodes and validates an avatar folder; takes about a second, so call it off the event loop.

    Args:
        folder: the avatar's.
        pictures: where its pictures are kept once they are decoded, mapped into memory; None decodes them into memory,
            as suits whoever goes through all of them once.

    Raises:
        AvatarInvalid: with a code and a sentence for whatever is missing or inconsistent.
    """
    card = read_card(folder)
    keys = ["landmarks", "boxes"]
    for name in card.clips:
        keys += [f"clip_{name}_landmarks", f"clip_{name}_boxes"]
    landmarks, boxes, *faces = read_faces(card.name, folder / FACES_FILE, keys)
    check_length(card.name, len(landmarks), card.size)
    rows = dict(zip(card.clips, zip(faces[::2], faces[1::2], strict=True), strict=True))
    check_clips(card.name, {name: len(rows[name][0]) for name in rows}, len(landmarks), card.size)
    frames = _decode(folder / IDLE_FILE, card.size, len(landmarks), pictures)
    clips = {
        name: Clip(
            _decode(_clip_file(folder, name), card.size, len(points), pictures), points, squares, card.clips[name]
        )
        for name, (points, squares) in rows.items()
    }
    own_model = folder / PICTURE_MODEL_FILE
    avatar = Avatar(
        card.name, card.title, card.size, card.licence, card.source, card.synthetic, card.consent,
        frames, landmarks, boxes, clips=MappingProxyType(clips),
        picture_model=own_model if own_model.is_file() else None, persona=card.persona, folder=folder,
    )  # fmt: skip
    _check(avatar)
    for array in (frames, landmarks, boxes, *faces, *(clip.frames for clip in clips.values())):
        array.flags.writeable = False
    return avatar


def write_avatar(folder: Path, avatar: Avatar, *, crf: int = 14) -> None:
    """Writes an avatar folder, creating it where needed; the card goes last, so a broken write is not listed.

    An avatar that is made anew stays who it was: one without a persona takes that of the folder it replaces.

    Args:
        folder: its name must be the avatar's.
        avatar: complete and consistent.
        crf: x264 quality; 14 is visually lossless at about 1 MB per 10 s of 512 x 512.

    Raises:
        AvatarInvalid: the avatar would not load again.
    """
    if not NAME_PATTERN.fullmatch(avatar.name) or folder.resolve().name != avatar.name:
        raise AvatarInvalid(
            "avatar_name_invalid",
            f"The avatar {avatar.name!r} must be named with a-z, 0-9, '-' and '_', and so must its folder.",
        )
    check_consent(avatar.name, avatar.synthetic, avatar.consent)
    check_size(avatar.name, *avatar.size)
    _check(avatar)
    card = AvatarCard(
        avatar.name, avatar.title, avatar.size, avatar.licence, avatar.source, avatar.synthetic, avatar.consent,
        {name: clip.loop for name, clip in avatar.clips.items()}, _persona(avatar, folder),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_FILE).unlink(missing_ok=True)
    for old in folder.glob("clip_*.mp4"):
        old.unlink()
    encode_loop(folder / IDLE_FILE, avatar.frames, crf)
    faces = {"landmarks": avatar.landmarks, "boxes": avatar.boxes}
    for name, clip in sorted(avatar.clips.items()):
        encode_loop(_clip_file(folder, name), clip.frames, crf)
        faces |= {f"clip_{name}_landmarks": clip.landmarks, f"clip_{name}_boxes": clip.boxes}
    arrays: dict[str, Any] = {key: rows.astype(np.float32) for key, rows in faces.items()}
    np.savez_compressed(folder / FACES_FILE, **arrays)
    (folder / CARD_FILE).write_text(card_text(card), "utf-8")


def _persona(avatar: Avatar, folder: Path) -> Persona:
    """That of an avatar, or of the folder that it replaces."""
    if avatar.persona == Persona():
        with suppress(AvatarInvalid):
            return read_card(folder).persona
    return avatar.persona


def _clip_file(folder: Path, name: str) -> Path:
    return folder / f"clip_{name}.mp4"


def _decode(path: Path, size: tuple[int, int], count: int, pictures: PictureFiles | None) -> np.ndarray:
    _require_file(path, MAX_VIDEO_BYTES)
    return decode_loop(path, size, count) if pictures is None else pictures.open(path, size, count)


def _check(avatar: Avatar) -> None:
    """Raises AvatarInvalid unless the idle loop and all clips are sound and fit each other."""
    name = avatar.name
    if avatar.fps != FPS:
        raise _invalid(name, "avatar_fps", f"the idle loop must have {FPS} pictures a second")
    if len(avatar.clips) > MAX_CLIPS:
        raise _invalid(name, "avatar_clips_size", f"there are {len(avatar.clips)} clips; {MAX_CLIPS} are allowed")
    check_clip_names(name, {clip: avatar.clips[clip].loop for clip in avatar.clips})
    check_length(name, len(avatar.frames), avatar.size)
    check_footage(name, "the idle loop", avatar.frames, avatar.landmarks, avatar.boxes, avatar.size)
    check_clips(name, {clip: len(avatar.clips[clip].frames) for clip in avatar.clips}, len(avatar.frames), avatar.size)
    for clip, footage in avatar.clips.items():
        check_footage(name, f"the clip {clip!r}", footage.frames, footage.landmarks, footage.boxes, avatar.size)
