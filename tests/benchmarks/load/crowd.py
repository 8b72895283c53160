"""Viewers in processes of their own, ordered about from here.

Place in the flow: ramp -> ``Crowd`` -> pipes -> crowd_process.

Invariants: every process ends with the crowd; figures of all processes are for the same span of time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.benchmarks.load import crowd_process
from tests.benchmarks.load.client import Door
from tests.benchmarks.load.crowd_process import Received

PER_PROCESS = 60
"""Viewers that one process reads for without trouble."""
ORDER_TIMEOUT_S = 240.0


class CrowdFailed(Exception):
    """Viewers could not do what they were to do; the message says why."""


class Crowd:
    """All viewers."""

    def __init__(self, processes: int) -> None:
        """Args: processes: how many share the work."""
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        self._of: dict[int, int] = {}
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=crowd_process.run, args=(theirs,), name=f"crowd-{number}", daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_exc: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(20)
            if process.is_alive():
                process.kill()

    def __len__(self) -> int:
        return len(self._of)

    def open_to(self, count: int, door: Door) -> list[float]:
        """Opens viewers until there are so many; seconds that each new one took to connect."""
        shares: list[list[int]] = [[] for _ in self._pipes]
        for index in range(len(self._of), count):
            place = index % len(self._pipes)
            self._of[index] = place
            shares[place].append(index)
        answers = self._all([("open", (share, door)) for share in shares])
        return [seconds for answer in answers for seconds in answer]

    def sessions(self) -> dict[int, str]:
        """Ids of the viewers' sessions; empty for those that watch a broadcast."""
        answers = self._all([("sessions", ())] * len(self._pipes))
        return {index: name for answer in answers for index, name in answer.items()}

    def speak(self, url: str, sounds: Mapping[int, Path]) -> None:
        """Has sessions say sound files."""
        self._all([("speak", (url, sounds))] * len(self._pipes))

    def start(
        self, seconds: float, witnesses: Sequence[int] = ()
    ) -> Callable[[], tuple[int, int, float, dict[int, Received]]]:
        """Begins to receive for a time, half a second from now on.

        Returns:
            To be called about when it is over: beginning and end of the time that all processes share, processor time
            they had used by then, and what each viewer received, margins of half a second included.
        """
        self._send([("measure", (seconds, witnesses))] * len(self._pipes))

        def result() -> tuple[int, int, float, dict[int, Received]]:
            spans = self._answers()
            used_s = self.cpu_s()
            parts = self._all([("received", ())] * len(self._pipes))
            everything = {index: received for part in parts for index, received in part.items()}
            return max(start for start, _ in spans), min(end for _, end in spans), used_s, everything

        return result

    def first_pictures(self) -> None:
        """Waits until every viewer has had a packet of its first picture."""
        self._all([("first", ())] * len(self._pipes))

    def close_to(self, count: int) -> None:
        """Closes the newest viewers until there are so many."""
        leaving = [index for index in self._of if index >= count]
        self._all([("close", ([i for i in leaving if self._of[i] == place],)) for place in range(len(self._pipes))])
        for index in leaving:
            del self._of[index]

    def cpu_s(self) -> float:
        """Processor time all its processes have used."""
        return sum(self._all([("usage", ())] * len(self._pipes)))

    def _all(self, orders: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        self._send(orders)
        return self._answers()

    def _send(self, orders: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        for pipe, order in zip(self._pipes, orders, strict=True):
            try:
                pipe.send(order)
            except OSError as error:
                raise CrowdFailed("A process of viewers ended.") from error

    def _answers(self) -> list[Any]:
        answers = []
        deadline_s = time.monotonic() + ORDER_TIMEOUT_S
        for pipe in self._pipes:
            if not pipe.poll(max(0.0, deadline_s - time.monotonic())):
                raise CrowdFailed("A process of viewers did not answer.")
            try:
                answers.append(pipe.recv())
            except (EOFError, OSError) as error:
                raise CrowdFailed("A process of viewers ended.") from error
        for answer in answers:
            if isinstance(answer, Exception):
                raise CrowdFailed(str(answer)) from answer
        return answers
