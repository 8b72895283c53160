"""Starts one worker as a process of this machine, and watches it through its events.

Place in the flow: ``LocalFleet`` -> ``start`` -> ``python -m server.worker`` -> ``WorkerProcess``.

Invariants:
    * a new process inherits neither threads nor open files of the gateway: it is executed, not forked;
    * what it has to know goes through its standard input, whose end tells it that the gateway has gone;
    * its log is the gateway's own standard error, each line with its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from engine.config import Config
from engine.errors import BackendFailed, ConfigInvalid, VisavisError
from server.worker.wire import SECRET_HEADER

MAX_LINE_BYTES = 4_000_000
CONNECT_S = 1.0
_REPOSITORY = Path(__file__).resolve().parents[2]
_COMMAND = (sys.executable, "-m", "server.worker")


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker gets of the machine.

    Attributes:
        places: sessions it may hold.
        cores: cores it is meant to use.
        render_threads, encoder_threads: of each kind.
    """

    places: int
    cores: float
    render_threads: int
    encoder_threads: int


def share(config: Config, workers: int, cores: int, number: int) -> Share:
    """What the worker with this number, from 0, gets: of each thing its part, and at least one.

    Args:
        config: options of the whole server.
        workers: how many there are.
        cores: cores of this machine that may be used.
        number: of the worker.
    """
    places = config.max_sessions // workers + (number < config.max_sessions % workers)
    part = cores / workers
    return Share(
        places=max(1, places),
        cores=part,
        render_threads=max(1, round(config.render_threads / workers)),
        encoder_threads=max(1, min(4, round(part))),
    )


class WorkerProcess:
    """A worker that was started. Made by ``start``.

    Attributes:
        name: of the worker.
        secret: it answers whoever shows it.
        address: where it listens; empty until it is ``ready``.
    """

    def __init__(self, name: str, secret: str, process: asyncio.subprocess.Process, given: int, answers: int) -> None:
        """Use ``start``."""
        self._given = given
        self._answers = answers
        self.name = name
        self.secret = secret
        self.address = ""
        self._process = process
        self._http: aiohttp.ClientSession | None = None
        self.exited: asyncio.Task[int] = asyncio.create_task(process.wait(), name=f"{name}-exit")
        """Done with its exit code."""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def ready(self) -> None:
        """Returns when it serves.

        Raises:
            VisavisError: why it cannot, in its own words; ``worker_failed`` when it says nothing.
        """
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._answers, "rb", buffering=0)
        )
        self._answers = -1
        try:
            line = await reader.readline()
        finally:
            transport.close()
        told: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            told = json.loads(line)
        if "error" in told:
            # What a person has to mend is said as it would be without workers.
            raise ConfigInvalid(str(told["error"]["code"]), str(told["error"]["message"]))
        if "address" not in told:
            raise BackendFailed("worker_failed", f"The worker {self.name} ended while it started; see the log.")
        self.address = str(told["address"])
        connector: aiohttp.BaseConnector
        if self.address.startswith("unix:"):
            connector = aiohttp.UnixConnector(self.address.removeprefix("unix:"))
        else:
            connector = aiohttp.TCPConnector()
        self._http = aiohttp.ClientSession(connector=connector, headers={SECRET_HEADER: self.secret})

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Its state, and what it wants to be remembered, until it leaves. Who waits too long for the next one knows
        that it hangs."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        waiting = b""
        assert self._http is not None
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, ValueError):
            async with self._http.get("http://worker/internal/events", timeout=timeout) as response:
                async for chunk in response.content.iter_any():
                    *lines, waiting = (waiting + chunk).split(b"\n")
                    if len(waiting) > MAX_LINE_BYTES:
                        return
                    for line in lines:
                        yield json.loads(line)

    async def drain(self) -> None:
        """Tells it to take no more sessions."""
        assert self._http is not None
        timeout = aiohttp.ClientTimeout(total=2 * CONNECT_S)
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            async with self._http.post("http://worker/internal/drain", timeout=timeout):
                return

    def terminate(self) -> None:
        """Asks it to leave."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self._signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """Kills it if it is still there, and frees everything. Idempotent."""
        self.kill()
        await asyncio.wait([self.exited])
        if self._http is not None:
            await self._http.close()
        for number in (self._given, self._answers):
            if number >= 0:
                os.close(number)
        self._given = self._answers = -1

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def start(config: Config, name: str, folder: Path, part: Share) -> WorkerProcess:
    """Starts a worker.

    Args:
        config: options of the whole server.
        name: of the worker.
        folder: private; its socket is made there.
        part: what it gets of the machine.

    Raises:
        BackendFailed: ``worker_failed``.
    """
    secret = secrets.token_urlsafe(32)
    told = config.model_dump(mode="json", exclude_unset=True)
    told |= {"max_sessions": part.places, "render_threads": part.render_threads, "workers": 1}
    task = {
        "name": name,
        "secret": secret,
        "bind": f"unix:{folder / name}",
        "config": told,
        "cores": part.cores,
        "encoder_threads": part.encoder_threads,
    }
    # What the environment says of options is in the configuration already.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VISAVIS_")}
    # Pipes of our own: asyncio's would have a process live for as long as anybody holds their other ends.
    ends: list[int] = []
    try:
        ends += os.pipe()
        ends += os.pipe()
        taken, given, answers, answering = ends
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, cwd=_REPOSITORY, env=environment, stdin=taken, stdout=answering, start_new_session=True
        )
        # A configuration is far smaller than what a pipe holds.
        os.write(given, json.dumps(task).encode() + b"\n")
    except BaseException as error:
        for end in ends:
            os.close(end)
        if isinstance(error, OSError):
            raise BackendFailed("worker_failed", f"A worker cannot be started: {error.strerror or error}.") from error
        raise
    os.close(taken)
    os.close(answering)
    return WorkerProcess(name, secret, process, given, answers)


__all__ = ["Share", "VisavisError", "WorkerProcess", "share", "start"]
