"""Any recogniser behind ``/v1/audio/transcriptions``: OpenAI, whisper.cpp, faster-whisper servers and their like.

Place in the flow: analysis sound of a turn -> one WAV file -> one multipart request when the turn ends -> transcript.

Invariants:
    * nothing is sent before the turn ends, so there are no partial words, and a cancelled turn is never sent;
    * cancelling while the service works closes the connection;
    * a turn without enough sound for a word is not sent at all: services invent words for silence.
"""

from __future__ import annotations

import asyncio
import io
import logging
import wave
from typing import Any

import numpy as np

from engine.audio.pcm import to_int16
from engine.conversation.asr.base import MAX_TURN_S, Transcript
from engine.conversation.http import Form, Service, Timeouts
from engine.errors import Cancelled, Closed
from engine.types import ANALYSIS_RATE

DEFAULT_MODEL = "whisper-1"
TIMEOUTS = Timeouts(connect_s=3.0, first_byte_s=15.0, next_byte_s=5.0)

_LEAST_S = 0.1  # the service refuses shorter files
_SILENT_PEAK = 0.002  # -54 dBFS
_MAX_TEXT_CHARS = 8000

_log = logging.getLogger(__name__)


class OpenAiRecogniser:
    """A recogniser of a service."""

    def __init__(
        self, url: str, model: str = "", key: str = "", language: str = "", timeouts: Timeouts | None = None
    ) -> None:
        """Checks the configuration; nothing is sent yet.

        Args:
            url: base URL, see ``engine.conversation.service_url.base_url``.
            model: its name; empty for ``DEFAULT_MODEL``.
            key: secret of the service, if any.
            language: what is spoken (``en``, ``pt-BR``), or empty to let the service find out.
            timeouts: patience.

        Raises:
            ConfigInvalid: ``service_url_invalid``, ``service_key_invalid``.
        """
        self._service = Service("speech recogniser", "asr", url, key, timeouts or TIMEOUTS)
        self._fields = {"model": model or DEFAULT_MODEL, "response_format": "json"}
        self._language = language.lower().replace("_", "-").split("-")[0]
        if self._language:
            self._fields["language"] = self._language
        self._turns: set[OpenAiListening] = set()
        self._closed = False

    def listen(self) -> OpenAiListening:
        """Begins a turn; see ``Recogniser.listen``."""
        if self._closed:
            raise Closed("asr_closed", "The recogniser is closed.")
        turn = OpenAiListening(self)
        self._turns.add(turn)
        return turn

    async def aclose(self) -> None:
        """Cancels every turn and closes the connections. Idempotent."""
        self._closed = True
        for turn in list(self._turns):
            turn.cancel()
        await self._service.aclose()

    def leave(self, turn: OpenAiListening) -> None:
        """A turn is over."""
        self._turns.discard(turn)

    async def transcribe(self, samples: np.ndarray) -> Transcript:
        """Words of (n,) float32 at 16 kHz.

        Raises:
            BackendFailed: a code of ``engine.conversation.http``.
        """
        if samples.size < _LEAST_S * ANALYSIS_RATE or np.abs(samples).max() < _SILENT_PEAK:
            return Transcript("", True, self._language)
        form: Form = {**self._fields, "file": ("speech.wav", _wav(samples), "audio/wav")}
        async with self._service.ask("/audio/transcriptions", form=form) as answer:
            said: Any = await answer.json()
            text = said.get("text") if isinstance(said, dict) else None
            if not isinstance(text, str):
                raise answer.garbled("JSON without a text")
            language = said.get("language")
        known = language if isinstance(language, str) and len(language) == 2 else self._language
        return Transcript(" ".join(text.split())[:_MAX_TEXT_CHARS], True, known)


class OpenAiListening:
    """One turn; made by ``OpenAiRecogniser.listen``."""

    def __init__(self, recogniser: OpenAiRecogniser) -> None:
        self._recogniser = recogniser
        self._sound: list[np.ndarray] = []
        self._room = int(MAX_TURN_S * ANALYSIS_RATE)  # samples that may still come
        self._over = False
        self._cancelled = False
        self._request: asyncio.Task[Transcript] | None = None

    def push(self, samples: np.ndarray) -> None:
        """Hears more; see ``Listening.push``."""
        if self._over or not self._room:
            return
        kept = samples[: self._room]
        self._sound.append(kept)
        self._room -= len(kept)
        if not self._room:
            _log.warning("a turn is longer than %.0f s; the rest of it is not transcribed", MAX_TURN_S)

    async def partial(self) -> None:
        """None: the service hears the turn only when it is over."""
        return None

    async def finish(self) -> Transcript:
        """Asks the service; see ``Listening.finish``."""
        self._over = True
        if self._cancelled:
            raise _cancelled()
        samples = np.concatenate([np.zeros(0, np.float32), *self._sound])
        self._sound.clear()
        self._request = asyncio.create_task(self._recogniser.transcribe(samples), name="asr.transcribe")
        try:
            return await self._request
        except asyncio.CancelledError:
            if self._cancelled:
                raise _cancelled() from None
            raise
        finally:
            self._recogniser.leave(self)

    def cancel(self) -> None:
        """Gives the turn up; see ``Listening.cancel``."""
        self._over = self._cancelled = True
        self._sound.clear()
        self._recogniser.leave(self)
        if self._request is not None:
            self._request.cancel()


def _cancelled() -> Cancelled:
    return Cancelled("asr_cancelled", "The recogniser was stopped before it had the words.")


def _wav(samples: np.ndarray) -> bytes:
    """(n,) float32 at 16 kHz -> a WAV file, 16 bits mono."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(ANALYSIS_RATE)
        out.writeframes(to_int16(samples).astype("<i2").tobytes())
    return file.getvalue()
