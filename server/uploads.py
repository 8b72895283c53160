"""Sound files as they come over HTTP: streamed to disk, bounded in size and time, decoded on a thread.

Place in the flow: POST /sessions/{id}/audio -> ``receive`` -> ``decode_audio`` -> ``Session.play``.

Invariants:
    * no more than the limit is ever taken in, whatever the headers claim;
    * nothing of a file stays on disk, however the request ends;
    * few files are decoded at a time: one is hundreds of megabytes of sound.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from aiohttp import BodyPartReader, web

from engine.audio.decode import decode_audio
from engine.errors import AudioInvalid, Busy, InvalidInput
from server.stage import Stage

CHUNK_BYTES = 1 << 18
MAX_WAITING = 4
RECEIVE_TIMEOUT_S = 120.0


class Uploads:
    """Takes sound files for all sessions."""

    def __init__(self, stage: Stage) -> None:
        """Args: stage: its threads decode; its configuration has the limits."""
        self._stage = stage
        self._max_bytes = stage.config.max_audio_mb * 1_000_000
        self._max_s = stage.config.max_audio_s
        self._active = 0

    async def sound(self, request: web.Request, chunks: AsyncIterator[bytes] | None = None) -> np.ndarray:
        """Reads and decodes the sound file in a request's body, plain or as the first file of a form.

        Args:
            request: who sends it.
            chunks: reads the file out of the body, where it comes in another form.

        Returns:
            (N,) int16 mono at 48 kHz.

        Raises:
            AudioInvalid: ``audio_unreadable``, ``audio_empty`` or ``audio_too_long``.
            InvalidInput: ``body_too_large``, ``request_timeout`` or ``unsupported_media_type``.
            Busy: ``uploads_busy``.
        """
        if request.content_length is not None and request.content_length > self._max_bytes:
            raise self._too_large()
        if self._active >= MAX_WAITING:
            raise Busy("uploads_busy", "Other files are being read; try again in a moment.")
        self._active += 1
        try:
            handle, name = tempfile.mkstemp(prefix="visavis-")
            path = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    await self._receive(_body(request) if chunks is None else chunks, file)
                return await self._stage.on_file_thread(lambda: decode_audio(path, self._max_s))
            finally:
                await self._stage.on_file_thread(lambda: path.unlink(missing_ok=True))
        finally:
            self._active -= 1

    async def _receive(self, chunks: AsyncIterator[bytes], file: BinaryIO) -> None:
        size = 0
        try:
            async with asyncio.timeout(RECEIVE_TIMEOUT_S):
                async for chunk in chunks:
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise self._too_large()
                    await self._stage.on_file_thread(partial(file.write, chunk))
        except TimeoutError:
            raise InvalidInput("request_timeout", f"The file did not arrive in {RECEIVE_TIMEOUT_S:.0f} s.") from None
        if size == 0:
            raise AudioInvalid("audio_empty", "The file is empty (0 bytes).")

    def _too_large(self) -> InvalidInput:
        return InvalidInput("body_too_large", f"A sound file may have {self._max_bytes // 1_000_000} MB at most.")


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    if request.content_type == "application/json":
        raise InvalidInput("unsupported_media_type", "Send the bytes of a sound file, or a form with one file.")
    if not request.content_type.startswith("multipart/"):
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            yield chunk
        return
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.filename is not None:
                while chunk := await part.read_chunk(CHUNK_BYTES):
                    yield chunk
                return
    except ValueError as error:
        raise InvalidInput("invalid_form", "The form cannot be read.") from error
    raise InvalidInput("invalid_form", "The form has no file.")
