"""``python -m server.worker``: one media worker of a server on this machine, as its gateway starts it.

Place in the flow: ``server.gateway.process`` -> a task as one line of JSON on standard input -> ``serve`` -> one line
of JSON on standard output when it serves, or when it cannot.

Invariants:
    * it does not outlive its gateway: the kernel kills it with it where it can, and it ends when its input ends;
    * options, secrets and keys come through the pipe, so they stand in no list of processes.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
import threading
from typing import Any

from engine.config import Config
from engine.errors import VisavisError
from server.log import start_log
from server.memory import keep_small

logger = logging.getLogger("server.worker")

LEAVE_S = 5.0
"""After its gateway has gone it is given so long to end in order."""
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs the worker; returns the exit code."""
    parent = os.getppid()
    _die_with_parent()
    # Libraries fork, and a child that waits for the lock of a file object held here would wait for ever.
    given, answers = _take_over(0, os.O_RDONLY), _take_over(1, os.O_WRONLY)
    task = json.loads(_line(given) or b"null")
    if task is None or os.getppid() != parent:
        return 1
    config = Config.model_validate(task["config"])
    start_log(config, task["name"])
    try:
        return asyncio.run(_serve(config, task, given, answers))
    except VisavisError as error:
        _tell(answers, error=error.to_dict())
        return 1


async def _serve(config: Config, task: dict[str, Any], given: int, answers: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    threading.Thread(target=_watch_parent, args=(given, loop, stop), name="parent", daemon=True).start()
    from server.worker.serve import serve

    opening = asyncio.create_task(
        serve(
            config,
            name=task["name"],
            secret=task["secret"],
            bind=task["bind"],
            cores=task["cores"],
            encoder_threads=task["encoder_threads"],
        ),
        name="open",
    )
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        opening.cancel()
        await asyncio.wait({opening})
        return 0
    worker = opening.result()
    keep_small()
    _tell(answers, address=worker.address)
    os.close(answers)
    await stopping
    await worker.aclose()
    return 0


def _take_over(number: int, flags: int) -> int:
    """Another number for a standard stream, which leads nowhere from now on."""
    taken = os.dup(number)
    nowhere = os.open(os.devnull, flags)
    os.dup2(nowhere, number)
    os.close(nowhere)
    return taken


def _line(given: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and (more := os.read(given, 1 << 16)):
        line += more
    return line


def _tell(answers: int, **members: Any) -> None:
    os.write(answers, json.dumps(members).encode() + b"\n")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch_parent(given: int, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # Nothing is said after the task; the end of the pipe says that nobody is left to serve.
    while os.read(given, 1):
        pass
    logger.info("the gateway has gone")
    try:
        loop.call_soon_threadsafe(stop.set)
    except RuntimeError:
        return
    threading.Event().wait(LEAVE_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
