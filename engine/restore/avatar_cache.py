"""Restored avatars on the disk, and single restored faces of those that are not finished.

Place in the flow: ``restore_pictures`` -> cache folder beside the weights -> the next start of the server.

    <weights>/avatars/<key>/<avatar name>/    a finished avatar, an avatar folder like any other
                      faces/<key>.png         restored faces of unfinished ones, removed when their avatar is finished

Invariants:
    * keys are hashes of contents: a changed picture, landmark or network never meets an old result;
    * files and folders are written under other names and then renamed, so what is there is complete;
    * a damaged entry counts as none and is made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from engine.avatar.bundle import Avatar, load_avatar, write_avatar
from engine.avatar.pictures import FOLDER, PictureFiles
from engine.errors import AvatarInvalid, BackendFailed, DiskFull

_VERSION = b"restored-1"
"""Changes when the same network and pictures would give another result."""
_CRF = 10
"""x264 quality; finer than avatars come in, for what was restored is detail."""
_WORK_PREFIX = ".new-"
# Writing an avatar takes seconds; a working folder of this age was left by a program that was killed.
_ABANDONED_S = 3600.0
_FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def face_key(picture: np.ndarray, landmarks: np.ndarray) -> str:
    """Key of one restored face: 32 hexadecimal digits."""
    return _digest([_VERSION, str(picture.shape).encode(), picture.tobytes(), landmarks.astype("<f4").tobytes()])


def avatar_key(avatar: Avatar, face_keys: Iterable[str]) -> str:
    """Key of a whole avatar: 32 hexadecimal digits.

    Args:
        avatar: whom.
        face_keys: of all its pictures, in their order.
    """
    clips = [f"{name} {len(avatar.clips[name].frames)} {avatar.clips[name].loop}" for name in sorted(avatar.clips)]
    card = [avatar.name, avatar.title, avatar.licence, avatar.source, str(avatar.synthetic), avatar.consent, *clips]
    boxes = avatar.all_boxes().astype("<f4").tobytes()
    return _digest([_VERSION, boxes, *(text.encode() + b"\0" for text in card), *(key.encode() for key in face_keys)])


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]


class AvatarCache:
    """The folder of one network.

    Args:
        folder: made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faces = folder / "faces"

    def avatar(self, key: str, original: Avatar) -> Avatar | None:
        """The finished avatar of this key, or None."""
        folder = self._folder / key / original.name
        if not folder.is_dir():
            return None
        try:
            found = load_avatar(folder, PictureFiles(folder / FOLDER))
        except AvatarInvalid:
            shutil.rmtree(folder.parent, ignore_errors=True)
            return None
        # The fitted picture network stays where it was: it belongs to the person, not to these pictures.
        return replace(found, picture_model=original.picture_model)

    def keep_avatar(self, key: str, avatar: Avatar) -> None:
        """Keeps a finished avatar.

        Raises:
            DiskFull, BackendFailed: it cannot be written; nothing is left of it then.
        """
        self._clean_up()
        work = self._folder / f"{_WORK_PREFIX}{secrets.token_hex(4)}"
        with _typed_errors(self._folder):
            try:
                write_avatar(work / avatar.name, avatar, crf=_CRF)
                # Whoever else finished the same avatar meanwhile made the same thing.
                with contextlib.suppress(OSError):
                    work.rename(self._folder / key)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def face(self, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The restored face of this key, (h, w, 3) uint8 BGR of this shape, or None."""
        try:
            stored = np.frombuffer((self._faces / f"{key}.png").read_bytes(), np.uint8)
        except OSError:
            return None
        picture = cv2.imdecode(stored, cv2.IMREAD_COLOR) if stored.size else None
        return picture if picture is not None and picture.shape == shape else None

    def keep_face(self, key: str, picture: np.ndarray) -> None:
        """Keeps a restored face until its avatar is finished.

        Raises:
            DiskFull, BackendFailed: it cannot be written.
        """
        path = self._faces / f"{key}.png"
        work = path.with_name(f".{key}-{secrets.token_hex(4)}")
        with _typed_errors(self._folder):
            self._faces.mkdir(parents=True, exist_ok=True)
            try:
                work.write_bytes(cv2.imencode(".png", picture, _FAST_PNG)[1].tobytes())
                work.replace(path)
            finally:
                work.unlink(missing_ok=True)

    def drop_faces(self, keys: Iterable[str]) -> None:
        """Removes faces whose avatar is finished."""
        with contextlib.suppress(OSError):
            for key in keys:
                (self._faces / f"{key}.png").unlink(missing_ok=True)
            self._faces.rmdir()

    def _clean_up(self) -> None:
        for work in self._folder.glob(f"{_WORK_PREFIX}*"):
            with contextlib.suppress(OSError):
                if time.time() - work.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(work)


@contextlib.contextmanager
def _typed_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("disk_full", f"No space is left for restored avatars in {folder}: make room.") from error
        raise BackendFailed(
            "restored_avatar_not_kept",
            f"Restored avatars cannot be kept in {folder} ({error.strerror or error}): make it writable.",
        ) from error
