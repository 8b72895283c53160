"""Starts the process that runs the models, watches it, and starts it again when it dies or hangs.

Place in the flow: whoever starts the workers -> ``ModelProcess`` -> ``python -m engine.model_host`` <- workers.

Invariants:
    * its address stays the same however often it is restarted, so nobody needs to be told;
    * it ends with ``aclose``, and with this process however that ends: it watches its standard input;
    * restarts come quickly once and ever more slowly when they do not help.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

from engine.aio import Tasks
from engine.config import Config
from engine.errors import BackendFailed
from engine.remote.wire import HEADER, Kind, message, read_words

START_S = 600.0
"""Longest start: the first one with new weights converts them."""
PING_EVERY_S = 5.0
PING_S = 10.0
"""Longest wait for an answer of the thread that only reads."""
BUSY_S = 60.0
"""A model that has been at one batch for so long will not finish it."""
END_S = 3.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0
LASTED_S = 60.0
"""Whoever ran for so long is started again at once."""

_REPOSITORY = Path(__file__).resolve().parents[1]
_NVIDIA = Path("/proc/driver/nvidia/version")
_LINE_BYTES = 1 << 16

_log = logging.getLogger(__name__)


def wants_model_process(config: Config, workers: int) -> bool:
    """Whether the models are to run in a process of their own: as the option says, or where it pays.

    On a GPU every worker would hold the weights and none would see the others' pictures, so no batch would fill. On a
    CPU workers compute beside each other as well as threads of one process do.

    Args:
        config: options.
        workers: processes that hold sessions.
    """
    if config.model_process != "auto":
        return config.model_process == "on"
    return workers > 1 and not config.model_socket and _uses_gpu(config)


def _uses_gpu(config: Config) -> bool:
    # The built-in model runs on the CPU wherever it is.
    return _NVIDIA.exists() and (config.lipsync != "builtin" or config.restorer != "none")


class ModelProcess:
    """The process that runs the models.

    Args:
        config: options; those of the models are passed on.

    Attributes:
        restarts: how often it was started again.
    """

    def __init__(self, config: Config) -> None:
        self.restarts = 0
        self._config = config
        self._folder = Path(tempfile.mkdtemp(prefix="visavis-"))
        self._process: asyncio.subprocess.Process | None = None
        self._tasks = Tasks("model-process")
        self._watched = self._closed = False

    @property
    def address(self) -> str:
        """What workers are given as ``model_socket``."""
        return str(self._folder / "models")

    @property
    def pid(self) -> int | None:
        """Of the process that runs now, or ran last."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Starts it, and returns when it serves. Idempotent while it runs.

        Raises:
            VisavisError: as loading the models does.
            BackendFailed: it cannot be started, or does not get ready.
        """
        if not self._watched:
            await self._start()
            self._watched = True
            self._tasks.start(self._supervise(), "watch")

    async def aclose(self) -> None:
        """Ends it. Idempotent and time-limited."""
        self._closed = True
        await self._tasks.aclose()
        await self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _start(self) -> None:
        config = self._config
        command = [
            sys.executable, "-m", "engine.model_host", "--socket", self.address, "--lipsync", config.lipsync,
            "--restorer", config.restorer, "--precision", config.precision, "--threads", str(config.render_threads),
            "--weights-dir", str(config.weights_dir.resolve()), "--cache-dir", str(config.cache_dir.resolve()),
            "--made-dir", str((config.data_dir / "avatars").resolve()), "--log-level", config.log_level,
            "--with-parent",
        ]  # fmt: skip
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=_REPOSITORY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise BackendFailed("model_process_failed", f"The model process cannot be started: {error}.") from error
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = await self._process.stdout.readline()
            said = json.loads(line)
        except (TimeoutError, ValueError) as error:
            await self._end()
            raise BackendFailed(
                "model_process_failed", "The model process did not get ready; the log says why."
            ) from error
        except BaseException:
            await self._end()
            raise
        if "ready" not in said:
            await self._end()
            raise BackendFailed(str(said.get("code", "model_process_failed")), str(said.get("message", "")))

    async def _supervise(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed:
            started_s = time.monotonic()
            why = await self._watch()
            if time.monotonic() - started_s > LASTED_S:
                pause_s = FIRST_PAUSE_S
            _log.error("the model process %s; it is started again in %.1f s", why, pause_s)
            await self._end()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self.restarts += 1
            with contextlib.suppress(BackendFailed):
                await self._start()
                _log.info("the model process is back")

    async def _watch(self) -> str:
        """Returns what is wrong with the process, once something is."""
        process = self._process
        assert process is not None
        ended = asyncio.ensure_future(process.wait())
        try:
            while True:
                await asyncio.wait({ended}, timeout=PING_EVERY_S)
                if ended.done():
                    return f"ended with code {ended.result()}"
                try:
                    busy_s = await self._ping()
                except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
                    return "does not answer"
                if busy_s > BUSY_S:
                    return f"has been at one batch for {busy_s:.0f} s"
        finally:
            ended.cancel()

    async def _ping(self) -> float:
        async with asyncio.timeout(PING_S):
            reader, writer = await asyncio.open_unix_connection(self.address)
            try:
                writer.write(message(Kind.PING))
                size, _ = HEADER.unpack(await reader.readexactly(HEADER.size))
                return float(read_words(await reader.readexactly(size))["busy_s"])
            finally:
                writer.close()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
