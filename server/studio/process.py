"""Runs the worker: one process for one avatar, watched, bounded in time, and killed with all it started.

Place in the flow: ``Jobs`` -> ``WorkerProcess.make`` -> ``server.studio.worker`` in a process of its own.

Invariants:
    * when ``make`` returns or raises, the process has ended, whatever it was doing;
    * what it prints is read with a bound: too long a line ends it, its complaints are kept as a short tail;
    * the environment it gets holds no option of the server, so none of its keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.config import Config, usable_cores
from engine.errors import BackendFailed, DiskFull, PortraitInvalid, VisavisError
from server.studio.order import Order
from server.studio.sniff import Upload

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]

MAX_LINE_BYTES = 8192
MAX_LINES = 10_000
"""Of one worker, which tells some hundred steps of its progress."""
MAX_STAGE_CHARS = 60
SOURCE_NAME = "source"
"""Of an upload in the folder of its job; its ending is added."""

_REPOSITORY = Path(__file__).resolve().parents[2]
_COMMAND = (sys.executable, "-m", "server.studio.worker")
_TAIL_BYTES = 4000
_END_S = 5.0
_FILE_MB = 512
"""Largest file a worker may write; an idle loop has some megabytes."""
_SIZE_PX = 512
_SECONDS = 8.0
_NICENESS = 15
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")
_CODE = re.compile(r"[a-z0-9_]{1,40}")


class WorkerProcess:
    """How this server makes avatars."""

    def __init__(
        self,
        config: Config,
        command: Sequence[str] = _COMMAND,
        *,
        size_px: int = _SIZE_PX,
        seconds: float = _SECONDS,
        niceness: int = _NICENESS,
    ) -> None:
        """
        Args:
            config: options.
            command: what to run; it reads a task and writes lines as ``server.studio.worker`` does.
            size_px: side of the avatars' pictures.
            seconds: length of their idle loops.
            niceness: how much more important everything else on this machine is, 0 to 19.
        """
        self._config = config
        self._command = list(command)
        self._size_px = size_px
        self._seconds = seconds
        self._niceness = niceness

    async def make(self, folder: Path, order: Order, upload: Upload, progress: Progress) -> None:
        """Makes the avatar in ``folder``; cancelling kills the process.

        Raises:
            PortraitInvalid: the upload cannot become an avatar; ``create_too_long``, ``create_killed``.
            DiskFull: ``disk_full``.
            BackendFailed: the face models are missing, or the process cannot be started.
        """
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # Live sessions need the other cores; and every thread reserves memory.
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, cwd=_REPOSITORY, env=environment, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=MAX_LINE_BYTES,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise BackendFailed(
                "create_failed", "The process that makes avatars cannot be started; the server's log says why."
            ) from error
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        complaints = asyncio.create_task(_tail(process.stderr), name="studio-complaints")
        try:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(json.dumps(self._task(folder, order, upload)).encode() + b"\n")
                await process.stdin.drain()
            async with asyncio.timeout(self._config.studio_max_job_s):
                outcome = await _follow(process.stdout, progress)
                code = await process.wait()
        except TimeoutError:
            raise PortraitInvalid(
                "create_too_long", "Making the avatar took too long. Use a shorter clip, or one with fewer pixels."
            ) from None
        except asyncio.LimitOverrunError as overrun:
            raise BackendFailed("create_failed", "The process that makes avatars talks nonsense.") from overrun
        finally:
            said = await _end(process, complaints)
        if outcome is not None and outcome.code != "create_killed":
            if said:
                logger.info("the studio's worker says: %s", said)
            raise outcome
        if outcome is not None or code != 0:
            logger.warning("the studio's worker ended with %d: %s", code, said)
            raise outcome or _killed()

    def _task(self, folder: Path, order: Order, upload: Upload) -> dict[str, Any]:
        config = self._config
        return {
            "limits": {
                "memory_bytes": config.studio_memory_mb << 20,
                "cpu_s": int(config.studio_max_job_s * usable_cores()),
                "file_bytes": _FILE_MB << 20,
            },
            "niceness": self._niceness,
            "folder": str(folder.resolve()),
            "source": SOURCE_NAME + upload.ending,
            "photo": upload.photo,
            "max_clip_s": config.studio_max_clip_s,
            "name": order.name,
            "title": order.title,
            "consent": order.consent,
            "synthetic": order.synthetic,
            "sentence": order.sentence,
            "size": self._size_px,
            "seconds": self._seconds,
            "voice_name": config.voice_name if config.voice == "espeak" else "",
            "voice_rate": config.voice_rate,
        }


async def _follow(lines: asyncio.StreamReader, progress: Progress) -> VisavisError | None:
    """Reads a worker's lines up to the end; its error, or None when it said that it is done.

    Raises:
        asyncio.LimitOverrunError: a line that is too long.
        BackendFailed: ``create_failed``: too many lines.
    """
    outcome: VisavisError | None = _killed()
    nonsense = 0
    for _ in range(MAX_LINES):
        try:
            line = await lines.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return outcome
        try:
            said = json.loads(line)
            if "error" in said:
                outcome = _error(str(said["error"]["code"]), str(said["error"]["message"]))
            elif said.get("made") is True:
                outcome = None
            else:
                progress(str(said["stage"])[:MAX_STAGE_CHARS], min(1.0, max(0.0, float(said["progress"]))))
        except (ValueError, TypeError, KeyError, AttributeError):
            nonsense += 1
            if nonsense == 1:
                logger.warning("the studio's worker wrote a line that is none of ours")
    raise BackendFailed("create_failed", "The process that makes avatars talks nonsense.")


def _killed() -> PortraitInvalid:
    return PortraitInvalid(
        "create_killed", "Making the avatar took more than it may use here. Use a shorter or smaller file."
    )


def _error(code: str, message: str) -> VisavisError:
    if not _CODE.fullmatch(code):
        code = "create_failed"
    kind = {"disk_full": DiskFull, "face_models_missing": BackendFailed, "face_models_unreadable": BackendFailed}
    return kind.get(code, PortraitInvalid)(code, message[:500])


async def _tail(stream: asyncio.StreamReader) -> str:
    """Reads everything and keeps the end."""
    kept = b""
    while chunk := await stream.read(4096):
        kept = (kept + chunk)[-_TAIL_BYTES:]
    return kept.decode("utf-8", "replace").strip()


async def _end(process: asyncio.subprocess.Process, complaints: asyncio.Task[str]) -> str:
    """Kills a process and all of its session; returns what it complained of when it has ended."""
    assert process.stdin is not None and process.stdout is not None
    # The group outlives its leader while anything it started does.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.stdin.close()
    try:
        async with asyncio.timeout(_END_S):
            # asyncio tells the end of a process only after the end of its pipes, which somebody must read.
            await _tail(process.stdout)
            await process.wait()
            return await complaints
    except TimeoutError:
        complaints.cancel()
        logger.warning("something that the studio's worker started has left its session and holds on to its pipes")
        return ""
