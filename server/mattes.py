"""The mattes of a server's avatars: found, made by a process of its own where there is none, in memory while needed.

Place in the flow: a browser asks for another background -> ``Mattes.get`` -> ``Packing``.

Invariants:
    * nobody waits for a matte but who asks for it: it is made at low priority, one at a time, and once;
    * a matte is in memory while somebody holds it, and shared by all who do;
    * what is made of a person who was uploaded lies in that avatar's folder and goes with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

from engine.aio import Tasks
from engine.avatar.bundle import Avatar
from engine.avatar.matte_file import MATTE_FILE, Matte, footage_digest, is_matte_of, read_matte
from engine.config import Config
from engine.errors import BackendFailed
from server.stage import Stage

logger = logging.getLogger(__name__)

MAX_S = 900.0
"""Longest time making one may take; a second of footage takes about one and a half."""

_REPOSITORY = Path(__file__).resolve().parents[1]
_NICENESS = 15
_TAIL_BYTES = 2000
# The process needs no option of the server, so none of its keys.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH")


class Mattes:
    """All mattes of a server."""

    def __init__(self, config: Config, stage: Stage) -> None:
        """Args: config: options; stage: where avatars live."""
        self._config = config
        self._stage = stage
        self._known: weakref.WeakValueDictionary[tuple[str, str], Matte] = weakref.WeakValueDictionary()
        self._fetching: dict[tuple[str, str], asyncio.Task[Matte]] = {}
        self._making = asyncio.Lock()
        self._tasks = Tasks("mattes")

    async def get(self, avatar: Avatar) -> Matte:
        """The matte of an avatar; takes a second, or half a minute where it has to be made.

        Raises:
            NotFound: ``avatar_unknown``: it was deleted meanwhile.
            AvatarInvalid: its footage cannot be read.
            BackendFailed: ``matte_failed``.
        """
        # The process that makes it has a working directory of its own.
        folder = self._stage.library.folder(avatar.name).absolute()
        key = (avatar.name, await self._stage.on_file_thread(lambda: footage_digest(folder)))
        matte = self._known.get(key)
        if matte is not None:
            return matte
        if key not in self._fetching:
            self._fetching[key] = self._tasks.start(self._fetch(avatar, folder, key), avatar.name)
            self._fetching[key].add_done_callback(lambda _task: self._fetching.pop(key, None))
        # Who asked first may leave; others may wait for the same.
        return await asyncio.shield(self._fetching[key])

    async def aclose(self) -> None:
        """Ends what is being made; idempotent."""
        await self._tasks.aclose()

    async def _fetch(self, avatar: Avatar, folder: Path, key: tuple[str, str]) -> Matte:
        shipped = self._config.data_dir.absolute() / "mattes" / f"{avatar.name}.mp4"
        own = folder / MATTE_FILE
        path = await self._stage.on_file_thread(lambda: _found([own, shipped], key[1]))
        if path is None:
            path = own if self._stage.library.is_made(avatar.name) else shipped
            async with self._making:
                await _make(avatar.name, folder.parent, path)
        matte = await self._stage.on_file_thread(lambda: read_matte(path, avatar))
        self._known[key] = matte
        logger.info("the matte of %s takes %.1f MB", avatar.name, matte.size_bytes / 1e6)
        return matte


def _found(paths: Sequence[Path], digest: str) -> Path | None:
    """The first file that is the matte of that footage."""
    return next((path for path in paths if is_matte_of(path, digest)), None)


async def _make(name: str, avatars_dir: Path, path: Path) -> None:
    """Runs the command that makes a matte. Cancellation ends it.

    Raises:
        BackendFailed: ``matte_failed``.
    """
    logger.info("cutting %s out of the background; this is done once", name)
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = ["-m", "engine", "avatar", "matte", name, "--avatars-dir", str(avatars_dir), "--output",
               str(path), "--nice", str(_NICENESS), "--quiet"]  # fmt: skip
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=_REPOSITORY, env=environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise _failed(name) from error
    assert process.stderr is not None
    try:
        async with asyncio.timeout(MAX_S):
            said = (await process.stderr.read())[-_TAIL_BYTES:].decode(errors="replace").strip()
            code = await process.wait()
    except TimeoutError as error:
        raise _failed(name) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        logger.warning("the matte of %s could not be made (%d): %s", name, code, said)
        raise _failed(name)


def _failed(name: str) -> BackendFailed:
    return BackendFailed(
        "matte_failed",
        f"{name} could not be cut out of the background, so it is shown as filmed. The server's log says why; "
        f"python -m engine avatar matte {name} tries it again.",
    )
