"""The voices that Microsoft Edge reads pages with, through edge-tts: free, good, in many languages, and not private.

Place in the flow: sentence -> WebSocket of the service -> MP3 and the times of the words -> SpeechPiece.

Every sentence leaves the machine. The service is made for a browser: it may change or refuse at any time.

Invariants:
    * a sentence is one piece, decoded when it is complete, so that its words come with their times;
    * the silence that the service puts before and behind every sentence is taken off, and the words moved with it;
    * the package is imported when a voice is made, so nothing pays for it otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np

from engine.audio.decode import decode_audio
from engine.conversation.tts.base import SpeechPiece, Word
from engine.conversation.tts.sentences import pause_after_ms, split_sentences
from engine.errors import AudioInvalid, BackendFailed, Closed, ConfigInvalid
from engine.types import PLAYOUT_RATE

DEFAULT_VOICE = "en-US-EmmaMultilingualNeural"
MAX_SENTENCE_S = 180.0
MAX_SENTENCE_BYTES = 4 << 20

_USUAL_RATE_WPM = 165
_SLOWEST_PERCENT, _FASTEST_PERCENT = -50, 100
_TICKS_PER_MS = 10_000
_CONNECT_S, _FIRST_S, _NEXT_S = 3, 8.0, 5.0
_SILENT = 130  # -48 dBFS
_LEAD_MS, _TAIL_MS = 30, 60  # of the silence that stays

_log = logging.getLogger(__name__)


class EdgeVoice:
    """A voice of the service."""

    def __init__(self, name: str = "", rate_wpm: int = _USUAL_RATE_WPM) -> None:
        """Checks the configuration; nothing is sent yet.

        Args:
            name: of the voice, as ``edge-tts --list-voices`` has it; empty for ``DEFAULT_VOICE``.
            rate_wpm: pace; 165 leaves it to the voice.

        Raises:
            BackendFailed: ``voice_unavailable``: the package is missing.
            ConfigInvalid: ``voice_unknown``.
        """
        try:
            import edge_tts
        except ImportError as error:
            raise BackendFailed(
                "voice_unavailable", "The voice edge needs a package. Install it with: pip install edge-tts."
            ) from error
        self._package: Any = edge_tts
        percent = round(100 * (rate_wpm / _USUAL_RATE_WPM - 1))
        self._options: dict[str, Any] = {
            "voice": name or DEFAULT_VOICE,
            "rate": f"{min(max(percent, _SLOWEST_PERCENT), _FASTEST_PERCENT):+d}%",
            "boundary": "WordBoundary",
            "connect_timeout": _CONNECT_S,
        }
        self._closed = False
        try:
            edge_tts.Communicate("x", **self._options)
        except ValueError as error:
            raise ConfigInvalid(
                "voice_unknown",
                f"{name!r} is no name of a voice for voice_name (VISAVIS_VOICE_NAME). This lists them: "
                "edge-tts --list-voices.",
            ) from error

    async def speak(self, text: str) -> AsyncIterator[SpeechPiece]:
        """Speaks a text sentence by sentence; see ``Voice.speak``.

        Raises:
            BackendFailed: ``service_unreachable``, ``service_timeout``, ``service_failed``, ``service_garbled``.
            Closed: ``voice_closed``.
        """
        sentences = [part for part in split_sentences(text) if any(char.isalnum() for char in part)]
        for index, sentence in enumerate(sentences):
            if self._closed:
                raise Closed("voice_closed", "The voice edge is closed.")
            pause_ms = pause_after_ms(sentence) if index + 1 < len(sentences) else 0
            file, words = await self._ask(sentence)
            try:
                sound = await asyncio.to_thread(decode_audio, file, MAX_SENTENCE_S)
            except AudioInvalid:
                raise _failure("service_garbled", "gave an answer that cannot be used: no sound.") from None
            yield _piece(sentence, sound, words, pause_ms)

    async def aclose(self) -> None:
        """Nothing is held between sentences; may be called twice."""
        self._closed = True

    async def _ask(self, sentence: str) -> tuple[bytes, list[Word]]:
        """A sentence's MP3, and its words with their times in it."""
        file, words = bytearray(), []
        try:
            async with asyncio.timeout(_FIRST_S) as limit:
                chunks = self._package.Communicate(sentence, **self._options).stream()
                async with aclosing(chunks):
                    async for chunk in chunks:
                        limit.reschedule(asyncio.get_running_loop().time() + _NEXT_S)
                        if chunk["type"] == "audio":
                            file += chunk["data"]
                        elif chunk["type"] == "WordBoundary":
                            start_ms = chunk["offset"] // _TICKS_PER_MS
                            words.append(Word(chunk["text"], start_ms, start_ms + chunk["duration"] // _TICKS_PER_MS))
                        if len(file) > MAX_SENTENCE_BYTES:
                            raise _failure("service_garbled", "gave an answer that cannot be used: it does not end.")
        except BackendFailed:
            raise
        except TimeoutError:
            raise _failure("service_timeout", "did not answer in time.") from None
        except OSError:  # aiohttp's errors of connections are such
            raise _failure("service_unreachable", "cannot be reached. Is this machine on the internet?") from None
        except self._package.exceptions.NoAudioReceived:
            unknown = "sent no sound. Check that voice_name (VISAVIS_VOICE_NAME) is a voice it has."
            raise _failure("service_failed", unknown) from None
        except Exception as error:
            _log.warning("the voice edge failed: %s", type(error).__name__)
            raise _failure("service_failed", "refuses the request. A newer edge-tts may help.") from error
        return bytes(file), words


def _failure(code: str, what: str) -> BackendFailed:
    return BackendFailed(code, f"The service of the voice edge {what}")


def _piece(sentence: str, sound: np.ndarray, words: list[Word], pause_ms: int) -> SpeechPiece:
    """A sentence without the silence around it, and with its pause.

    Args:
        sentence: its text.
        sound: (n,) int16 at 48 kHz.
        words: with times from the start of the sound.
        pause_ms: silence that follows.
    """
    loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > _SILENT)
    if not len(loud):
        raise _failure("service_garbled", "gave an answer that cannot be used: silence.")
    per_ms = PLAYOUT_RATE // 1000
    first = max(0, int(loud[0]) // per_ms - _LEAD_MS)
    last = int(loud[-1]) // per_ms + _TAIL_MS
    kept = np.pad(sound[first * per_ms : last * per_ms], (0, pause_ms * per_ms))
    length_ms = len(kept) // per_ms
    moved = [
        Word(word.text, min(max(word.start_ms - first, 0), length_ms), min(max(word.end_ms - first, 0), length_ms))
        for word in words
    ]
    return SpeechPiece(kept, PLAYOUT_RATE, sentence, moved)
