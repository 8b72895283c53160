"""What waits on a PCM socket: order, bounds, and ends that outlive their sound."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import Busy
from server.backlog import MAX_UTTERANCES, Backlog


async def drain(backlog: Backlog, step: int = 4) -> list[bytes]:
    """Everything that is there, an end as empty bytes."""
    backlog.finish()
    taken = []
    while await backlog.wait():
        taken.append(backlog.take(step))
        if not taken[-1]:
            backlog.take_end()
    return taken


async def test_sound_and_ends_keep_their_order():
    backlog = Backlog(100)
    backlog.put(b"abc")
    backlog.put(b"def")
    backlog.end()
    backlog.end()
    backlog.put(b"gh")
    assert await drain(backlog) == [b"abcd", b"ef", b"", b"", b"gh"]


async def test_what_does_not_fit_is_refused_whole_and_fits_when_room_is_made():
    backlog = Backlog(8)
    assert backlog.put(b"123456")
    assert not backlog.put(b"789")
    assert backlog.take(4) == b"1234"
    assert backlog.put(b"789")
    assert await drain(backlog) == [b"5678", b"9"]


async def test_dropping_sound_keeps_the_ends_and_frees_the_room():
    backlog = Backlog(4)
    backlog.put(b"ab")
    backlog.end()
    backlog.put(b"cd")
    backlog.drop_sound()
    assert backlog.put(b"efgh")
    assert await drain(backlog) == [b"", b"efgh"]


async def test_ends_are_bounded():
    backlog = Backlog(4)
    with pytest.raises(Busy, match="utterances"):
        for _ in range(MAX_UTTERANCES + 1):
            backlog.end()


async def test_a_reader_wakes_when_something_comes_and_when_nothing_more_will():
    backlog = Backlog(4)
    reader = asyncio.create_task(backlog.wait())
    await asyncio.sleep(0.01)
    assert not reader.done()
    backlog.put(b"a")
    assert await reader is True
    backlog.take(1)
    reader = asyncio.create_task(backlog.wait())
    await asyncio.sleep(0.01)
    backlog.finish()
    assert await reader is False
