"""Makes the sound of what a session was asked to say, one utterance after the other.

Place in the flow: session -> Feeder -> (voice, its change, resampling) -> Speech -> producer.

Invariants:
    * one task, which ends when nothing is left to make; the session's ``Tasks`` own it;
    * whatever fails in one utterance is told, ends that utterance, and the next one is made;
    * a sentence of a reply is made at most ``REPLY_AHEAD_MS`` before it is heard, so an interrupt wastes little.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import numpy as np

from engine.aio import Tasks
from engine.audio.pcm import PlayoutResampler
from engine.clock import FrameClock
from engine.conversation.tts.base import SpeechPiece, Voice, Word
from engine.conversation.tts.sentences import pause_after_ms
from engine.conversation.voice.base import VoiceStage, VoiceStream
from engine.errors import BackendFailed, VisavisError
from engine.reply import Part, Reply
from engine.speech import Caption, Speech
from engine.types import PLAYOUT_RATE

REPLY_AHEAD_MS = 6000
"""Sound of a reply that may wait before its next sentence is made: enough for a voice as slow as speech itself."""

# A sentence is resampled in steps of this length, so that frames leave in between.
_RESAMPLE_STEP_S = 0.25

Source = Callable[[Speech], Awaitable[None]]
"""Makes the sound of one utterance."""

_log = logging.getLogger(__name__)


class Feeder:
    """The sources of one session.

    Args:
        voice: speaks texts.
        tasks: of the session.
        on_failure: called with the error and the utterance when its sound could not be made.
        on_nothing: called with an utterance of a text that has no sound.

    Attributes:
        stage: changes the voice, from the next sentence on; None leaves it as it is.
    """

    def __init__(
        self,
        voice: Voice,
        tasks: Tasks,
        on_failure: Callable[[VisavisError, Speech], None],
        on_nothing: Callable[[Speech], None],
    ) -> None:
        self.stage: VoiceStage | None = None
        self._voice = voice
        self._tasks = tasks
        self._on_failure = on_failure
        self._on_nothing = on_nothing
        self._requests: deque[tuple[Speech, Source]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._making: Speech | None = None

    def add(self, speech: Speech, source: Source) -> None:
        """Makes the sound of an utterance after those before it."""
        self._requests.append((speech, source))
        if self._task is None or self._task.done():
            self._task = self._tasks.start(self._run(), "feeder")

    async def stop(self) -> None:
        """Forgets the utterances that were aborted and ends the one that is being made, if it was; the others are made.

        Can be used again at once.
        """
        self._requests = deque(request for request in self._requests if not request[0].closed)
        if self._making is None or not self._making.closed:
            return
        task, self._task, self._making = self._task, None, None
        if self._requests:
            self._task = self._tasks.start(self._run(), "feeder")
        if task is not None:
            await self._tasks.cancel(task)

    async def text(self, text: str, speech: Speech) -> None:
        """The sound of a text."""
        sounding = _Sounding(speech, lambda: self.stage)
        pieces = self._voice.speak(text)
        async with aclosing(pieces):  # type: ignore[type-var]  # the protocol promises an async generator
            async for piece in pieces:
                sounding.caption(piece)
                await sounding.add(piece)
        if not speech.total_samples and not speech.closed:
            self._on_nothing(speech)

    async def reply(self, reply: Reply, clock: FrameClock, speech: Speech) -> None:
        """The sound of a reply, whose parts may still be coming."""
        sounding, before = _Sounding(speech, lambda: self.stage), ""
        try:
            async with aclosing(reply.parts()) as parts:  # type: ignore[type-var]
                async for part in parts:
                    if isinstance(part, str):
                        await speech.run_down(REPLY_AHEAD_MS)
                        if before and speech.total_samples:
                            await sounding.pause(pause_after_ms(before))
                        before = part
                    pieces = self._pieces(part, speech)
                    async with aclosing(pieces):  # type: ignore[type-var]
                        async for piece in pieces:
                            if reply.first_sound_s is None:
                                reply.first_sound_s = clock.now_s()
                            if (caption := sounding.caption(piece)) is not None:
                                reply.captions.append(caption)
                            await sounding.add(piece)
        except Exception:
            reply.failed = True
            raise
        if before and not speech.total_samples and not speech.closed:
            self._on_nothing(speech)

    def _pieces(self, part: Part, speech: Speech) -> AsyncIterator[SpeechPiece]:
        """The sound of a part of a reply; none of a caption, which goes to the speech."""
        if isinstance(part, str):
            return self._voice.speak(part)
        if isinstance(part, Caption):
            speech.caption(part)
            return _those()
        return _those(part)

    async def _run(self) -> None:
        while self._requests:
            speech, source = self._requests.popleft()
            self._making = speech
            try:
                await source(speech)
            except VisavisError as error:
                if not speech.closed:
                    self._on_failure(error, speech)
            except Exception as error:
                _log.exception("making the sound of an utterance failed")
                failure = BackendFailed("voice_failed", "The voice failed on this text; other texts may work.")
                failure.__cause__ = error
                self._on_failure(failure, speech)
            finally:
                speech.end()
        self._making = None


async def _those(*pieces: SpeechPiece) -> AsyncIterator[SpeechPiece]:
    for piece in pieces:
        yield piece


class _Sounding:
    """Puts the pieces of one utterance into its speech, changed and resampled, with their captions."""

    def __init__(self, speech: Speech, stage: Callable[[], VoiceStage | None]) -> None:
        self._speech = speech
        self._stage = stage
        self._stream: VoiceStream | None = None
        self._resampler: PlayoutResampler | None = None

    def caption(self, piece: SpeechPiece) -> Caption | None:
        """Captions a piece that begins a sentence, before its sound; None for one that goes on with it."""
        speech = self._speech
        start_ms = speech.total_samples * 1000 // PLAYOUT_RATE
        caption = None
        if piece.text:
            words = tuple(Word(word.text, start_ms + word.start_ms, start_ms + word.end_ms) for word in piece.words)
            end_ms = start_ms + max(piece.duration_ms, piece.expected_ms)
            caption = Caption(piece.text, start_ms, end_ms, words)
            speech.caption(caption)
        return caption

    async def add(self, piece: SpeechPiece) -> None:
        """Appends the sound of a piece."""
        speech = self._speech
        # One for all pieces of a sentence: where it begins anew it begins from silence, which would click.
        if (resampler := self._resampler) is None:
            resampler = PlayoutResampler(piece.sample_rate)
            stage = self._stage()
            self._stream = None if stage is None else stage.open(piece.sample_rate)
        step = max(1, round(_RESAMPLE_STEP_S * piece.sample_rate))
        for start in range(0, len(piece.samples), step):
            samples = piece.samples[start : start + step]
            if self._stream is not None:
                samples = await self._stream.push(samples)
            await speech.feed(resampler.push(samples))
            await asyncio.sleep(0)
        self._resampler = resampler if piece.more else None
        if not piece.more:
            if self._stream is not None:
                await speech.feed(resampler.push(await self._stream.flush()))
            await speech.feed(resampler.flush())

    async def pause(self, length_ms: int) -> None:
        """Silence between two sentences."""
        await self._speech.feed(np.zeros(length_ms * PLAYOUT_RATE // 1000, np.int16))
