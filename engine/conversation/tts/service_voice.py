"""Any voice behind a service that takes a sentence and sends its sound back.

Place in the flow: text -> sentences -> one request each -> SpeechPiece, part by part while the sound arrives.

Invariants:
    * a sentence's first sound leaves as soon as ``_FIRST_PART_S`` of it is here;
    * leaving the iterator closes the connection, so the service stops working at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.conversation.http import Form, Service
from engine.conversation.tts.base import SpeechPiece
from engine.conversation.tts.sentences import is_wide, pause_after_ms, split_sentences
from engine.conversation.tts.sound_stream import SoundStream
from engine.errors import AudioInvalid

USUAL_RATE_WPM = 165
"""A voice's own pace; the option's default."""
MAX_SENTENCE_S = 180.0

_FIRST_PART_S, _PART_S = 0.06, 0.25
_USUAL_MS_PER_WEIGHT = 65.0


@dataclass(frozen=True, slots=True)
class Request:
    """How a sentence is asked for: the endpoint, and the body as JSON or as a form."""

    path: str
    json: Any = None
    form: Form | None = None


class ServiceVoice:
    """A voice of a service.

    Args:
        service: the service; closed with the voice.
        request: a sentence -> how to ask for its sound.
        pcm_rate: Hz of sound that the service sends without telling its rate.
    """

    def __init__(self, service: Service, request: Callable[[str], Request], pcm_rate: int) -> None:
        self._service = service
        self._request = request
        self._pcm_rate = pcm_rate
        self._ms_per_weight = _USUAL_MS_PER_WEIGHT

    async def speak(self, text: str) -> AsyncIterator[SpeechPiece]:
        """Speaks a text sentence by sentence; see ``Voice.speak``.

        Raises:
            BackendFailed: a code of ``engine.conversation.http``; ``service_garbled`` for what is no sound.
        """
        sentences = [part for part in split_sentences(text) if any(char.isalnum() for char in part)]
        for index, sentence in enumerate(sentences):
            pause_ms = pause_after_ms(sentence) if index + 1 < len(sentences) else 0
            asked = self._request(sentence)
            async with self._service.ask(asked.path, json=asked.json, form=asked.form) as answer:
                sound = SoundStream(answer.content_type, self._pcm_rate, MAX_SENTENCE_S)
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
