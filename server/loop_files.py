"""Idle loops on disk, so that the next start has them at once.

Place in the flow: IdleLoops -> ``LoopFile.read``; encoded -> ``LoopFile.write``.

Invariants:
    * a file's name says what it was made of, so it is never wrong, only unused;
    * a file appears complete or not at all; one that cannot be read is as good as none, and so is a full disk.
"""

from __future__ import annotations

import logging
import os
import secrets
import struct
from collections.abc import Sequence
from pathlib import Path

from server.rtp import Parcel

FOLDER = "loops"
"""Below the folder of what can be made again."""
KEPT_FILES = 64
"""Of one folder; those unused for longest go first. A loop is a megabyte."""
MAX_BYTES = 64 << 20

_HEAD = struct.Struct("!4sI")
_PARCEL = struct.Struct("!?H")
_LENGTH = struct.Struct("!H")
_MARK = b"VLP1"

_log = logging.getLogger(__name__)


class LoopFile:
    """One loop's file.

    Args:
        folder: where; made when it is needed.
        name: what it is made of, in characters that a file's name may have.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.loop"

    def read(self) -> tuple[Parcel, ...] | None:
        """The parcels; None when there are none that can be read."""
        try:
            if self._path.stat().st_size > MAX_BYTES:
                return None
            data = self._path.read_bytes()
            parcels = _unpack(data)
            os.utime(self._path)
        except FileNotFoundError:
            return None
        except (OSError, struct.error, ValueError) as error:
            _log.warning("an idle loop that was kept cannot be read and is made again: %s", error)
            return None
        return parcels

    def write(self, parcels: Sequence[Parcel]) -> None:
        """Keeps parcels, where there is room."""
        partial = self._path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            # Never what is above it: an avatar that was deleted stays deleted.
            self._path.parent.mkdir(exist_ok=True)
            try:
                partial.write_bytes(_pack(parcels))
                partial.replace(self._path)
            finally:
                partial.unlink(missing_ok=True)
            kept = sorted(self._path.parent.glob("*.loop"), key=lambda path: path.stat().st_mtime)
            for path in kept[:-KEPT_FILES]:
                path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("an idle loop could not be kept and will be made again: %s", error)


def _pack(parcels: Sequence[Parcel]) -> bytes:
    parts = [_HEAD.pack(_MARK, len(parcels))]
    for parcel in parcels:
        parts.append(_PARCEL.pack(parcel.key_frame, len(parcel.payloads)))
        for payload in parcel.payloads:
            parts += _LENGTH.pack(len(payload)), payload
    return b"".join(parts)


def _unpack(data: bytes) -> tuple[Parcel, ...]:
    mark, count = _HEAD.unpack_from(data)
    if mark != _MARK:
        raise ValueError("it is no idle loop")
    at, parcels = _HEAD.size, []
    for _ in range(count):
        key_frame, number = _PARCEL.unpack_from(data, at)
        at += _PARCEL.size
        payloads = []
        for _ in range(number):
            (length,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size + length
            payloads.append(data[at - length : at])
        parcels.append(Parcel(tuple(payloads), key_frame))
    if at != len(data):
        raise ValueError("it is cut off")
    return tuple(parcels)
