"""What all clients ask of one model: it waits in one schedule, is computed in batches, and goes back to who asked.

Place in the flow: connection -> ``Desk.add`` -> its threads -> the model -> ``Order.done``.

Invariants:
    * the schedule is that of the renderer, over the sessions of all clients: earliest deadline first, equal shares;
    * bounded for each session, so that none keeps others out;
    * one bad job costs none of those beside it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from engine.batches import Batches
from engine.schedule import Schedule, Ticket, Urgency

_log = logging.getLogger(__name__)

J = TypeVar("J")
R = TypeVar("R")

BATCH_THREADS = 2
"""Where the model gains from batches: one is computed while another is copied."""
OWNER_LIMIT = 64
"""Jobs of one session that may wait: a picture between two poses and two looks takes four."""


@dataclass(frozen=True, slots=True, eq=False)
class Order(Generic[J, R]):
    """One job.

    Attributes:
        job: what the model is asked.
        urgency: when it is needed.
        owner: the session, told from those of other clients; None for nobody.
        done: called with what came of it, on a thread of the desk.
    """

    job: J
    urgency: Urgency
    owner: Hashable
    done: Callable[[R | Exception], None]


class Desk(Generic[J, R]):
    """One model and its threads.

    Args:
        name: of the threads.
        compute: the model; called from all threads at once.
        batch_limit: jobs at a time that it gains from.
        threads: of jobs, or batches, at a time.
        warm: called on each thread before its first job, with the batch sizes there will be.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[Sequence[J]], Sequence[R]],
        batch_limit: int,
        threads: int,
        warm: Callable[[Sequence[int]], None],
    ) -> None:
        self._compute = compute
        self._warm = warm
        self._warmed = threading.Semaphore(0)
        self._batches = Batches(batch_limit)
        count = min(threads, BATCH_THREADS) if batch_limit > 1 else threads
        # Whoever waits here waits for an answer; what nobody needs any more is given up before it is asked for.
        self._schedule: Schedule[Order[J, R]] = Schedule(
            self._batches, count, gives_up=False, owner_limit=OWNER_LIMIT
        )
        self._condition = threading.Condition()
        self._closing = False
        self._begun_s: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"visavis-{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def until_warm(self) -> None:
        """Waits until every thread is as fast as it gets."""
        for _ in self._threads:
            self._warmed.acquire()
        self._warmed.release(len(self._threads))

    def add(self, orders: Sequence[Order[J, R]]) -> list[Ticket[Order[J, R]]] | None:
        """Takes orders, all or none: None when there is no room."""
        with self._condition:
            wanted = Counter(order.owner for order in orders)
            if self._closing or not all(self._schedule.has_room(owner, count) for owner, count in wanted.items()):
                return None
            now_s = time.monotonic()
            tickets = [
                self._schedule.add(order, order.urgency.due_s, now_s, order.owner, order.urgency.priority)
                for order in orders
            ]
            self._condition.notify(len(orders))
        return tickets

    def withdraw(self, tickets: Sequence[Ticket[Order[J, R]]]) -> None:
        """Forgets orders that were not begun yet."""
        with self._condition:
            for ticket in tickets:
                self._schedule.remove(ticket)

    @property
    def waiting(self) -> int:
        """Orders that were not begun yet."""
        return len(self._schedule)

    def busy_s(self) -> float:
        """For how long the model has been at what it does now; 0 when it does nothing."""
        begun_s = list(self._begun_s.values())
        return time.monotonic() - min(begun_s) if begun_s else 0.0

    def close(self) -> None:
        """Ends the threads after what they are at."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()

    def _work(self) -> None:
        try:
            self._warm([1 << power for power in range(self._batches.most.bit_length())])
        except Exception:
            _log.exception("warming up a model failed")
        self._warmed.release()
        while True:
            with self._condition:
                if not self._wait():
                    return
                orders = self._schedule.take(time.monotonic()).items
            if orders:
                self._begun_s[threading.get_ident()] = time.monotonic()
                self._run(orders)
                del self._begun_s[threading.get_ident()]

    def _wait(self) -> bool:
        while not self._closing:
            if not self._schedule:
                self._condition.wait()
            elif (gather_s := self._schedule.gather_s(time.monotonic())) > 0:
                self._condition.wait(gather_s)
            else:
                return True
        return False

    def _run(self, orders: Sequence[Order[J, R]]) -> None:
        started_s = time.monotonic()
        try:
            results = self._compute([order.job for order in orders])
        except Exception as error:
            if len(orders) > 1:
                for order in orders:
                    self._run([order])
            else:
                orders[0].done(error)
            return
        with self._condition:
            self._batches.drew(len(orders), time.monotonic() - started_s)
        for order, result in zip(orders, results, strict=True):
            order.done(result)
