"""A fleet of processes on this machine: started, watched, restarted, replaced one after the other.

Place in the flow: ``python -m server --workers N`` -> ``LocalFleet`` -> ``server.gateway.process``.

Invariants:
    * a worker that died is replaced, sooner or later: at once after a long life, ever later while none of them lives;
    * a worker that says nothing for ``HANG_S`` is as dead as one that ended, and is made so; time in which the gateway
      itself stood still is not counted;
    * whatever goes wrong with one worker, its place is filled again;
    * what a worker wants to be remembered is remembered before its death is noticed: it is read to the end;
    * one is taken out of service at a time, and only when another one is there.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.aio import Tasks
from engine.errors import BackendFailed, VisavisError
from server.gateway.fleet import Memory, State, Wanted, WorkerState, pick

logger = logging.getLogger(__name__)

START_S = 180.0
"""Loading models from a slow disk takes a while."""
HANG_S = 5.0
HANG_LOOKS = 5
"""So often it is looked within that time whether something was said."""
LEAVE_S = 6.0
"""What a worker gets to end in order once it was asked to."""
RESERVED_S = 5.0
"""A place that was reserved is free again when its worker was not asked for it by then."""
LONG_LIFE_S = 60.0
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0


class Process(Protocol):
    """A worker as it was started; see ``server.gateway.process.WorkerProcess``."""

    name: str
    secret: str
    address: str
    exited: asyncio.Task[int]

    async def ready(self) -> None:
        """Returns when it serves."""
        ...

    def events(self) -> AsyncIterator[dict[str, Any]]:
        """What it tells, until it leaves."""
        ...

    async def drain(self) -> None:
        """Tells it to take no more sessions."""
        ...

    def terminate(self) -> None:
        """Asks it to leave."""
        ...

    def kill(self) -> None:
        """Ends it at once."""
        ...

    async def aclose(self) -> None:
        """Kills it if it is still there, and frees everything."""
        ...


@dataclass(slots=True)
class _Slot:
    """One place for a process; a restart fills it again, a replacement has another one.

    Attributes:
        number: which share of the machine it has.
    """

    number: int
    process: Process | None = None
    state: State = "starting"
    told: dict[str, Any] = field(default_factory=dict)
    reserved: deque[float] = field(default_factory=deque)
    serves: asyncio.Event = field(default_factory=asyncio.Event)
    empty: asyncio.Event = field(default_factory=asyncio.Event)
    error: VisavisError | None = None
    retired: bool = False
    life: asyncio.Task[None] | None = None


class Backoff:
    """How long to wait before the next start."""

    def __init__(self) -> None:
        self._delay_s = 0.0

    def after(self, lived_s: float) -> float:
        """Seconds to wait after a process that lived for so long."""
        if lived_s >= LONG_LIFE_S:
            self._delay_s = 0.0
        delay_s = self._delay_s
        self._delay_s = min(LONGEST_DELAY_S, max(FIRST_DELAY_S, 2 * self._delay_s))
        return delay_s


class LocalFleet:
    """A ``Fleet`` of processes on this machine."""

    def __init__(
        self, count: int, start: Callable[[str, int], Awaitable[Process]], memory: Memory, drain_s: float = 0.0
    ) -> None:
        """
        Args:
            count: how many workers there are to be.
            start: starts one, given its name and which share of the machine it has.
            memory: what outlives them.
            drain_s: how long the sessions of a worker that is replaced may go on; then they go on with another one.
        """
        self._drain_s = drain_s
        self._count = count
        self._start = start
        self._memory = memory
        self._slots: list[_Slot] = []
        self._names = (f"w{number}" for number in itertools.count(1))
        self._tasks = Tasks("fleet")
        self._rolling: asyncio.Task[None] | None = None
        self._closing = False

    async def open(self) -> None:
        """Starts all; returns when all serve. The first one alone: what it prepares for all is made once.

        Raises:
            VisavisError: why one cannot.
        """
        await self._served(self._add(0))
        rest = [self._add(number) for number in range(1, self._count)]
        await asyncio.gather(*(self._served(slot) for slot in rest))

    async def workers(self) -> Sequence[WorkerState]:
        """See ``Fleet``."""
        return [self._shown(slot) for slot in self._slots if slot.process is not None and slot.state != "gone"]

    async def place(self, wanted: Wanted) -> WorkerState:
        """See ``Fleet``."""
        chosen = pick(await self.workers(), wanted)
        slot = next(it for it in self._slots if it.process is not None and it.process.name == chosen.name)
        slot.reserved.append(self._now_s() + RESERVED_S)
        return chosen

    async def give_back(self, token_id: str) -> None:
        """See ``Fleet``; the gate of the only gateway keeps the tokens."""

    async def lost(self, name: str) -> None:
        """See ``Fleet``; a process that ended is noticed by itself, one that hangs a moment later."""
        logger.debug("the worker %s could not be reached", name)

    def roll(self) -> None:
        """Replaces all workers by new ones, one after the other; nothing when that goes on already."""
        if not self._closing and (self._rolling is None or self._rolling.done()):
            self._rolling = self._tasks.start(self._roll(), "roll")

    async def drain(self, limit_s: float) -> None:
        """Has all of them take no more sessions and returns when all are empty, or after a while."""
        self._closing = True
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*(self._drain(slot) for slot in self._slots))
        except TimeoutError:
            logger.info("sessions that are left are ended after %.0f s", limit_s)

    async def aclose(self) -> None:
        """Ends all workers and returns when no process is left. Idempotent."""
        self._closing = True
        if self._rolling is not None:
            await self._tasks.cancel(self._rolling)
        await asyncio.gather(*(self._retire(slot) for slot in list(self._slots)))
        await self._tasks.aclose()

    # One after the other ------------------------------------------------------------------------------------------

    async def _roll(self) -> None:
        for old in list(self._slots):
            new = self._add(old.number)
            try:
                await self._served(new)
            except VisavisError as error:
                logger.error("the workers are not replaced: %s", error.message)
                await self._retire(new)
                return
            await self._drain(old, self._drain_s)
            await self._retire(old)
        logger.info("all workers were replaced")

    async def _drain(self, slot: _Slot, limit_s: float | None = None) -> None:
        if slot.process is None or slot.state != "ready":
            return
        slot.state = "draining"
        slot.empty.clear()
        await slot.process.drain()
        if slot.told.get("taken") == 0:
            return
        try:
            async with asyncio.timeout(limit_s):
                await slot.empty.wait()
        except TimeoutError:
            logger.info("the worker %s leaves while it is used; its sessions go on elsewhere", slot.process.name)

    async def _retire(self, slot: _Slot) -> None:
        slot.retired = True
        process, life = slot.process, slot.life
        if process is not None and not process.exited.done():
            process.terminate()
            await asyncio.wait([process.exited], timeout=LEAVE_S)
        if life is not None:
            await self._tasks.cancel(life)

    # One worker ---------------------------------------------------------------------------------------------------

    def _add(self, number: int) -> _Slot:
        slot = _Slot(number)
        self._slots.append(slot)
        slot.life = self._tasks.start(self._live(slot), f"slot-{number}")
        return slot

    async def _served(self, slot: _Slot) -> None:
        """Returns when a worker serves; raises why its first process could not."""
        assert slot.life is not None
        serving = asyncio.ensure_future(slot.serves.wait())
        await asyncio.wait({serving, slot.life}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        if slot.error is not None:
            raise slot.error

    async def _live(self, slot: _Slot) -> None:
        """Keeps a slot filled until it is retired; one whose first process cannot start is given up."""
        backoff = Backoff()
        try:
            while not slot.retired:
                started_s = self._now_s()
                name = next(self._names)
                try:
                    await self._run(slot, name)
                except Exception as error:
                    if isinstance(error, VisavisError):
                        logger.error("the worker %s cannot start: %s", name, error.message)
                    else:
                        logger.exception("the worker %s cannot be looked after", name)
                        error = BackendFailed("worker_failed", f"The worker {name} was given up; the log says why.")
                    if not slot.serves.is_set():
                        slot.error = error
                        return
                if slot.retired or self._closing:
                    return
                delay_s = backoff.after(self._now_s() - started_s)
                logger.warning("the worker %s was lost; another one is started in %.1f s", name, delay_s)
                await asyncio.sleep(delay_s)
        finally:
            self._slots.remove(slot)
            slot.empty.set()
            slot.serves.set()

    async def _run(self, slot: _Slot, name: str) -> None:
        """One process from its start to its end."""
        # What the one before it said, and where it was, is of no use any more.
        slot.state, slot.told, slot.process = "starting", {}, None
        slot.reserved.clear()
        slot.process = process = await self._start(name, slot.number)
        try:
            try:
                async with asyncio.timeout(START_S):
                    await process.ready()
            except TimeoutError:
                raise BackendFailed("worker_failed", f"The worker {name} did not start in {START_S:.0f} s.") from None
            await self._follow(slot, process)
        finally:
            slot.state = "gone"
            slot.empty.set()
            await process.aclose()

    async def _follow(self, slot: _Slot, process: Process) -> None:
        async with aclosing(process.events()) as events:  # type: ignore[type-var]
            while True:
                try:
                    told = await _next(events)
                except TimeoutError:
                    logger.error("the worker %s has said nothing for %.0f s and is ended", process.name, HANG_S)
                    return
                if told is None:
                    break
                await self._take(slot, told)
        logger.debug("the worker %s tells no more", process.name)
        # It leaves, and what it had to say was said; or it has closed its ears without leaving.
        await asyncio.wait([process.exited], timeout=LEAVE_S)

    async def _take(self, slot: _Slot, told: dict[str, Any]) -> None:
        if "keep" in told:
            await self._memory.keep(told["keep"], told["snapshot"])
        elif "forget" in told:
            await self._memory.forget(told["forget"])
        elif "state" in told:
            before, slot.told = slot.told, told["state"]
            for _ in range(slot.told["asked"] - before.get("asked", 0)):
                if slot.reserved:
                    slot.reserved.popleft()
            if slot.state == "starting":
                slot.state = "ready"
                slot.serves.set()
            if slot.state == "draining" and slot.told["draining"] and slot.told["taken"] == 0:
                slot.empty.set()

    def _shown(self, slot: _Slot) -> WorkerState:
        assert slot.process is not None
        while slot.reserved and slot.reserved[0] <= self._now_s():
            slot.reserved.popleft()
        told = slot.told
        return WorkerState(
            name=slot.process.name,
            address=slot.process.address,
            secret=slot.process.secret,
            state=slot.state,
            places=told.get("places", 0),
            taken=told.get("taken", 0) + len(slot.reserved),
            load=told.get("load", 0.0),
            avatars=frozenset(told.get("avatars", ())),
            yielding=told.get("yielding", 0),
        )

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


async def _next(events: AsyncIterator[dict[str, Any]]) -> dict[str, Any] | None:
    """What a worker tells next; None when it tells no more.

    Raises:
        TimeoutError: it has said nothing for ``HANG_S``.
    """
    coming = asyncio.ensure_future(anext(events, None))
    try:
        for _ in range(HANG_LOOKS):
            # When the gateway itself was stopped, or swapped out, one such time is over at once, and what the worker
            # said meanwhile arrives within the next one.
            await asyncio.wait({coming}, timeout=HANG_S / HANG_LOOKS)
            if coming.done():
                return coming.result()
        raise TimeoutError
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
