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

import cv2
import numpy as np
from aiohttp import web

from engine.aio import Tasks
from engine.avatar.bundle import Avatar
from engine.avatar.matte import pure_colour
from engine.avatar.matte_file import MATTE_FILE, Matte, first_matte, footage_digest, is_matte_of, read_matte
from engine.config import Config
from engine.errors import BackendFailed, NotFound
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

    async def cutout(self, name: str) -> bytes:
        """A known avatar's poster before nothing: WebP with transparency; made anew each time, in a few milliseconds.

        Raises:
            NotFound: ``avatar_unknown``; ``matte_missing``: nobody has asked for another background yet.
            AvatarInvalid: its footage cannot be read.
        """
        folder = self._stage.library.folder(name).absolute()
        poster = await self._stage.poster(name)
        return await self._stage.on_file_thread(lambda: self._cut_out(name, folder, poster.jpeg))

    def _cut_out(self, name: str, folder: Path, poster: bytes) -> bytes:
        path = _found(self._places(name, folder), footage_digest(folder))
        if path is None:
            raise NotFound("matte_missing", f"{name} has not been cut out of the background yet.")
        matte = first_matte(path, name)
        picture = cv2.imdecode(np.frombuffer(poster, np.uint8), cv2.IMREAD_COLOR)
        if picture is None or picture.shape[:2] != matte.shape:
            raise NotFound("matte_missing", f"The matte of {name} does not fit.")
        _, webp = cv2.imencode(".webp", np.dstack([pure_colour(picture, matte), matte]), [cv2.IMWRITE_WEBP_QUALITY, 90])
        return webp.tobytes()

    def _places(self, name: str, folder: Path) -> list[Path]:
        """Where a matte may be: beside the footage, or among the server's own data for what it must not write to."""
        return [folder / MATTE_FILE, self._config.data_dir.absolute() / "mattes" / f"{name}.mp4"]

    async def aclose(self) -> None:
        """Ends what is being made; idempotent."""
        await self._tasks.aclose()

    async def _fetch(self, avatar: Avatar, folder: Path, key: tuple[str, str]) -> Matte:
        own, shipped = places = self._places(avatar.name, folder)
        path = await self._stage.on_file_thread(lambda: _found(places, key[1]))
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


MATTES = web.AppKey("mattes", Mattes)

matte_routes = web.RouteTableDef()


@matte_routes.get("/avatars/{name}/cutout.webp")
async def cutout(request: web.Request) -> web.Response:
    """An avatar at rest before nothing."""
    webp = await request.app[MATTES].cutout(request.match_info["name"])
    return web.Response(body=webp, content_type="image/webp", headers={"Cache-Control": "public, max-age=300"})


def _failed(name: str) -> BackendFailed:
    return BackendFailed(
        "matte_failed",
        f"{name} could not be cut out of the background, so it is shown as filmed. The server's log says why; "
        f"python -m engine avatar matte {name} tries it again.",
    )
