"""An avatar's matte as a file, and in memory: one small grey picture for each picture of the avatar.

Place in the flow: ``mattes`` -> ``write_matte`` -> file -> ``read_matte`` -> ``Matte.at`` for the frames of a session.

On disk it is an H.264 video, because the pictures hardly differ: a few hundred kilobytes. In memory each picture is a
JPEG, because frames are asked for in any order: some megabytes instead of a hundred.

Invariants:
    * a file says of which footage it is the matte, and is worth nothing for any other;
    * a file is there completely or not at all;
    * the matte moves exactly as the picture does: through a cross-fade, and when the head leans in.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError

from engine.avatar.body import Pose
from engine.avatar.bundle import IDLE_FILE, Avatar
from engine.avatar.head_move import cross_fade, lean
from engine.errors import AvatarInvalid, DiskFull
from engine.picture import add_h264, to_yuv

MATTE_FILE = "matte.mp4"
"""In an avatar's folder, where it comes with its matte."""

_VERSION = "1"
_MARK = "comment"
_CRF = 21
_FULL_RANGE = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
_JPEG_QUALITY = 92


class Matte:
    """The matte of one avatar.

    Args:
        avatar: whose; its pictures are not kept.
        pictures: a JPEG for each of its pictures, in their order.

    Attributes:
        size_bytes: memory its pictures take.
    """

    def __init__(self, avatar: Avatar, pictures: list[bytes]) -> None:
        self._landmarks = avatar.all_landmarks()
        self._usual = avatar.landmarks.mean(0)
        self._pictures = pictures
        self.size_bytes = sum(map(len, pictures))

    def picture(self, index: int) -> np.ndarray:
        """(H, W) uint8 matte of picture number ``index`` of all; takes about a millisecond."""
        matte = cv2.imdecode(np.frombuffer(self._pictures[index], np.uint8), cv2.IMREAD_GRAYSCALE)
        assert matte is not None, "it was encoded here"
        return matte

    def at(self, pose: Pose) -> np.ndarray:
        """(H, W) uint8 matte of a frame in which the body is as ``pose`` says."""
        matte, landmarks = self.picture(pose.index), self._landmarks[pose.index]
        if pose.other is not None:
            other = self.picture(pose.other)
            matte = cross_fade(matte, landmarks, other, self._landmarks[pose.other], pose.weight)
        return lean(matte, self._usual, pose.lean) if pose.lean else matte


def footage_digest(folder: Path) -> str:
    """What tells the footage in an avatar's folder from any other.

    Raises:
        AvatarInvalid: ``avatar_video_unreadable``.
    """
    digest = hashlib.sha256(_VERSION.encode())
    try:
        for path in [folder / IDLE_FILE, *sorted(folder.glob("clip_*.mp4"))]:
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    except OSError as error:
        raise AvatarInvalid(
            "avatar_video_unreadable", f"The footage of {folder.resolve().name!r} cannot be read."
        ) from error
    return digest.hexdigest()[:32]


def write_matte(path: Path, pictures: Iterable[np.ndarray], size: tuple[int, int], digest: str) -> None:
    """Writes a file.

    Args:
        path: mp4, replaced once the new one is complete; its folder is made.
        pictures: (H, W) uint8 each.
        size: (width, height), both even.
        digest: ``footage_digest`` of the footage.

    Raises:
        DiskFull: it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with av.open(str(partial), "w", format="mp4") as container:
                container.metadata[_MARK] = digest
                stream = add_h264(container, size, crf=_CRF, preset="slow")
                for index, matte in enumerate(pictures):
                    container.mux(stream.encode(to_yuv(cv2.cvtColor(matte, cv2.COLOR_GRAY2BGR), index)))
                container.mux(stream.encode(None))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise DiskFull("disk_full", f"{path} cannot be written: {error.strerror or 'the disk is full'}.") from error


def is_matte_of(path: Path, digest: str) -> bool:
    """Whether a file is there and is the matte of the footage with that digest."""
    try:
        with av.open(str(path), format="mp4") as container:
            return container.metadata.get(_MARK) == digest
    except (FFmpegError, OSError):
        return False


def read_matte(path: Path, avatar: Avatar) -> Matte:
    """Reads the matte of an avatar; takes about a second, so call it off the event loop.

    Raises:
        AvatarInvalid: ``matte_unreadable``.
    """
    pictures: list[bytes] = []
    try:
        with av.open(str(path), format="mp4") as container:
            for frame in container.decode(video=0):
                if (frame.width, frame.height) != avatar.size or len(pictures) >= avatar.picture_count:
                    break
                _, jpeg = cv2.imencode(".jpg", _grey(frame), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
                pictures.append(jpeg.tobytes())
    except (FFmpegError, OSError) as error:
        raise _unreadable(avatar.name) from error
    if len(pictures) != avatar.picture_count:
        raise _unreadable(avatar.name)
    return Matte(avatar, pictures)


def first_matte(path: Path, name: str) -> np.ndarray:
    """(H, W) uint8 matte of the first picture of the avatar called ``name``, without reading the others.

    Raises:
        AvatarInvalid: ``matte_unreadable``.
    """
    try:
        with av.open(str(path), format="mp4") as container:
            return _grey(next(container.decode(video=0)))
    except (FFmpegError, OSError, StopIteration) as error:
        raise _unreadable(name) from error


def _grey(frame: av.VideoFrame) -> np.ndarray:
    """(H, W) uint8 of a grey picture in limited range; the colours need not be worked out."""
    plane = frame.planes[0]
    rows = np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)
    return cv2.LUT(np.ascontiguousarray(rows[: frame.height, : frame.width]), _FULL_RANGE)


def _unreadable(name: str) -> AvatarInvalid:
    return AvatarInvalid(
        "matte_unreadable", f"The matte of {name!r} cannot be read. Make it again: python -m engine avatar matte {name}"
    )
