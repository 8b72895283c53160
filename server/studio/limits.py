"""What a process that opens strangers' files may use of this machine.

Place in the flow: the worker applies them to itself before it imports a decoder or opens an upload.

Invariants:
    * a limit is never raised again: it holds for the process and whatever it starts;
    * the process yields to every live session, whatever the machine's scheduler groups by.
"""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass
from pathlib import Path

_AUTOGROUP = Path("/proc/self/autogroup")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one process.

    Attributes:
        memory_bytes: address space; what asks for more gets an error.
        cpu_s: computing time of all threads together, seconds; then the system ends it.
        file_bytes: largest file it may write.
        open_files: descriptors at a time.
    """

    memory_bytes: int
    cpu_s: int
    file_bytes: int
    open_files: int = 256

    def apply(self) -> None:
        """Applies them to this process, for good."""
        for kind, limit in (
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_CPU, self.cpu_s),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_NOFILE, self.open_files),
            # A core dump would hold the face that was uploaded.
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            wanted = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            # macOS refuses to bound address space; the other limits hold there.
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (wanted, wanted))


def be_humble(niceness: int) -> None:
    """Lowers this process's priority, for good. Args: niceness: 0 for nothing, 19 for only what nobody else wants."""
    with contextlib.suppress(OSError):
        os.nice(niceness)
    # A process with a session of its own is a scheduling group of its own on desktop Linux, as heavy as the server's
    # whatever the niceness of what is in it, unless the group itself is told.
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(niceness))
