"""Memory that is free goes back to the system, seldom."""

import asyncio
import threading

import numpy as np
import pytest

from server import memory
from server.memory import GROWTH_BYTES, give_back_unused, own_bytes, trim


async def test_it_is_given_back_when_there_is_something_to_gain():
    held, released, stop = [GROWTH_BYTES - 1], [], threading.Event()

    def release():
        released.append(held[0])
        held[0] //= 2

    task = asyncio.create_task(asyncio.to_thread(give_back_unused, stop, 0.01, lambda: held[0], release))
    await asyncio.sleep(0.05)
    assert not released
    held[0] = 3 * GROWTH_BYTES
    await asyncio.sleep(0.05)
    assert released == [3 * GROWTH_BYTES], "once, not with every look"
    held[0] = GROWTH_BYTES // 4
    await asyncio.sleep(0.05)
    held[0] = int(1.3 * GROWTH_BYTES)
    await asyncio.sleep(0.05)
    assert len(released) == 2, "what is needed less is the new measure"
    stop.set()
    await task


def test_what_other_threads_let_go_really_goes():
    if not own_bytes():
        pytest.skip("nobody tells what this process holds")
    kept = []

    def work():
        # Below the size from which on each array has memory of its own, every other one stays.
        arrays = [np.ones(60_000, np.uint8) for _ in range(2000)]
        kept.extend(arrays[::200])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    before = own_bytes()
    trim()
    assert own_bytes() < before - (60 << 20)


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    trim()
