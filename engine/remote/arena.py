"""Memory that two processes share: a file without a name, which is gone with the last of them, however it ends.

Place in the flow: ``Lane`` makes one and sends its descriptor -> ``model_host`` maps it.

Invariants:
    * it has no name in any file system and no keeper of its own, so nothing can leak and nothing must clean up;
    * it cannot shrink: whoever maps it may touch every byte of it;
    * pages that nobody touched take no memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile

import numpy as np

from engine.remote.wire import Broken

MAX_BYTES = 1 << 30
_PAGE = 1 << 16


class Arena:
    """Mapped memory.

    Attributes:
        bytes: (size,) uint8, all of it.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._map = mmap.mmap(descriptor, size)
        self.bytes = np.frombuffer(self._map, np.uint8)

    def __len__(self) -> int:
        return len(self.bytes)

    def part(self, at: int, size: int) -> np.ndarray:
        """(size,) uint8 view from ``at`` on. Raises Broken when that is not in it."""
        if at < 0 or size < 0 or at + size > len(self.bytes):
            raise Broken("a place outside the shared memory")
        return self.bytes[at : at + size]


def make_arena(size: int) -> tuple[Arena, int]:
    """New memory of at least ``size`` bytes, and a descriptor of it for the other side; close that once it is sent.

    Raises:
        OSError: there is none to be had.
    """
    size = -(-size // _PAGE) * _PAGE
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("visavis", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, size)
    return Arena(descriptor, size), descriptor


def open_arena(descriptor: int) -> Arena:
    """Maps what the other side made, and closes the descriptor.

    Raises:
        Broken: it is no such memory.
    """
    try:
        size = os.fstat(descriptor).st_size
        if not 0 < size <= MAX_BYTES:
            raise Broken("shared memory of a strange size")
        if hasattr(fcntl, "F_GET_SEALS"):
            seals = 0
            with contextlib.suppress(OSError):
                seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            if not seals & fcntl.F_SEAL_SHRINK:
                raise Broken("shared memory that could be taken away")
        return Arena(descriptor, size)
    except (OSError, ValueError) as error:
        raise Broken("shared memory that cannot be mapped") from error
    finally:
        os.close(descriptor)
