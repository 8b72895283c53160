"""One stretch of an avatar's pictures with the face found in each: the idle loop's shape, and that of every clip.

Place in the flow: ``faces.npz`` -> ``read_faces`` -> ``check_footage`` -> ``Avatar``, ``Clip``.

Invariants:
    * pictures, landmarks and boxes of a checked stretch belong together, one row a picture;
    * a ``faces.npz`` never runs code and never unpacks to more than ``MAX_FACES_BYTES``.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.array_file import open_arrays
from engine.errors import AvatarInvalid
from engine.types import FPS

MIN_SIDE = 64
MAX_SIDE = 2160
MIN_FRAMES = 2
MAX_FRAMES = 60 * FPS
MIN_CLIP_FRAMES = FPS
"""A clip is eased in and out over ten pictures each; below a second nothing of it would be left."""
MAX_DECODED_BYTES = 1 << 30
"""Decoded, on the disk of a server or in the memory of a tool; a gibibyte is 52 s at 512 x 512. Clips count, too."""
MAX_FACES_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Something an avatar can do beside resting: a greeting, a nod, listening, thinking.

    It begins and ends near a pose of the idle loop, the lips closed.

    Attributes:
        frames: (N, H, W, 3) uint8 BGR, 25 pictures a second.
        landmarks: (N, 5, 2) float32 pixels, as in ``Avatar``.
        boxes: (N, 4) float32 face boxes (y1, y2, x1, x2) in pixels.
        loop: picture N-1 flows into picture 0, and it plays until something else is wanted; else it plays once.
    """

    frames: np.ndarray
    landmarks: np.ndarray
    boxes: np.ndarray
    loop: bool = False


def invalid(name: str, code: str, reason: str) -> AvatarInvalid:
    """The error that says why avatar ``name`` cannot be used."""
    return AvatarInvalid(code, f"Avatar {name!r} cannot be used: {reason}.")


def require_file(path: Path, limit_bytes: int) -> None:
    """Raises AvatarInvalid unless a file of an avatar's folder is there and neither empty nor too large."""
    name = path.parent.resolve().name
    if not path.is_file():
        raise invalid(name, "avatar_file_missing", f"{path.name} is missing")
    size = path.stat().st_size
    if size == 0 or size > limit_bytes:
        raise invalid(name, "avatar_file_size", f"{path.name} has {size} bytes; allowed are 1 to {limit_bytes}")


def read_faces(name: str, path: Path, keys: list[str]) -> list[np.ndarray]:
    """Arrays of a ``faces.npz`` by name, as float32.

    Args:
        name: the avatar's, for errors.
        path: the file.
        keys: names of the arrays.

    Raises:
        AvatarInvalid: ``avatar_file_missing``, ``avatar_file_size`` or ``avatar_faces_unreadable``.
    """
    require_file(path, MAX_FACES_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_FACES_BYTES:
                raise invalid(name, "avatar_file_size", f"{path.name} unpacks to more than {MAX_FACES_BYTES} bytes")
        with open_arrays(path) as arrays:
            return [arrays[key].astype(np.float32) for key in keys]
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, TypeError) as error:
        wanted = ", ".join(map(repr, keys))
        raise invalid(
            name, "avatar_faces_unreadable", f"{path.name} must hold the arrays {wanted} ({error})"
        ) from error


def check_size(name: str, width: int, height: int) -> None:
    """Raises AvatarInvalid (``avatar_size``) for sides that are odd, too small or too large."""
    if any(side % 2 or not MIN_SIDE <= side <= MAX_SIDE for side in (width, height)):
        raise invalid(name, "avatar_size", f"width and height must be even and within {MIN_SIDE} to {MAX_SIDE}")


def check_length(name: str, count: int, size: tuple[int, int]) -> None:
    """Raises AvatarInvalid (``avatar_length``) unless an idle loop of ``count`` pictures is usable."""
    if not MIN_FRAMES <= count <= MAX_FRAMES or count * size[0] * size[1] * 3 > MAX_DECODED_BYTES:
        raise invalid(name, "avatar_length", f"{count} pictures, not {MIN_FRAMES} to {MAX_FRAMES} within 1 GiB")


def check_clips(name: str, counts: dict[str, int], idle_count: int, size: tuple[int, int]) -> None:
    """Raises AvatarInvalid unless clips of so many pictures each are usable beside the idle loop.

    Args:
        name: the avatar's, for errors.
        counts: pictures of each clip, by its name.
        idle_count: pictures of the idle loop.
        size: (width, height) of all of them.

    Raises:
        AvatarInvalid: ``avatar_clip_length`` or ``avatar_clips_size``.
    """
    for clip, count in counts.items():
        if not MIN_CLIP_FRAMES <= count <= MAX_FRAMES:
            raise invalid(
                name,
                "avatar_clip_length",
                f"the clip {clip!r} has {count} pictures, not {MIN_CLIP_FRAMES} to {MAX_FRAMES}",
            )
    if (idle_count + sum(counts.values())) * size[0] * size[1] * 3 > MAX_DECODED_BYTES:
        raise invalid(
            name, "avatar_clips_size", "the idle loop and all clips together take more than 1 GiB; shorten them"
        )


def check_footage(
    name: str, what: str, frames: np.ndarray, landmarks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]
) -> None:
    """Raises AvatarInvalid unless pictures, landmarks and boxes are sound and fit each other.

    Args:
        name: the avatar's, for errors.
        what: of which stretch this is, for errors.
        frames: (N, H, W, 3) uint8 BGR.
        landmarks: (N, 5, 2) pixels.
        boxes: (N, 4) y1, y2, x1, x2 in pixels.
        size: (width, height) as the card says.

    Raises:
        AvatarInvalid: ``avatar_frames``, ``avatar_size``, ``avatar_faces_shape`` or ``avatar_faces_values``.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise invalid(name, "avatar_frames", f"pictures of {what} must be (N, H, W, 3) uint8")
    count, height, width = frames.shape[:3]
    if (width, height) != size:
        raise invalid(name, "avatar_size", f"pictures of {what} are {width} x {height}, the card says {size}")
    if landmarks.shape != (count, 5, 2) or boxes.shape != (count, 4):
        raise invalid(
            name,
            "avatar_faces_shape",
            f"{count} pictures of {what} need landmarks ({count}, 5, 2) and boxes ({count}, 4), "
            f"but there are {landmarks.shape} and {boxes.shape}",
        )
    if not (np.isfinite(landmarks).all() and np.isfinite(boxes).all()):
        raise invalid(name, "avatar_faces_values", f"landmarks and boxes of {what} must be finite numbers")
    x, y = landmarks[..., 0], landmarks[..., 1]
    if (x < 0).any() or (x >= width).any() or (y < 0).any() or (y >= height).any():
        raise invalid(name, "avatar_faces_values", f"every landmark of {what} must lie inside the picture")
    if (x[:, 0] >= x[:, 1]).any() or (x[:, 3] >= x[:, 4]).any() or (y[:, 3:].min(1) <= y[:, :2].max(1)).any():
        raise invalid(
            name,
            "avatar_faces_values",
            f"landmarks of {what} must be in the order left eye, right eye, nose, mouth left, mouth right",
        )
    y1, y2, x1, x2 = boxes.T
    if (y2 - y1 < 8).any() or (x2 - x1 < 8).any() or (y1 >= height).any() or (x1 >= width).any():
        raise invalid(
            name, "avatar_faces_values", f"face boxes of {what} must be (y1, y2, x1, x2), at least 8 pixels wide"
        )
