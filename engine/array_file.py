"""Files of NumPy arrays, read by one thread at a time.

Place in the flow: ``.npz`` of avatars and models -> ``open_arrays`` -> whoever needs the arrays.

Invariants: no two threads read the head of an array at once. NumPy parses it as a Python expression, and CPython up to
3.11 counts the depth of all parses of a process in one place: two at a time now and then end in a ``SystemError``
(python/cpython issue 106905).
"""

from __future__ import annotations

import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

_READING = threading.Lock()


@contextmanager
def open_arrays(path: Path) -> Iterator[NpzFile]:
    """The arrays of one file by name, without anything that could run code.

    Raises:
        OSError, ValueError: the file is missing or damaged; reading an array of it, KeyError too.
    """
    try:
        with _READING, np.load(path, allow_pickle=False) as arrays:
            yield arrays
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(str(error)) from error
