"""The built-in recogniser: English words from pocketsphinx, offline, decoded on a thread of its own while one speaks.

Place in the flow: analysis sound of a turn -> queue of the turn -> worker thread -> partial and final transcript.

Invariants:
    * one recogniser has one decoder and one thread; turns are decoded one after the other, and sound waits its turn:
      none is dropped up to ``MAX_TURN_S``;
    * the decoder is loaded when the first turn begins, behind the speaker's back, and freed after minutes of quiet;
    * what fits no English words well, such as noise and music, is no words.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import numpy as np

from engine.audio.pcm import SampleQueue, to_int16
from engine.conversation.asr.base import MAX_TURN_S, Transcript
from engine.conversation.asr.sphinx import DEFAULT_MEAN, FRAMES_PER_S, INSTALL_HINT, Hypothesis, Sphinx, is_installed
from engine.errors import BackendFailed, Cancelled, Closed, ConfigInvalid
from engine.types import ANALYSIS_RATE

PARTIAL_S = 0.3
"""Partial words are made anew after so much sound."""

_STEP = ANALYSIS_RATE // 20
_IDLE_S = 180.0
_CLOSE_TIMEOUT_S = 2.0

_FIRST_S = 0.5  # of the first turn is heard before it is decoded, to know the colour of the sound
_COLOUR_EVERY_S = 0.25
_COLOUR_OF_TURN_S = 10.0
_COLOUR_MEMORY_S = 5.0  # earlier turns weigh as much as so much sound of this one

# Speech, also noisy and reverberant, lies on the right side of each line; noise, music, hum and calls beyond one.
_LEAST_POSTERIOR, _LEAST_POSTERIOR_OF_MANY = 0.35, 0.15
_MANY_WORDS = 4  # that fit otherwise are hardly found in anything but speech, however unsure each of them is
_LONGEST_WORD_S = 0.75  # mean over a turn
_WORST_FIT, _BEST_FIT = -60.0, -16.0  # what fits everything perfectly is a steady tone

_log = logging.getLogger(__name__)


class PocketsphinxRecogniser:
    """The built-in recogniser of a session."""

    def __init__(self, language: str = "en") -> None:
        """Makes a recogniser; loads nothing yet.

        Args:
            language: English in any form (``en``, ``en-GB``), or empty.

        Raises:
            ConfigInvalid: ``asr_language``.
            BackendFailed: ``asr_missing``.
        """
        if language and language.lower().replace("_", "-").split("-")[0] != "en":
            raise ConfigInvalid(
                "asr_language",
                f"The built-in recogniser knows English only, not {language!r}. Name a service with asr = \"openai\" "
                "and asr_url, or set language to en.",
            )
        if not is_installed():
            raise BackendFailed("asr_missing", f"The built-in recogniser is not installed. {INSTALL_HINT}")
        self._changed = threading.Condition()
        self._turns: deque[PocketsphinxListening] = deque()  # the first is being decoded; guarded by _changed
        self._closed = False
        self._thread: threading.Thread | None = None
        self._ended: Future[None] = Future()

    def listen(self) -> PocketsphinxListening:
        """Begins a turn; see ``Recogniser.listen``."""
        with self._changed:
            if self._closed:
                raise Closed("asr_closed", "The recogniser is closed.")
            turn = PocketsphinxListening(self._changed)
            self._turns.append(turn)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="asr-pocketsphinx", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return turn

    async def aclose(self) -> None:
        """Cancels every turn, ends the thread and frees the decoder. Idempotent."""
        with self._changed:
            self._closed = True
            turns = list(self._turns)
            self._changed.notify_all()
        for turn in turns:
            turn.cancel()
        if self._thread is not None:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await asyncio.shield(asyncio.wrap_future(self._ended))
            except TimeoutError:
                _log.error("the built-in recogniser did not stop within %.1f s", _CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        """The thread: decodes turn after turn until closed."""
        decoding = _Decoding()
        try:
            while (turn := self._next_turn(decoding)) is not None:
                try:
                    decoding.decode(turn)
                except Exception as error:
                    decoding.forget()
                    if not isinstance(error, BackendFailed):
                        _log.exception("the built-in recogniser failed")
                        error = BackendFailed("asr_failed", "The built-in recogniser failed; the log says how.")
                    turn.settle(error)
                with self._changed:
                    self._turns.popleft()
        finally:
            decoding.forget()
            self._ended.set_result(None)

    def _next_turn(self, decoding: _Decoding) -> PocketsphinxListening | None:
        """Waits for a turn; None when closed."""
        with self._changed:
            while not self._turns and not self._closed:
                if not self._changed.wait(_IDLE_S):
                    decoding.forget()
            return None if self._closed else self._turns[0]


class PocketsphinxListening:
    """One turn; made by ``PocketsphinxRecogniser.listen``."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._sound = SampleQueue()
        self._room = int(MAX_TURN_S * ANALYSIS_RATE)  # samples that may still come
        self._finished = self._cancelled = False
        self._partial: Transcript | None = None
        self._result: Future[Transcript] = Future()

    def push(self, samples: np.ndarray) -> None:
        """Hears more; see ``Listening.push``."""
        with self._changed:
            if self._finished or self._cancelled or not self._room:
                return
            kept = samples[: self._room]
            self._room -= len(kept)
            self._sound.push(kept)
            self._changed.notify_all()
        if not self._room:
            _log.warning("a turn is longer than %.0f s; the rest of it is not transcribed", MAX_TURN_S)

    async def partial(self) -> Transcript | None:
        """The words so far; see ``Listening.partial``."""
        if self._result.done() and not self._result.cancelled() and (error := self._result.exception()):
            raise error
        return self._partial

    async def finish(self) -> Transcript:
        """The final words; see ``Listening.finish``."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()
        try:
            return await asyncio.wrap_future(self._result)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Gives the turn up; see ``Listening.cancel``."""
        with self._changed:
            self._cancelled = True
            self._sound = SampleQueue()
            self._changed.notify_all()
        self.settle(Cancelled("asr_cancelled", "The recogniser was stopped before it had the words."))

    def settle(self, outcome: Transcript | Exception) -> None:
        """The thread's answer, or why there is none; the first one counts."""
        with suppress(InvalidStateError):
            if isinstance(outcome, Transcript):
                self._result.set_result(outcome)
            else:
                self._result.set_exception(outcome)

    def take(self, count: int) -> np.ndarray | None:
        """For the thread: the next ``count`` samples, waiting for them; fewer at the end of the turn.

        Always the same pieces, however sound arrives: so the same sound always gives the same words.

        Returns:
            (n,) int16, empty after the end of the turn; None when it is cancelled.
        """
        with self._changed:
            while not (self._cancelled or self._finished or len(self._sound) >= count):
                self._changed.wait()
            if self._cancelled:
                return None
            pieces = self._sound.take(count)
        return to_int16(np.concatenate(pieces)) if pieces else np.zeros(0, np.int16)

    def tell(self, transcript: Transcript) -> None:
        """For the thread: the words so far."""
        self._partial = transcript if transcript.text else None


class _Decoding:
    """The thread's own: the decoder, and what it knows of the sound of this session."""

    def __init__(self) -> None:
        self._sphinx: Sphinx | None = None
        self._colour, self._colour_s = DEFAULT_MEAN, 0.0

    def forget(self) -> None:
        """Frees the decoder; the next turn loads it again."""
        if self._sphinx is not None:
            self._sphinx.close()
            self._sphinx = None

    def decode(self, turn: PocketsphinxListening) -> None:
        """Decodes a turn to its end and settles it; does nothing more once it is cancelled."""
        if self._sphinx is None:
            self._sphinx = Sphinx()
        sphinx, step = self._sphinx, _STEP if self._colour_s else int(_FIRST_S * ANALYSIS_RATE)
        sound = turn.take(step)
        if sound is None:
            return
        opening, mean = [sound], self._mean([sound])
        sphinx.use_mean(mean)
        sphinx.begin()
        heard = told = coloured = 0
        try:
            while sound is not None and sound.size:
                sphinx.hear(sound)
                heard += sound.size
                if heard - told >= PARTIAL_S * ANALYSIS_RATE:
                    told = heard
                    turn.tell(transcript_of(sphinx.hypothesis(), final=False))
                if heard - coloured >= _COLOUR_EVERY_S * ANALYSIS_RATE and heard <= _COLOUR_OF_TURN_S * ANALYSIS_RATE:
                    coloured = heard
                    mean = self._mean(opening)
                    sphinx.use_mean(mean)
                sound = turn.take(_STEP)
                if sound is not None and heard <= _COLOUR_OF_TURN_S * ANALYSIS_RATE:
                    opening.append(sound)
        finally:
            sphinx.end()
        if sound is None:
            return
        transcript = transcript_of(sphinx.hypothesis(), final=True)
        if transcript.text:
            self._colour = mean
            self._colour_s = min(_COLOUR_MEMORY_S, self._colour_s + heard / ANALYSIS_RATE)
        turn.settle(transcript)

    def _mean(self, sound: list[np.ndarray]) -> np.ndarray:
        """The colour of a turn's sound so far, together with that of the turns before."""
        assert self._sphinx is not None
        samples = np.concatenate(sound)
        seconds = samples.size / ANALYSIS_RATE
        if not seconds + self._colour_s:
            return self._colour
        own = self._sphinx.spectral_mean(samples)
        return (own * seconds + self._colour * self._colour_s) / (seconds + self._colour_s)


def transcript_of(hypothesis: Hypothesis, final: bool) -> Transcript:
    """Words with their confidence; an empty text for what is hardly any."""
    words = hypothesis.text.split()
    drawn_out = hypothesis.frames / FRAMES_PER_S > _LONGEST_WORD_S * len(words)
    least = _LEAST_POSTERIOR if len(words) < _MANY_WORDS else _LEAST_POSTERIOR_OF_MANY
    doubtful = hypothesis.posterior is not None and hypothesis.posterior < least
    if not words or drawn_out or doubtful or not _WORST_FIT < hypothesis.fit < _BEST_FIT:
        return Transcript("", final, "en", 0.0 if final else None)
    confidence = None if hypothesis.posterior is None else round(min(1.0, hypothesis.posterior), 2)
    return Transcript(" ".join(words), final, "en", confidence)
