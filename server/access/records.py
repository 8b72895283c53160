"""Lists that outlive the server, each in a file of its own that only its owner may read.

Place in the flow: commands change a list -> file in ``data_dir`` -> a running server reads it when it has changed.

Invariants:
    * a file is replaced whole or not at all, and two commands never lose each other's change;
    * a file that cannot be read lets nobody in, and is never overwritten.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from engine.errors import ConfigInvalid

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
"""When a file that could not be read is tried again, changed or not: what was wrong may lie around it."""

R = TypeVar("R", bound=BaseModel)


class Records(Generic[R]):
    """A list of records in a JSON file; an absent file is an empty list."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        """Args: path: the file; kind: what it holds."""
        self._path = path
        self._adapter = TypeAdapter(list[kind])  # type: ignore[valid-type]
        self._seen: tuple[int, ...] | None = None
        self._again_s = math.inf
        self._records: list[R] = []

    def current(self) -> list[R]:
        """The list as it is now; empty, with a line in the log, when the file cannot be read. Costs one ``stat``."""
        try:
            found = self._path.stat()
            # The last one tells of new permissions too.
            stamp: tuple[int, ...] = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)
        except OSError:
            stamp = ()
        if stamp != self._seen or time.monotonic() >= self._again_s:
            self._seen, self._again_s = stamp, math.inf
            try:
                self._records = self.load()
            except ConfigInvalid as error:
                self._records = []
                self._again_s = time.monotonic() + AGAIN_S
                logger.error("%s", error.message)
        return self._records

    def load(self) -> list[R]:
        """The list as it is now.

        Raises:
            ConfigInvalid: ``access_file_unreadable``.
        """
        try:
            return self._adapter.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its content is not what was written"
            raise ConfigInvalid(
                "access_file_unreadable", f"{self._path} cannot be read: {reason}. Mend it or move it away."
            ) from error

    @contextmanager
    def changing(self) -> Iterator[list[R]]:
        """The list, to be changed in place; it is written when the block ends without an error.

        Raises:
            ConfigInvalid: ``access_file_unreadable``, ``access_file_unwritable``.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self._path.with_suffix(".lock"), "a", opener=_private) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                records = self.load()
                yield records
                self._replace(self._adapter.dump_json(records, indent=1))
        except OSError as error:
            raise ConfigInvalid(
                "access_file_unwritable", f"{self._path} cannot be written: {error.strerror}; see the option data_dir."
            ) from error

    def _replace(self, content: bytes) -> None:
        beside = self._path.with_suffix(f".{secrets.token_hex(6)}.new")
        try:
            with open(beside, "xb", opener=_private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self._path)
        finally:
            beside.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
