"""What asyncio code here is made of: a bounded channel, a wake-up call with a deadline, and tasks that never leak.

Place in the flow: between any two stages of a session.

Invariants:
    * every queue is bounded and its name says what happens when it is full;
    * whoever creates a task names, stores, cancels and awaits it, through ``Tasks``;
    * nothing polls; ``CancelledError`` always passes through.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from engine.clock import FrameClock
from engine.errors import Closed

T = TypeVar("T")

CLOSE_TIMEOUT_S = 2.0
"""How long closing waits for tasks that do not end; they are reported and left behind."""

_log = logging.getLogger(__name__)


class DropOldest(Generic[T]):
    """A bounded channel for what is worth most when fresh: when full, the oldest item makes room.

    Any number of tasks may read; cancelling one loses nothing.

    Attributes:
        capacity: items it holds at most.
        dropped: how many items were lost so far.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a channel needs room for at least one item")
        self.capacity = capacity
        self.dropped = 0
        self._items: deque[T] = deque()
        self._closed = False
        # In order, so that the reader who has waited longest is served first.
        self._waiting: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """True once ``close`` was called; items left inside can still be taken."""
        return self._closed

    def put(self, item: T) -> None:
        """Appends an item; never waits. Does nothing once closed."""
        if self._closed:
            return
        if len(self._items) == self.capacity:
            self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        self._notify()

    def replace(self, change: Callable[[T], T]) -> None:
        """Replaces every item that was not taken yet, in place."""
        self._items = deque(map(change, self._items))

    async def get(self) -> T:
        """Takes the oldest item, waiting for one.

        Raises:
            Closed: the channel is closed and empty.
        """
        while not self._items:
            if self._closed:
                raise Closed("closed", "This channel is closed.")
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[future] = None
            try:
                await future
            finally:
                del self._waiting[future]
        return self._items.popleft()

    def close(self) -> None:
        """No more items will come; whoever waits is told. Idempotent."""
        self._closed = True
        self._notify()

    def __aiter__(self) -> DropOldest[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except Closed:
            raise StopAsyncIteration from None

    def _notify(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


class Broadcast(Generic[T]):
    """One writer, any number of readers, each with a bounded drop-oldest queue of its own."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._subscriptions: set[Subscription[T]] = set()
        self._closed = False

    def subscribe(self) -> Subscription[T]:
        """Receives everything published from now on."""
        subscription: Subscription[T] = Subscription(self._capacity, self._subscriptions.discard)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def publish(self, item: T) -> None:
        """Gives an item to every reader; never waits."""
        for subscription in self._subscriptions:
            subscription.put(item)

    def close(self) -> None:
        """Ends every reader's iteration once it has read what is left. Idempotent."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()


class Subscription(DropOldest[T]):
    """A reader of a ``Broadcast``; iterate over it, ``aclose`` it when done."""

    def __init__(self, capacity: int, leave: Callable[[Subscription[T]], None]) -> None:
        super().__init__(capacity)
        self._leave = leave

    async def aclose(self) -> None:
        """Leaves the broadcast. Idempotent."""
        self._leave(self)
        self.close()


class Wake:
    """Wakes one waiter: at once when ``set`` was called since its last wait, else at a deadline."""

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wakes the waiter; kept for the next wait when nobody waits now."""
        self._set = True
        self._release()

    async def wait(self, clock: FrameClock, until_s: float) -> None:
        """Returns when ``set`` is called or at ``until_s``; only one task may wait."""
        if not self._set and clock.now_s() < until_s:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = clock.source.call_at(until_s, self._release)
            try:
                await self._waiter
            finally:
                self._waiter = None
                timer.cancel()
        self._set = False

    def _release(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Tasks:
    """The tasks of one owner: named, stored, and cancelled and awaited when the owner closes."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Runs a coroutine as the task ``<owner>.<name>``; an exception nobody awaits is logged."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._owner}.{name}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def cancel(self, *tasks: asyncio.Task[Any], timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Cancels tasks and waits until they have ended, at most ``timeout_s``; never the calling task itself."""
        waiting = {task for task in tasks if task is not asyncio.current_task() and not task.done()}
        for task in waiting:
            task.cancel()
        if waiting:
            _, stuck = await asyncio.wait(waiting, timeout=timeout_s)
            for task in stuck:
                _log.error("task %s did not end within %.1f s of being cancelled", task.get_name(), timeout_s)

    async def aclose(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Cancels and awaits all tasks. Idempotent."""
        await self.cancel(*self._tasks, timeout_s=timeout_s)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s failed", task.get_name(), exc_info=error)
