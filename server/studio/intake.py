"""Takes in the form with a person's photo or clip: streamed to disk, bounded in size, time and number.

Place in the flow: POST /avatars -> ``Intake.take`` -> folder with the upload, ``Order``, ``Upload`` -> ``Jobs.submit``.

Invariants:
    * no more than the limit is ever taken in, whatever the headers claim, and nobody keeps a place by sending slowly;
    * the name of the file is never looked at, and nothing of the file is decoded here;
    * when ``take`` raises, nothing of the request stays on disk.
"""

from __future__ import annotations

import asyncio
import errno
import time
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import BodyPartReader, web

from engine.config import Config
from engine.errors import Busy, InvalidInput
from server.studio.jobs import Jobs, OnThread
from server.studio.order import FIELDS, MAX_FIELD_BYTES, Order, read_order
from server.studio.process import SOURCE_NAME
from server.studio.sniff import Upload, sniff
from server.studio.workplace import Workplace, disk_full

MAX_UPLOADS = 2
"""Forms that arrive at a time."""
CHUNK_BYTES = 1 << 18
CHUNK_TIMEOUT_S = 20.0
GRACE_S = 15.0
LEAST_BYTES_PER_S = 16_000
"""After the first seconds a sender must have been this fast; the slowest telephone line is."""
_FORM_BYTES = 64_000
"""Of a form beside its file."""


class Intake:
    """Takes in uploads for the studio."""

    def __init__(self, config: Config, jobs: Jobs, workplace: Workplace, on_thread: OnThread[Any]) -> None:
        """
        Args:
            config: options.
            jobs: what the uploads are for.
            workplace: where they are put.
            on_thread: runs blocking work.
        """
        self._jobs = jobs
        self._workplace = workplace
        self._on_thread = on_thread
        self._max_bytes = config.studio_max_mb * 1_000_000
        self._max_pixels = config.studio_max_megapixels * 1_000_000
        self._active = 0

    async def take(self, request: web.Request) -> tuple[Path, Order, Upload]:
        """Reads and checks a form.

        Returns:
            Folder of the job, which now is the caller's; what to make; what the file is.

        Raises:
            InvalidInput: ``unsupported_media_type``, ``invalid_form``, ``body_too_large``, ``request_timeout``, or a
                field that cannot be used.
            PortraitInvalid: the file cannot be used.
            Busy: ``studio_busy``, ``uploads_busy``.
            DiskFull: ``disk_full``.
            BackendFailed: ``data_dir_unwritable``.
            web.HTTPLengthRequired: without a length nothing could be refused in time.
        """
        self._jobs.require_room()
        if request.content_type != "multipart/form-data":
            raise InvalidInput("unsupported_media_type", "Send a form (multipart/form-data) with the photo or clip.")
        if request.content_length is None:
            raise web.HTTPLengthRequired
        if request.content_length > self._max_bytes + _FORM_BYTES:
            raise self._too_large()
        if self._active >= MAX_UPLOADS:
            raise Busy("uploads_busy", "Other files are arriving; try again in a moment.")
        self._active += 1
        folder: Path | None = None
        try:
            length = request.content_length
            folder = await self._on_thread(lambda: self._workplace.open_job(length))
            fields = await self._receive(request, folder / SOURCE_NAME)
            upload = await self._on_thread(partial(_identify, folder / SOURCE_NAME, self._max_pixels))
            # Last, so that nobody else can be promised the name before the job has it.
            order = read_order(fields, self._jobs.is_free)
        except BaseException as error:
            if folder is not None:
                await self._on_thread(partial(self._workplace.close_job, folder))
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full() from error
            raise
        finally:
            self._active -= 1
        return folder, order, upload

    async def _receive(self, request: web.Request, path: Path) -> dict[str, str]:
        pace = _Pace()
        fields: dict[str, str] = {}
        has_file = False
        try:
            form = await pace.soon(request.multipart())
            while (part := await pace.soon(form.next())) is not None:
                if not isinstance(part, BodyPartReader) or part.name in fields:
                    raise InvalidInput("invalid_form", "The form has a part twice, or parts within parts.")
                if part.name == "file" and not has_file:
                    has_file = True
                    with await self._on_thread(partial(path.open, "xb")) as file:
                        await self._store(part, file, pace)
                elif part.name in FIELDS:
                    fields[part.name] = await _text(part, pace)
                else:
                    raise InvalidInput("invalid_form", f"A form has one file and, as texts, {', '.join(FIELDS)}.")
        except TimeoutError:
            raise InvalidInput("request_timeout", "The file arrives too slowly; try again on a better line.") from None
        except (ValueError, AssertionError, web.HTTPException) as error:
            raise InvalidInput("invalid_form", "The form cannot be read.") from error
        if not has_file:
            raise InvalidInput("invalid_form", "The form has no photo or clip; send it as the part called file.")
        return fields

    async def _store(self, part: BodyPartReader, file: BinaryIO, pace: _Pace) -> None:
        size = 0
        while chunk := await pace.soon(part.read_chunk(CHUNK_BYTES)):
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            pace.passed(len(chunk))
            await self._on_thread(partial(file.write, chunk))
        # What was buffered must meet a full disk here, not when the file is closed.
        await self._on_thread(file.flush)

    def _too_large(self) -> InvalidInput:
        return InvalidInput("body_too_large", f"A photo or clip may have {self._max_bytes // 1_000_000} MB at most.")


class _Pace:
    """How fast a form arrives."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._bytes = 0

    def passed(self, size: int) -> None:
        """Counts bytes. Raises TimeoutError when they came too slowly."""
        self._bytes += size
        if self._bytes < (time.monotonic() - self._started_s - GRACE_S) * LEAST_BYTES_PER_S:
            raise TimeoutError

    async def soon(self, reading: Any) -> Any:
        """The result of reading. Raises TimeoutError when it does not come."""
        async with asyncio.timeout(CHUNK_TIMEOUT_S):
            return await reading


async def _text(part: BodyPartReader, pace: _Pace) -> str:
    text = b""
    while chunk := await pace.soon(part.read_chunk(MAX_FIELD_BYTES)):
        text += chunk
        pace.passed(len(chunk))
        if len(text) > MAX_FIELD_BYTES:
            raise InvalidInput("invalid_form", f"A text of the form may have {MAX_FIELD_BYTES} bytes at most.")
    return text.decode()


def _identify(path: Path, max_pixels: int) -> Upload:
    """Gives a file the ending of what it is."""
    upload = sniff(path, max_pixels)
    path.rename(path.with_name(path.name + upload.ending))
    return upload
