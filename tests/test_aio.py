import asyncio
import logging

import pytest

from engine.aio import Broadcast, DropOldest, Tasks, Wake
from engine.clock import FrameClock
from engine.errors import Closed
from tests.fakes import VirtualTime


async def test_drop_oldest_keeps_the_freshest_and_counts_the_lost() -> None:
    channel: DropOldest[int] = DropOldest(3)
    for item in range(5):
        channel.put(item)
    channel.close()
    channel.put(9)
    assert [item async for item in channel] == [2, 3, 4]
    assert channel.dropped == 2


async def test_replace_changes_what_was_not_taken() -> None:
    channel: DropOldest[int] = DropOldest(3)
    channel.put(1)
    channel.put(2)
    assert await channel.get() == 1
    channel.replace(lambda item: -item)
    channel.put(3)
    assert [await channel.get(), await channel.get()] == [-2, 3]


async def test_closing_tells_readers_who_wait_and_leaves_what_is_inside() -> None:
    channel: DropOldest[int] = DropOldest(2)
    readers = [asyncio.create_task(channel.get()) for _ in range(2)]
    await asyncio.sleep(0)
    channel.put(1)
    channel.close()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert results[0] == 1 and isinstance(results[1], Closed)
    full: DropOldest[int] = DropOldest(1)
    full.put(2)
    full.close()
    assert await full.get() == 2
    with pytest.raises(Closed):
        await full.get()


async def test_cancelled_get_loses_nothing() -> None:
    channel: DropOldest[int] = DropOldest(2)
    reading = asyncio.create_task(channel.get())
    await asyncio.sleep(0)
    channel.put(1)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert await channel.get() == 1


async def test_broadcast_reaches_every_subscriber_and_ends_with_close() -> None:
    broadcast: Broadcast[int] = Broadcast(2)
    first, second = broadcast.subscribe(), broadcast.subscribe()
    broadcast.publish(1)
    await second.aclose()
    for item in (2, 3):
        broadcast.publish(item)
    broadcast.close()
    assert [item async for item in first] == [2, 3]
    assert [item async for item in second] == [1]
    assert [item async for item in broadcast.subscribe()] == []


async def test_wake_returns_when_set_or_at_the_deadline(virtual_time: VirtualTime) -> None:
    clock, wake = FrameClock(source=virtual_time), Wake()
    wake.set()
    await wake.wait(clock, clock.now_s() + 100)
    waiting = asyncio.create_task(wake.wait(clock, clock.now_s() + 1))
    await virtual_time.advance(0.9)
    assert not waiting.done()
    wake.set()
    await virtual_time.settle()
    assert waiting.done()
    waiting = asyncio.create_task(wake.wait(clock, clock.now_s() + 1))
    await virtual_time.advance(1.0)
    assert waiting.done()


async def test_tasks_are_named_cancelled_and_awaited() -> None:
    tasks, ended = Tasks("owner"), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    task = tasks.start(work(), "work")
    assert task.get_name() == "owner.work"
    await asyncio.sleep(0)
    await tasks.aclose()
    await tasks.aclose()
    assert task.cancelled() and ended == [True]


async def test_owner_closing_from_its_own_task_does_not_wait_for_itself() -> None:
    tasks = Tasks("owner")
    await asyncio.wait_for(tasks.start(tasks.aclose(), "closer"), 1)


async def test_task_that_ignores_its_cancellation_is_reported_and_left(caplog: pytest.LogCaptureFixture) -> None:
    tasks, release = Tasks("owner"), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = tasks.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    await tasks.aclose(timeout_s=0.01)
    assert "owner.stubborn did not end" in caplog.text
    release.set()
    await task


async def test_failure_nobody_awaits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("as planned")

    with caplog.at_level(logging.ERROR):
        tasks = Tasks("owner")
        task = tasks.start(fail(), "failing")
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert "owner.failing failed" in caplog.text
