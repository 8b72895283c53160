"""Fixtures everybody may use, and two guards on every async test: no task may outlive it, none may block the loop."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.avatar.bundle import Avatar, write_avatar
from tests.fakes import FakeLipSync, VirtualTime, tiny_avatar
from tests.taking_turns import order, pytest_runtest_protocol, pytest_xdist_make_scheduler

__all__ = ["pytest_runtest_protocol", "pytest_xdist_make_scheduler"]

BLOCKED_CPU_S = 0.6
"""Computing this long in one callback would cost seven frames, on a machine half as fast as ours."""
BLOCKED_S = 5.0
"""Waiting this long in one callback; generous, because a busy machine takes its cores away without asking."""
LEAK_GRACE_S = 5.0


def pytest_configure(config: pytest.Config) -> None:
    # Decoded pictures are worth keeping from one server to the next, but not in the home of whoever runs the tests.
    os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir()) / "visavis-tests")
    config.addinivalue_line("markers", "may_block_loop: the blocked-loop guard is off for this test")
    config.addinivalue_line("markers", "alone: it measures real time, so nothing else runs meanwhile")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order(items)
    for item in items:
        function = getattr(item, "obj", None)
        if inspect.iscoroutinefunction(function):
            item.obj = _guarded(function, watch_loop=item.get_closest_marker("may_block_loop") is None)


def _guarded(function, *, watch_loop: bool):
    @functools.wraps(function)
    async def run(*args, **kwargs):
        before = asyncio.all_tasks()
        slow: list[str] = []
        with _callback_times(slow) if watch_loop else _nothing():
            # A callback is timed when it ends, so the test begins and ends between two of them.
            await asyncio.sleep(0)
            result = await function(*args, **kwargs)
            await asyncio.sleep(0)
        leaked = {task for task in asyncio.all_tasks() - before if not _belongs_to_fixture(task)}
        if leaked:
            await asyncio.wait(leaked, timeout=LEAK_GRACE_S)
            leaked = {task for task in leaked if not task.done()}
        assert not leaked, f"tasks outlive the test: {sorted(task.get_name() for task in leaked)}"
        assert not slow, f"the event loop was blocked: {slow}"
        return result

    return run


def _belongs_to_fixture(task: asyncio.Task) -> bool:
    # aiohttp's test server keeps one task per connection; its fixture closes them after the test.
    return "RequestHandler." in getattr(task.get_coro(), "__qualname__", "")


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _callback_times(slow: list[str]) -> Iterator[None]:
    original = asyncio.Handle._run
    # A full collection over everything that earlier tests imported takes a third of a second, which is nobody's fault.
    collecting_s = [0.0, 0.0]

    def collecting(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            collecting_s[0] = time.thread_time()
        else:
            collecting_s[1] += time.thread_time() - collecting_s[0]

    def timed(handle: asyncio.Handle) -> None:
        started_s, started_cpu_s, collected_s = time.monotonic(), time.thread_time(), collecting_s[1]
        original(handle)
        took_s = time.monotonic() - started_s
        took_cpu_s = time.thread_time() - started_cpu_s - (collecting_s[1] - collected_s)
        if took_cpu_s > BLOCKED_CPU_S or took_s > BLOCKED_S:
            slow.append(f"{took_s:.2f} s, {took_cpu_s:.2f} s of them computing, in {handle!r}")

    asyncio.Handle._run = timed
    gc.callbacks.append(collecting)
    try:
        yield
    finally:
        gc.callbacks.remove(collecting)
        asyncio.Handle._run = original


@pytest.fixture
def virtual_time() -> VirtualTime:
    """Time that only ``advance`` moves."""
    return VirtualTime()


@pytest.fixture
def lipsync() -> FakeLipSync:
    """A model whose mouth is as tall as the sound is loud."""
    return FakeLipSync()


@pytest.fixture(scope="session")
def avatar() -> Avatar:
    """A tiny avatar in memory."""
    return tiny_avatar()


@pytest.fixture(scope="session")
def avatars_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of avatars holding one, ``tiny``; not to be changed."""
    directory = tmp_path_factory.mktemp("avatars")
    write_avatar(directory / "tiny", tiny_avatar())
    return directory


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real speech and faces beside the repository; the test is skipped where they are absent."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    directory = Path(os.environ.get("VISAVIS_SHARED", beside)) / "data"
    if not directory.is_dir():
        pytest.skip("no shared data: set VISAVIS_SHARED to the folder that holds data/")
    return directory
