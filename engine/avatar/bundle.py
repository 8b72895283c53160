"""Avatar folders on disk: reads and validates them, writes them.

Place in the flow: studio or photo preparation -> folder -> ``load_avatar`` -> ``LipSync.prepare``, idle pictures.

A folder ``avatars/<name>/`` holds three files and nothing that could run code:
    * ``avatar.toml``: title, fps, size, licence, source, synthetic, consent;
    * ``idle.mp4``: the idle loop, H.264 yuv420p, BT.709 limited range, 25 fps;
    * ``faces.npz``: ``landmarks`` (N, 5, 2) float32 and ``boxes`` (N, 4) float32, one row per frame.

Invariants:
    * the folder's name is the avatar's name;
    * an avatar shows a synthetic person, or names the consent of the real one;
    * a loaded avatar is complete and consistent: whoever holds one need not check again;
    * pictures are read-only, since every session of a server shares them.
"""

from __future__ import annotations

import json
import logging
import re
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.avatar.video import decode_loop, encode_loop
from engine.errors import AvatarInvalid, NotFound
from engine.types import FPS

CARD_FILE = "avatar.toml"
IDLE_FILE = "idle.mp4"
FACES_FILE = "faces.npz"

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

MIN_SIDE = 64
MAX_SIDE = 2160
MIN_FRAMES = 2
MAX_FRAMES = 60 * FPS
MAX_DECODED_BYTES = 1 << 30
"""Pictures stay decoded in memory; a gibibyte is 52 s at 512 x 512 and already generous."""
MAX_VIDEO_BYTES = 256 << 20
MAX_FACES_BYTES = 4 << 20
MAX_CARD_BYTES = 64 << 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AvatarCard:
    """What a list of avatars shows; read without decoding a picture.

    Attributes:
        name: folder name, ``[a-z0-9][a-z0-9_-]{0,63}``.
        title: for people.
        size: (width, height) in pixels, both even.
        licence: of the pictures, e.g. ``CC0-1.0``.
        source: where the pictures come from, one sentence.
        synthetic: True when no real person is shown.
        consent: how the shown person agreed; may be empty only for synthetic avatars.
    """

    name: str
    title: str
    size: tuple[int, int]
    licence: str
    source: str
    synthetic: bool
    consent: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Avatar:
    """A talking head at rest: the pictures speech is pasted onto, and where the face is in each.

    Attributes:
        name, title, size, licence, source, synthetic, consent: as in ``AvatarCard``.
        frames: (N, H, W, 3) uint8 BGR idle loop; frame N-1 flows into frame 0.
        landmarks: (N, 5, 2) float32 pixels (x, y): left eye (image left), right eye, nose tip,
            mouth corner (image left), mouth corner (image right).
        boxes: (N, 4) float32 face boxes (y1, y2, x1, x2) in pixels.
        fps: pictures a second, always 25.
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


def read_card(folder: Path) -> AvatarCard:
    """Reads and checks ``avatar.toml``.

    Raises:
        AvatarInvalid: the file is missing, malformed, or lacks what an avatar must state.
    """
    name = folder.resolve().name
    if not NAME_PATTERN.fullmatch(name):
        raise AvatarInvalid(
            "avatar_name_invalid",
            f"The avatar folder {name!r} must be named with a-z, 0-9, '-' and '_', at most 64 characters.",
        )
    path = folder / CARD_FILE
    _require_file(path, MAX_CARD_BYTES)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(name, "avatar_card_malformed", f"{CARD_FILE} is not valid TOML ({error})") from error

    def text(key: str, *, required: bool = True) -> str:
        value = table.get(key, "")
        if not isinstance(value, str) or (required and not value.strip()):
            raise _invalid(name, "avatar_card_incomplete", f"{CARD_FILE} needs {key!r} as a text")
        return value.strip()

    size = table.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise _invalid(name, "avatar_card_incomplete", f"{CARD_FILE} needs 'size' as [width, height]")
    width, height = size
    _check_size(name, width, height)
    if table.get("fps") != FPS:
        raise _invalid(name, "avatar_fps", f"the idle loop must have {FPS} pictures a second ('fps = {FPS}')")
    synthetic = table.get("synthetic")
    if not isinstance(synthetic, bool):
        raise _invalid(name, "avatar_card_incomplete", f"{CARD_FILE} needs 'synthetic' as true or false")
    consent = text("consent", required=False)
    _check_consent(name, synthetic, consent)
    return AvatarCard(name, text("title"), (width, height), text("licence"), text("source"), synthetic, consent)


def load_avatar(folder: Path) -> Avatar:
    """Reads, decodes and validates an avatar folder; takes about a second, so call it off the event loop.

    Raises:
        AvatarInvalid: with a code and a sentence for whatever is missing or inconsistent.
    """
    card = read_card(folder)
    landmarks, boxes = _read_faces(card.name, folder / FACES_FILE)
    _require_file(folder / IDLE_FILE, MAX_VIDEO_BYTES)
    _check_length(card.name, len(landmarks), card.size)
    frames = decode_loop(folder / IDLE_FILE, card.size, len(landmarks))
    avatar = Avatar(
        card.name, card.title, card.size, card.licence, card.source, card.synthetic, card.consent,
        frames, landmarks, boxes,
    )  # fmt: skip
    _check(avatar)
    for array in (frames, landmarks, boxes):
        array.flags.writeable = False
    return avatar


def write_avatar(folder: Path, avatar: Avatar, *, crf: int = 14) -> None:
    """Writes an avatar folder, creating it where needed; the card goes last, so a broken write is not listed.

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
    _check_consent(avatar.name, avatar.synthetic, avatar.consent)
    _check_size(avatar.name, *avatar.size)
    _check(avatar)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_FILE).unlink(missing_ok=True)
    encode_loop(folder / IDLE_FILE, avatar.frames, crf)
    np.savez_compressed(
        folder / FACES_FILE,
        landmarks=avatar.landmarks.astype(np.float32),
        boxes=avatar.boxes.astype(np.float32),
    )
    width, height = avatar.size
    lines = [
        f"title = {_toml(avatar.title)}",
        f"fps = {avatar.fps}",
        f"size = [{width}, {height}]",
        f"licence = {_toml(avatar.licence)}",
        f"source = {_toml(avatar.source)}",
        f"synthetic = {str(avatar.synthetic).lower()}",
    ]
    if avatar.consent:
        lines.append(f"consent = {_toml(avatar.consent)}")
    (folder / CARD_FILE).write_text("\n".join(lines) + "\n", "utf-8")


def _toml(text: str) -> str:
    # A JSON string is a TOML basic string, save for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _invalid(name: str, code: str, reason: str) -> AvatarInvalid:
    return AvatarInvalid(code, f"Avatar {name!r} cannot be used: {reason}.")


def _require_file(path: Path, limit_bytes: int) -> None:
    name = path.parent.resolve().name
    if not path.is_file():
        raise _invalid(name, "avatar_file_missing", f"{path.name} is missing")
    size = path.stat().st_size
    if size == 0 or size > limit_bytes:
        raise _invalid(name, "avatar_file_size", f"{path.name} has {size} bytes; allowed are 1 to {limit_bytes}")


def _check_size(name: str, width: int, height: int) -> None:
    if any(side % 2 or not MIN_SIDE <= side <= MAX_SIDE for side in (width, height)):
        raise _invalid(name, "avatar_size", f"width and height must be even and within {MIN_SIDE} to {MAX_SIDE}")


def _check_length(name: str, count: int, size: tuple[int, int]) -> None:
    if not MIN_FRAMES <= count <= MAX_FRAMES or count * size[0] * size[1] * 3 > MAX_DECODED_BYTES:
        raise _invalid(name, "avatar_length", f"{count} pictures, not {MIN_FRAMES} to {MAX_FRAMES} within 1 GiB")


def _check_consent(name: str, synthetic: bool, consent: str) -> None:
    if not synthetic and not consent.strip():
        raise _invalid(
            name, "avatar_consent_missing", "a real person is shown, so 'consent' must say how they agreed"
        )


def _check(avatar: Avatar) -> None:
    """Raises AvatarInvalid unless pictures, landmarks and boxes fit each other."""
    name, frames = avatar.name, avatar.frames
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise _invalid(name, "avatar_frames", "pictures must be (N, H, W, 3) uint8")
    count, height, width = frames.shape[:3]
    if avatar.fps != FPS:
        raise _invalid(name, "avatar_fps", f"the idle loop must have {FPS} pictures a second")
    if (width, height) != avatar.size:
        raise _invalid(name, "avatar_size", f"pictures are {width} x {height}, the card says {avatar.size}")
    _check_length(name, count, avatar.size)
    if avatar.landmarks.shape != (count, 5, 2) or avatar.boxes.shape != (count, 4):
        raise _invalid(
            name,
            "avatar_faces_shape",
            f"{count} pictures need landmarks ({count}, 5, 2) and boxes ({count}, 4), "
            f"but there are {avatar.landmarks.shape} and {avatar.boxes.shape}",
        )
    if not (np.isfinite(avatar.landmarks).all() and np.isfinite(avatar.boxes).all()):
        raise _invalid(name, "avatar_faces_values", "landmarks and boxes must be finite numbers")
    x, y = avatar.landmarks[..., 0], avatar.landmarks[..., 1]
    if (x < 0).any() or (x >= width).any() or (y < 0).any() or (y >= height).any():
        raise _invalid(name, "avatar_faces_values", "every landmark must lie inside the picture")
    if (x[:, 0] >= x[:, 1]).any() or (x[:, 3] >= x[:, 4]).any() or (y[:, 3:].min(1) <= y[:, :2].max(1)).any():
        raise _invalid(
            name,
            "avatar_faces_values",
            "landmarks must be in the order left eye, right eye, nose, mouth left, mouth right",
        )
    y1, y2, x1, x2 = avatar.boxes.T
    if (y2 - y1 < 8).any() or (x2 - x1 < 8).any() or (y1 >= height).any() or (x1 >= width).any():
        raise _invalid(name, "avatar_faces_values", "face boxes must be (y1, y2, x1, x2), at least 8 pixels wide")


def _read_faces(name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    _require_file(path, MAX_FACES_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_FACES_BYTES:
                raise _invalid(name, "avatar_file_size", f"{FACES_FILE} unpacks to more than {MAX_FACES_BYTES} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["landmarks"].astype(np.float32), arrays["boxes"].astype(np.float32)
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, TypeError) as error:
        raise _invalid(
            name, "avatar_faces_unreadable", f"{FACES_FILE} must hold the arrays 'landmarks' and 'boxes' ({error})"
        ) from error
