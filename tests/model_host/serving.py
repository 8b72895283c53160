"""A model host inside the tests: its loop on a thread, with the tests' own models behind a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.lipsync.base import LipSync
from engine.model_host.host import Host
from engine.restore.base import FaceRestorer


@contextmanager
def serving(
    folder: Path, lipsync: LipSync, restorer: FaceRestorer | None = None, threads: int = 1
) -> Iterator[tuple[str, Host]]:
    """The address of a host, and the host."""
    host = Host(lipsync, restorer, threads, folder / "cache", folder / "made")
    address = folder / "models"
    host.listen(address)
    thread = threading.Thread(target=host.serve, daemon=True)
    thread.start()
    try:
        yield str(address), host
    finally:
        host.stop()
        thread.join(5)
        assert not thread.is_alive()
