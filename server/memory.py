"""Gives memory back to the system that was used and is free again: glibc keeps it for every thread that ever used any.

Place in the flow: a process that holds sessions calls ``keep_small`` once, when it starts.

Pictures of most of a megabyte are made on one thread and let go on another, a hundred times a second. What lies free
between those still in use stays with the process, after a few minutes of talking as much again as is in use.
``malloc_trim`` gives it back in 5 to 25 ms, during which others may have to wait for memory; so it happens seldom, and
only when there is something to gain.

Invariants: where the C library has no such call, nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path

LOOK_S = 30.0
GROWTH_BYTES = 48 << 20
"""Grown by this since it was last given back, it is worth the while."""

_STATM = Path("/proc/self/statm")


def own_bytes() -> int:
    """Memory of this process that no file is behind; 0 where nobody tells."""
    try:
        words = _STATM.read_text("ascii").split()
    except OSError:
        return 0
    return (int(words[1]) - int(words[2])) * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Gives back what is free; takes some milliseconds, without the interpreter lock."""
    try:
        release = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return
    release(0)


def keep_small() -> None:
    """From now on this process gives back what it has no use for."""
    threading.Thread(target=give_back_unused, args=(threading.Event(),), name="visavis-memory", daemon=True).start()


def give_back_unused(
    stop: threading.Event,
    look_s: float = LOOK_S,
    held: Callable[[], int] = own_bytes,
    release: Callable[[], None] = trim,
) -> None:
    """Looks from time to time, until it is told to stop.

    Args:
        stop: ends it.
        look_s: seconds between two looks.
        held: tells what the process holds, bytes.
        release: gives back what is free.
    """
    kept = 0
    while not stop.wait(look_s):
        if held() >= kept + GROWTH_BYTES:
            release()
            kept = held()
        # What is needed less than before is the new measure.
        kept = min(kept, held())
