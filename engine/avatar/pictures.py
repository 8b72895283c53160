"""Decoded pictures of avatars in files that are mapped into memory: as exact as decoded, and hardly any of it resident.

Place in the flow: ``idle.mp4``, ``clip_*.mp4`` -> ``PictureFiles.open`` -> ``Avatar.frames``; a model's crops of all
pictures -> ``beside`` -> what it prepared.

A minute of 512 x 512 is 1.2 GB decoded. It is decoded once and kept in a file; every process of the machine that shows
the avatar maps that file, so that the system's page cache holds it once for all, and drops it when memory is short.
A process keeps the pages of the pictures it showed last and gives older ones back, which costs it some microseconds
when they are shown again.

Invariants:
    * a picture is bit for bit what decoding the video gives;
    * ``RESIDENT`` bounds the pages of all mapped pictures of a process together, however many sessions and avatars;
    * a file appears complete or not at all, its name says what it was made of, and nobody writes to it again;
    * where no file can be kept, pictures are in memory as they are, and the log says so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import logging
import mmap
import os
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.avatar.video import decode_loop, read_loop

RESIDENT_BYTES = 48 << 20
"""Pages of mapped pictures that stay with a process: 61 pictures of 512 x 512."""
DISK_BYTES = 6 << 30
"""What one folder may hold; the files unused for longest go first. Sixteen avatars like the shipped ones."""
FREE_BYTES = 1 << 30
"""Room on the disk that is left to others."""

FOLDER = "pictures"
"""Below an avatar's own folder, where what is made of it must go when it goes."""

_VERSION = b"pictures-1"
"""Changes when the same video would give other bytes."""
_SUFFIX, _PARTIAL = ".bgr", ".partial"
# Decoding takes seconds; a partial file of this age was left by a process that was killed.
_ABANDONED_S = 3600.0

_log = logging.getLogger(__name__)


class Resident:
    """Which mapped pictures have pages in this process; the ones shown longest ago give theirs back.

    Args:
        limit_bytes: of all together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._held: OrderedDict[tuple[int, int], tuple[weakref.ref[_Mapping], int]] = OrderedDict()
        self._bytes = 0
        # The collector may call ``forget`` in the middle of ``touch``.
        self._lock = threading.RLock()

    @property
    def bytes(self) -> int:
        """Of all pictures that were shown and not given back."""
        with self._lock:
            return self._bytes

    def touch(self, mapping: _Mapping, index: int) -> None:
        """Notes that a picture is about to be read."""
        key = mapping.serial, index
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return
            self._held[key] = mapping.reference, mapping.stride
            self._bytes += mapping.stride
            while self._bytes > self.limit_bytes and len(self._held) > 1:
                (_, old), (reference, stride) = self._held.popitem(last=False)
                self._bytes -= stride
                if (other := reference()) is not None:
                    other.give_back(old)

    def forget(self, serial: int, stride: int) -> None:
        """Takes out all pictures of a mapping that is gone."""
        with self._lock:
            gone = [key for key in self._held if key[0] == serial]
            for key in gone:
                del self._held[key]
            self._bytes -= stride * len(gone)


RESIDENT = Resident(RESIDENT_BYTES)
"""Those of this process."""

_serials = itertools.count()


class _Mapping:
    """A file of equally large pictures, mapped; each begins a page of its own."""

    def __init__(self, file: IO[bytes], count: int, stride: int) -> None:
        self.serial, self.count, self.stride = next(_serials), count, stride
        self.memory = mmap.mmap(file.fileno(), count * stride, prot=mmap.PROT_READ)
        self.folder = Path(file.name).parent if isinstance(file.name, str) else None
        self.reference = weakref.ref(self)

    def give_back(self, index: int) -> None:
        self.memory.madvise(mmap.MADV_DONTNEED, index * self.stride, self.stride)


class MappedPictures(np.ndarray[Any, np.dtype[np.uint8]]):
    """(N, H, W, C) uint8 pictures in a mapped file, read-only; ``pictures[index]`` is what keeps memory bounded.

    A slice or a sum over all of them works as with any array, and has all of them resident while it does.
    """

    _mapping: _Mapping | None

    def __array_finalize__(self, parent: object) -> None:
        # Views and copies are plain arrays in disguise: only the whole knows where its pictures are.
        self._mapping = None

    def __getitem__(self, key: Any) -> Any:
        mapping = self._mapping
        if mapping is None or not isinstance(key, (int, np.integer)):
            return super().__getitem__(key)
        picture = super().__getitem__(key).view(np.ndarray)
        RESIDENT.touch(mapping, int(key) % mapping.count)
        return picture


def memory_bytes(pictures: np.ndarray) -> int:
    """What pictures take of this process's memory for as long as they are there: nothing when they are mapped."""
    return 0 if _mapping_of(pictures) is not None else pictures.nbytes


def beside(pictures: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Keeps what was cut out of pictures the way the pictures are kept.

    Args:
        pictures: an avatar's.
        crops: (N, h, w, C) uint8.

    Returns:
        ``crops`` themselves, or mapped in a file that goes with the last reference.
    """
    mapping = _mapping_of(pictures)
    if mapping is None or mapping.folder is None:
        return crops
    try:
        with tempfile.TemporaryFile(dir=mapping.folder, buffering=0) as file:
            _write(file, crops, _stride(crops[0].nbytes))
            return _mapped(file, crops.shape)
    except OSError as error:
        _log.warning("what was cut out of an avatar's pictures stays in memory: %s", error)
        return crops


class PictureFiles:
    """A folder of decoded pictures.

    Args:
        folder: made when something is kept.
        limit_bytes: what it may hold.
    """

    def __init__(self, folder: Path, limit_bytes: int = DISK_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def open(self, video: Path, size: tuple[int, int], count: int) -> np.ndarray:
        """The pictures of a video, decoded unless they were before.

        Args:
            video: an mp4 file of an avatar.
            size: (width, height) it must have.
            count: pictures it must have.

        Returns:
            (count, height, width, 3) uint8 BGR, read-only; in memory where no file can be kept.

        Raises:
            AvatarInvalid: as ``decode_loop``.
        """
        width, height = size
        stride = _stride(width * height * 3)
        try:
            path = self._folder / f"{_digest(video, size, count)}{_SUFFIX}"
            with self._locked():
                # Several processes that start together decode once.
                if not path.is_file() or path.stat().st_size != stride * count:
                    self._make(path, read_loop(video, size, count), stride, count)
                os.utime(path)
                with path.open("rb", buffering=0) as file:
                    if hasattr(os, "posix_fadvise"):
                        # What the system does not hold is read now, not when it is shown.
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
                    return _mapped(file, (count, height, width, 3))
        except OSError as error:
            _log.warning(
                "the pictures of %s stay in memory, for they cannot be kept in %s (%s): free some room there",
                video.parent.name, self._folder, error.strerror or error,
            )  # fmt: skip
            pictures = decode_loop(video, size, count)
            pictures.flags.writeable = False
            return pictures

    def _make(self, path: Path, pictures: Iterable[np.ndarray], stride: int, count: int) -> None:
        self._make_room(stride * count)
        partial = path.with_name(f"{path.stem}-{secrets.token_hex(4)}{_PARTIAL}")
        try:
            with partial.open("wb", buffering=0) as file:
                os.fchmod(file.fileno(), 0o600)
                _write(file, pictures, stride)
                # A name that outlives a power cut must not outlive the contents.
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, wanted_bytes: int) -> None:
        """Removes what was unused for longest. Raises OSError where even an empty folder has no room."""
        for partial in self._folder.glob(f"*{_PARTIAL}"):
            with contextlib.suppress(OSError):
                if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                    partial.unlink()
        files = ((path, path.stat()) for path in self._folder.glob(f"*{_SUFFIX}"))
        kept = sorted((stat.st_mtime, stat.st_size, path) for path, stat in files)
        held = sum(size for _, size, _ in kept)
        while kept and (held + wanted_bytes > self._limit_bytes or self._free() < wanted_bytes + FREE_BYTES):
            _, size, entry = kept.pop(0)
            entry.unlink(missing_ok=True)
            held -= size
        if wanted_bytes > self._limit_bytes or self._free() < wanted_bytes + FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _digest(video: Path, size: tuple[int, int], count: int) -> str:
    digest = hashlib.sha256(_VERSION + f" {size} {count} ".encode())
    digest.update(video.read_bytes())
    return digest.hexdigest()[:32]


def _stride(picture_bytes: int) -> int:
    """Bytes from one picture to the next: whole pages, so that each can be given back alone."""
    return -(-picture_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _write(file: IO[bytes], pictures: Iterable[np.ndarray], stride: int) -> None:
    for picture in pictures:
        data = picture.tobytes().ljust(stride, b"\0")
        while data:
            data = data[file.write(data) :]


def _mapped(file: IO[bytes], shape: tuple[int, ...]) -> MappedPictures:
    count, height, width, channels = shape
    stride = _stride(height * width * channels)
    mapping = _Mapping(file, count, stride)
    strides = (stride, width * channels, channels, 1)
    pictures = np.ndarray(shape, np.uint8, mapping.memory, strides=strides).view(MappedPictures)
    pictures._mapping = mapping
    weakref.finalize(mapping, RESIDENT.forget, mapping.serial, stride).atexit = False
    return pictures


def _mapping_of(pictures: np.ndarray) -> _Mapping | None:
    return pictures._mapping if isinstance(pictures, MappedPictures) else None
