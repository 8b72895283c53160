"""Whole sound files in another voice: taken in, changed with progress, kept until they are fetched or spoken.

Place in the flow: POST /conversions -> upload -> VoiceStage -> GET /conversions/{id}/audio, or a session plays it.

Invariants:
    * few are kept at a time and each is as long as a file may be, so their memory is bounded;
    * one that nobody asks about for ``KEEP_S`` is given up, whatever it has come to; one whose sender left before it
      began is not begun;
    * ids are unguessable: whoever has one may hear and delete that conversion and no other.
"""

from __future__ import annotations

import asyncio
import io
import logging
import secrets
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

from engine.aio import Tasks
from engine.conversation.voice.base import VoiceChange, VoiceStage
from engine.errors import BackendFailed, Busy, Closed, InvalidInput, NotFound, VisavisError
from engine.types import PLAYOUT_RATE
from engine.voice_stages import VoiceStages
from server.uploads import Uploads

MAX_KEPT = 4
KEEP_S = 300.0
_STEP_SAMPLES = PLAYOUT_RATE

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Conversion:
    """One file.

    Attributes:
        id: what the client calls it.
        total: its length, samples.
        taken: samples that were changed.
        samples: (total,) int16 mono at 48 kHz once it is done.
        error: what went wrong.
    """

    id: str
    total: int
    taken: int = 0
    samples: np.ndarray | None = None
    error: VisavisError | None = None
    _task: asyncio.Task[None] | None = field(default=None, repr=False)
    _expiry: asyncio.TimerHandle | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As the wire shows it; ``error`` only where it failed."""
        state = "failed" if self.error is not None else "done" if self.samples is not None else "running"
        told: dict[str, Any] = {
            "id": self.id,
            "state": state,
            "progress": 1.0 if state == "done" else round(self.taken / self.total, 3),
            "duration_ms": self.total * 1000 // PLAYOUT_RATE,
        }
        if self.error is not None:
            told["error"] = self.error.to_dict()
        return told

    @property
    def sound(self) -> np.ndarray:
        """The changed sound.

        Raises:
            Busy: ``conversion_running``: not yet.
            VisavisError: what went wrong.
        """
        if self.error is not None:
            raise self.error
        if self.samples is None:
            raise Busy("conversion_running", "This file is still being converted; ask for it again in a moment.")
        return self.samples

    def wav(self) -> bytes:
        """The changed sound as a file. Raises as ``sound``."""
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(PLAYOUT_RATE)
            writer.writeframes(self.sound.astype("<i2").tobytes())
        return file.getvalue()


class Conversions:
    """All conversions of the server."""

    def __init__(
        self, uploads: Uploads, stages: VoiceStages, new_id: Callable[[], str] = lambda: secrets.token_urlsafe(12)
    ) -> None:
        """Args: uploads: takes files in; stages: change them; new_id: makes unguessable ids."""
        self._new_id = new_id
        self._uploads = uploads
        self._stages = stages
        self._tasks = Tasks("conversions")
        self._kept: dict[str, Conversion] = {}
        self._coming = 0

    async def begin(self, request: web.Request, change: VoiceChange) -> Conversion:
        """Takes a file in and starts to convert it.

        Args:
            request: its body is the file.
            change: of the voice.

        Raises:
            InvalidInput: ``voice_change_missing``, or as ``Uploads.sound``.
            NotFound: ``voice_conversion_unknown``.
            Busy: ``conversions_busy``, or as ``Uploads.sound``.
            AudioInvalid: as ``Uploads.sound``.
            Closed: ``client_gone``: whoever sent the file has left.
            VisavisError: as ``VoiceStages.stage``.
        """
        if not change.changes:
            raise InvalidInput("voice_change_missing", "Say how to change the voice: pitch, formant or conversion.")
        if len(self._kept) + self._coming >= MAX_KEPT:
            raise Busy("conversions_busy", "Other files are being converted; try again in a moment.")
        self._coming += 1
        try:
            stage = await self._stages.stage(change)
            assert stage is not None, "something is changed"
            samples = await self._uploads.sound(request)
            if request.transport is None or request.transport.is_closing():
                # Nobody learns the id, so nobody would ever give the place back.
                raise Closed("client_gone", "Whoever sent the file has left.")
            conversion = Conversion(self._new_id(), len(samples))
            self._kept[conversion.id] = conversion
        finally:
            self._coming -= 1
        conversion._task = self._tasks.start(self._convert(conversion, stage, samples), "convert")
        self._prolong(conversion)
        return conversion

    def get(self, conversion_id: str) -> Conversion:
        """A conversion by id, which is kept for longer then.

        Raises:
            NotFound: ``conversion_not_found``.
        """
        conversion = self._kept.get(conversion_id)
        if conversion is None:
            raise NotFound("conversion_not_found", "There is no such conversion; it may have been given up.")
        self._prolong(conversion)
        return conversion

    async def forget(self, conversion_id: str) -> None:
        """Gives up a conversion and frees what it holds. Raises as ``get``."""
        conversion = self.get(conversion_id)
        self._drop(conversion)
        if conversion._task is not None:
            await self._tasks.cancel(conversion._task)

    async def aclose(self) -> None:
        """Gives up all. Idempotent."""
        for conversion in list(self._kept.values()):
            self._drop(conversion)
        await self._tasks.aclose()

    async def _convert(self, conversion: Conversion, stage: VoiceStage, samples: np.ndarray) -> None:
        try:
            stream = stage.open(PLAYOUT_RATE, live=False)
            parts = []
            for start in range(0, len(samples), _STEP_SAMPLES):
                parts.append(await stream.push(samples[start : start + _STEP_SAMPLES]))
                conversion.taken += len(parts[-1])
            parts.append(await stream.flush())
            conversion.samples = np.concatenate(parts)
        except VisavisError as error:
            conversion.error = error
        except Exception as error:
            logger.exception("converting a file failed")
            conversion.error = BackendFailed("conversion_failed", "The voice of this file could not be changed.")
            conversion.error.__cause__ = error

    def _prolong(self, conversion: Conversion) -> None:
        if conversion._expiry is not None:
            conversion._expiry.cancel()
        conversion._expiry = asyncio.get_running_loop().call_later(KEEP_S, self._drop, conversion)

    def _drop(self, conversion: Conversion) -> None:
        self._kept.pop(conversion.id, None)
        if conversion._expiry is not None:
            conversion._expiry.cancel()
        if conversion._task is not None:
            conversion._task.cancel()


CONVERSIONS: web.AppKey[Conversions] = web.AppKey("conversions", Conversions)
