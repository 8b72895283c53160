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
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Waits for this test's turn."""
    if not _is_shared():
        return (yield)
    with _turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    LOCKS.mkdir(exist_ok=True)
    with (LOCKS / "room.lock").open("a") as room:
        # Whoever waits for the room to be empty keeps the door shut meanwhile.
        with (LOCKS / "door.lock").open("a") as door, _locked(door, fcntl.LOCK_EX):
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            # Closing is not enough: a child that was forked meanwhile has the file open too.
            fcntl.flock(room, fcntl.LOCK_UN)


@contextmanager
def _locked(file: Any, how: int) -> Iterator[None]:
    fcntl.flock(file, how)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
