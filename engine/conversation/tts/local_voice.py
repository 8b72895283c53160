"""A voice made of any synthesiser that runs in this process and blocks while it works.

Place in the flow: text -> sentences -> Synthesiser, on a thread of its own -> SpeechPiece.

Invariants:
    * only that one thread enters the synthesiser;
    * a cancelled sentence ends with the part that is being made; nothing of it comes out any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from engine.conversation.tts.base import SpeechPiece
from engine.conversation.tts.sentences import pause_after_ms, split_sentences
from engine.errors import BackendFailed, Closed


class Synthesiser(Protocol):
    """What a package makes sound with."""

    def parts(self, sentence: str) -> Iterator[tuple[np.ndarray, int]]:
        """A sentence as (samples (n,) int16 mono, rate in Hz), part by part; a generator that may raise anything."""
        ...


class LocalVoice:
    """Speaks with a synthesiser.

    Args:
        name: what it is to a person.
        synthesiser: loaded and ready.
    """

    def __init__(self, name: str, synthesiser: Synthesiser) -> None:
        self._name = name
        self._synthesiser = synthesiser
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="voice")

    async def speak(self, text: str) -> AsyncIterator[SpeechPiece]:
        """Speaks a text sentence by sentence; see ``Voice.speak``.

        Raises:
            BackendFailed: ``voice_failed``.
            Closed: ``voice_closed``.
        """
        if self._closed:
            raise Closed("voice_closed", f"The voice {self._name} is closed.")
        sentences = [part for part in split_sentences(text) if any(char.isalnum() for char in part)]
        for index, sentence in enumerate(sentences):
            parts = self._synthesiser.parts(sentence)
            told, rate = "", 0
            try:
                while (part := await asyncio.wrap_future(self._thread.submit(self._next, parts))) is not None:
                    samples, rate = part
                    yield SpeechPiece(samples, rate, "" if told else sentence, more=True)
                    told = sentence
            finally:
                if not self._closed:
                    self._thread.submit(parts.close)  # type: ignore[attr-defined]  # the protocol promises a generator
            if told:
                pause_ms = pause_after_ms(sentence) if index + 1 < len(sentences) else 0
                yield SpeechPiece(np.zeros(rate * pause_ms // 1000, np.int16), rate, "")

    def _next(self, parts: Iterator[tuple[np.ndarray, int]]) -> tuple[np.ndarray, int] | None:
        """The next part with sound in it; None behind the last."""
        try:
            return next((part for part in parts if len(part[0])), None)
        except Exception as error:
            raise BackendFailed(
                "voice_failed", f"The voice {self._name} failed on this text ({type(error).__name__})."
            ) from error

    async def aclose(self) -> None:
        """Ends the thread once it is done with its part; may be called twice."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
