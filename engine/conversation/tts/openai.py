"""Any voice behind ``/v1/audio/speech``: OpenAI, Kokoro-FastAPI, openedai-speech, LocalAI and their like.

Place in the flow: text -> sentences -> one request each -> SpeechPiece, part by part while the sound arrives.

Invariants:
    * a sentence's first sound leaves as soon as ``_FIRST_PART_S`` of it is here;
    * leaving the iterator closes the connection, so the service stops working at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from engine.conversation.http import Service, Timeouts
from engine.conversation.tts.base import SpeechPiece
from engine.conversation.tts.sentences import is_wide, pause_after_ms, split_sentences
from engine.conversation.tts.sound_stream import SoundStream
from engine.errors import AudioInvalid

DEFAULT_MODEL = "tts-1"
DEFAULT_VOICE = "alloy"
PCM_RATE = 24_000  # Hz, of ``response_format`` pcm
MAX_SENTENCE_S = 180.0

_USUAL_RATE_WPM = 165  # a voice's own pace; the option's default
_SLOWEST, _FASTEST = 0.25, 4.0
_FIRST_PART_S, _PART_S = 0.06, 0.25
_USUAL_MS_PER_WEIGHT = 65.0


class OpenAiVoice:
    """A voice of a service."""

    def __init__(
        self,
        url: str,
        key: str = "",
        model: str = "",
        name: str = "",
        rate_wpm: int = _USUAL_RATE_WPM,
        timeouts: Timeouts | None = None,
    ) -> None:
        """Checks the configuration; nothing is sent yet.

        Args:
            url: base URL, see ``service_url.base_url``.
            key: secret of the service, if any.
            model: its name; empty for ``DEFAULT_MODEL``.
            name: of the voice; empty for ``DEFAULT_VOICE``.
            rate_wpm: pace; 165 leaves it to the voice.
            timeouts: patience.

        Raises:
            ConfigInvalid: ``service_url_invalid``, ``service_key_invalid``.
        """
        self._service = Service("voice", "voice", url, key, timeouts or Timeouts(first_byte_s=10.0, next_byte_s=5.0))
        self._asked: dict[str, Any] = {"model": model or DEFAULT_MODEL, "voice": name or DEFAULT_VOICE}
        self._asked["response_format"] = "pcm"
        if rate_wpm != _USUAL_RATE_WPM:
            self._asked["speed"] = round(min(max(rate_wpm / _USUAL_RATE_WPM, _SLOWEST), _FASTEST), 2)
        self._ms_per_weight = _USUAL_MS_PER_WEIGHT

    async def speak(self, text: str) -> AsyncIterator[SpeechPiece]:
        """Speaks a text sentence by sentence; see ``Voice.speak``.

        Raises:
            BackendFailed: a code of ``engine.conversation.http``; ``service_garbled`` for what is no sound.
        """
        sentences = [part for part in split_sentences(text) if any(char.isalnum() for char in part)]
        for index, sentence in enumerate(sentences):
            pause_ms = pause_after_ms(sentence) if index + 1 < len(sentences) else 0
            async with self._service.ask("/audio/speech", json={**self._asked, "input": sentence}) as answer:
                sound = SoundStream(answer.content_type, PCM_RATE, MAX_SENTENCE_S)
                told, samples = 0, np.zeros(0, np.int16)
                try:
                    async for chunk in answer.chunks():
                        samples = np.concatenate([samples, sound.feed(chunk)])
                        if len(samples) >= (_PART_S if told else _FIRST_PART_S) * sound.rate:
                            yield self._part(sentence, samples, sound.rate, first=not told, more=True)
                            told, samples = told + len(samples), samples[:0]
                    samples = np.concatenate([samples, await asyncio.to_thread(sound.end)])
                except ValueError as error:
                    raise answer.garbled(str(error)) from None
                except AudioInvalid:
                    raise answer.garbled("sound that cannot be decoded") from None
                if not told and not len(samples):
                    raise answer.garbled("no sound")
            self._learn_pace(sentence, told + len(samples), sound.rate)
            samples = np.pad(samples, (0, sound.rate * pause_ms // 1000))
            yield self._part(sentence, samples, sound.rate, first=not told, more=False)

    def _part(self, sentence: str, samples: np.ndarray, rate: int, *, first: bool, more: bool) -> SpeechPiece:
        expected_ms = round(self._ms_per_weight * _weight(sentence)) if first and more else 0
        return SpeechPiece(samples, rate, sentence if first else "", more=more, expected_ms=expected_ms)

    def _learn_pace(self, sentence: str, count: int, rate: int) -> None:
        """How long a sentence takes is best told from those before."""
        pace = 1000 * count / rate / _weight(sentence)
        self._ms_per_weight += 0.3 * (min(max(pace, 20.0), 300.0) - self._ms_per_weight)

    async def aclose(self) -> None:
        """Closes all connections; may be called twice."""
        await self._service.aclose()


def _weight(sentence: str) -> int:
    """How much there is to say: a letter is 1, a Chinese or Japanese character 3."""
    return sum(3 if is_wide(char) else 1 for char in sentence)
