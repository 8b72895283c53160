"""One answer of the service, from the request for it to what was heard of it.

Place in the flow: events of one response -> AnswerStream -> parts -> Answerer.

Invariants:
    * parts wait here, at most ``MAX_ANSWER_S`` of sound; what a service says beyond that ends the answer;
    * it ends once: with all parts, or with the error that ended it after the parts that came before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

import numpy as np

from engine.conversation.http import Timeouts
from engine.conversation.realtime.base import SpokenPart, SpokenText, Timed
from engine.conversation.realtime.items import Entry
from engine.conversation.realtime.timing import SpokenWords
from engine.conversation.realtime.wire import RATE
from engine.conversation.tts.base import SpeechPiece
from engine.errors import BackendFailed

MAX_ANSWER_S = 600.0
"""Longest answer; nobody listens to more."""


class AnswerStream:
    """One answer.

    Args:
        entry: the answer in the service's conversation.
        event_id: of the request for it.

    Attributes:
        response_id: as the service calls it; empty before it does.
        claimed: somebody listens to it; before that it is made on the chance that somebody will.
        dropped: nobody will.
        settled: it is known what was heard of it.
        heard_ms: that, milliseconds.
        over: the service makes no more of it.
    """

    def __init__(self, entry: Entry, event_id: str) -> None:
        self.entry = entry
        self.event_id = event_id
        self.response_id = ""
        self.claimed = False
        self.dropped = False
        self.settled = False
        self.heard_ms = 0
        self.over = asyncio.Event()
        self._words = SpokenWords()
        self._texts: deque[SpokenText] = deque()
        self._samples = 0
        self._parts: asyncio.Queue[SpokenPart | None] = asyncio.Queue()
        self._error: BackendFailed | None = None

    @property
    def sound_ms(self) -> int:
        """Sound that came, milliseconds."""
        return self._samples * 1000 // RATE

    @property
    def failed(self) -> bool:
        """Whether an error ended it."""
        return self._error is not None

    @property
    def too_long(self) -> bool:
        """Whether the service goes on and on."""
        return self._samples > MAX_ANSWER_S * RATE

    def is_called(self, response_id: str) -> bool:
        """Whether an event that names a response, or none, is about this one."""
        return not response_id or not self.response_id or response_id == self.response_id

    def sound(self, samples: np.ndarray) -> None:
        """Takes (n,) int16 at ``RATE``."""
        if not self.over.is_set():
            self._samples += len(samples)
            self._tell_texts()
            self._parts.put_nowait(SpeechPiece(samples, RATE, "", more=True))

    def words(self, delta: str) -> None:
        """Takes more of the transcript."""
        if not self.over.is_set():
            self._texts += self._words.feed(delta, self.sound_ms)
            self._tell_texts()

    def end(self, error: BackendFailed | None = None) -> None:
        """No more comes. Idempotent; only the first call counts."""
        if self.over.is_set():
            return
        self.over.set()
        self._error = error
        self._texts += self._words.end()
        if self._samples:
            timed = self._words.timed(self.sound_ms)
            for text in timed[len(timed) - len(self._texts) :]:
                self._parts.put_nowait(text)
            self._parts.put_nowait(SpeechPiece(np.zeros(0, np.int16), RATE, ""))
            self._parts.put_nowait(Timed(timed))
        self._parts.put_nowait(None)

    def _tell_texts(self) -> None:
        """A sentence is told when its sound is there: where it was only guessed to begin, it may never come."""
        while self._texts and self._texts[0].start_ms < self.sound_ms:
            self._parts.put_nowait(self._texts.popleft())

    async def parts(self, timeouts: Timeouts) -> AsyncGenerator[SpokenPart]:
        """The parts as they come.

        Raises:
            BackendFailed: what ended it.
            TimeoutError: nothing came for too long.
        """
        patience_s = timeouts.first_byte_s
        while True:
            async with asyncio.timeout(patience_s):
                part = await self._parts.get()
            if part is None:
                break
            yield part
            patience_s = timeouts.next_byte_s
        if self._error is not None:
            raise self._error
