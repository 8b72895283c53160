"""How the processes of one test run share the machine: who takes which tests, and who waits for whom.

Place in the flow: ``pytest -n 2`` -> ``pytest_xdist_make_scheduler`` gives out files, ``pytest_runtest_protocol`` gives
out time.

Invariants:
    * a file stays together with what it prepares, and all browser tests do: one server, one Chromium at a time;
    * while a test marked ``alone`` runs, no other does, in any process: it measures real time;
    * whoever waits to be alone is served next, and time spent waiting counts against no test's limit.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import pytest

LOCKS = Path(tempfile.gettempdir()) / "visavis-tests"
LONGEST = ("browser", "integration", "server")
"""Folders whose files take longest."""


def order(items: list[pytest.Item]) -> None:
    """The quick tests first; where several processes share the run, the long ones, so that none is left over."""

    def rank(item: pytest.Item) -> int:
        return next((at for at, name in enumerate(LONGEST) if name in item.path.parts), len(LONGEST))

    items.sort(key=rank, reverse=not _is_shared())


def _is_shared() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives out files whole, and the folder of browser tests as if it were one."""
    from xdist.scheduler import LoadScopeScheduling

    # As they were ordered, not those first that hold most tests.
    config.option.loadscopereorder = False

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "browser" if "browser" in Path(path).parts else path

    return ByFile(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Waits for this test's turn."""
    if not _is_shared():
        return (yield)
    _room.enter(alone=_is_alone(item))
    try:
        return (yield)
    finally:
        # Others would take a while each to come and go between two tests that send them out.
        if not (_is_alone(item) and nextitem is not None and _is_alone(nextitem)):
            _room.leave()


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


class _Room:
    """Where tests run: many at a time, or one that is alone."""

    def __init__(self) -> None:
        self._room: IO[str] | None = None

    def enter(self, *, alone: bool) -> None:
        """Waits until there is room; nothing where this process is in it already."""
        if self._room is not None:
            return
        LOCKS.mkdir(exist_ok=True)
        self._room = (LOCKS / "room.lock").open("a")
        with (LOCKS / "door.lock").open("a") as door:
            # Whoever waits for the room to be empty keeps the door shut meanwhile.
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(door, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Makes room for others."""
        if self._room is not None:
            # Closing is not enough: a child that was forked meanwhile has the file open too.
            fcntl.flock(self._room, fcntl.LOCK_UN)
            self._room.close()
            self._room = None


_room = _Room()
