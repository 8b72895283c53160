"""The folder a server's studio works in: uploads and half-made avatars, which nobody else sees and which end with it.

Place in the flow: ``Workplace.open_job`` -> upload, worker -> ``install`` moves the finished folder to the avatars.

Invariants:
    * avatars appear and disappear by one rename, so that there is never half of one, whenever the power goes;
    * each running server has a folder of its own, held by a lock: what a server that ended left behind is swept away
      by the next one, and what a running one works on is not;
    * names in here are random; nothing of an upload is in them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import threading
import time
from pathlib import Path

from engine.errors import BackendFailed, DiskFull, InvalidInput

SPARE_BYTES = 300_000_000
"""Room on the disk that must remain after an upload, for what is made of it and for everybody else."""

_LOCK = "lock"
_BIRTH_S = 60.0
"""Younger than this, a folder without a lock may be one that another server is just making."""


class Workplace:
    """Where one server makes avatars. Blocking; use it on threads.

    Attributes:
        made_dir: the avatars that were made, beside the workplace, on the same file system.
    """

    def __init__(self, data_dir: Path) -> None:
        """Args: data_dir: of the server; nothing is written before the first job."""
        self.made_dir = data_dir / "avatars"
        self._all = data_dir / "studio"
        self._own: Path | None = None
        self._lock = -1
        self._opening = threading.Lock()

    def sweep(self) -> int:
        """Removes what servers that have ended left behind; returns how many folders that were."""
        swept = 0
        with contextlib.suppress(OSError):
            for folder in list(self._all.iterdir()):
                if folder == self._own or not folder.is_dir() or folder.is_symlink():
                    continue
                if folder.name.startswith(".") and time.time() - folder.stat().st_mtime < _BIRTH_S:
                    continue
                lock = _lock(folder / _LOCK)
                if lock < 0:
                    continue
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
                swept += 1
        return swept

    def open_job(self, upload_bytes: int) -> Path:
        """A new, empty folder.

        Args:
            upload_bytes: about to be written there.

        Raises:
            DiskFull: ``disk_full``.
            BackendFailed: ``data_dir_unwritable``.
        """
        try:
            own = self._open()
            if shutil.disk_usage(own).free < upload_bytes + SPARE_BYTES:
                raise disk_full()
            folder = own / secrets.token_hex(8)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise _unwritable(self._all.parent, error) from error
        return folder

    def install(self, made: Path) -> None:
        """Moves a finished avatar to the others.

        Args:
            made: a folder inside one of ``open_job``'s; its name is the avatar's.

        Raises:
            InvalidInput: ``avatar_exists``.
            BackendFailed: ``data_dir_unwritable``.
        """
        try:
            self.made_dir.mkdir(parents=True, exist_ok=True)
            # A folder that is there and not empty makes this fail.
            made.rename(self.made_dir / made.name)
            _flush(self.made_dir)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise InvalidInput("avatar_exists", "There is an avatar of this name already.") from error
            raise _unwritable(self.made_dir, error) from error

    def remove(self, name: str) -> None:
        """Deletes an avatar that was made here.

        Args:
            name: of a known one.

        Raises:
            BackendFailed: ``data_dir_unwritable``.
        """
        try:
            grave = self._open() / secrets.token_hex(8)
            with contextlib.suppress(FileNotFoundError):
                (self.made_dir / name).rename(grave)
            _flush(self.made_dir)
        except OSError as error:
            raise _unwritable(self.made_dir, error) from error
        shutil.rmtree(grave, ignore_errors=True)

    def close_job(self, folder: Path) -> None:
        """Removes a folder of ``open_job``; idempotent."""
        shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Removes the workplace; idempotent."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            os.close(self._lock)
            self._own = None

    def _open(self) -> Path:
        with self._opening:
            if self._own is None or not self._own.is_dir():
                # Hidden until it is locked, so that no other server takes it for an abandoned one.
                own = self._all / secrets.token_hex(8)
                self._all.mkdir(parents=True, exist_ok=True, mode=0o700)
                hidden = own.with_name(f".{own.name}")
                hidden.mkdir(mode=0o700)
                self._lock = _lock(hidden / _LOCK)
                hidden.rename(own)
                self._own = own
            return self._own


def _lock(path: Path) -> int:
    """The descriptor of a file that is locked by it, or -1 when somebody else has locked it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return -1
    return descriptor


def _flush(folder: Path) -> None:
    """Has the names in a folder written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_full() -> DiskFull:
    """What to raise when the disk is full."""
    return DiskFull("disk_full", "There is no room on the server's disk. Delete something and try again.")


def _unwritable(folder: Path, error: OSError) -> DiskFull | BackendFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full()
    return BackendFailed(
        "data_dir_unwritable", f"The server cannot write to its folder {folder.name}: {error.strerror}. See data_dir."
    )
