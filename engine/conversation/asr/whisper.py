"""Whisper on this machine: any of its languages, offline; partial words by decoding a turn's sound again and again.

Place in the flow: analysis sound of a turn -> the network's thread -> partial and final transcript.

A turn is decoded anew as it grows, at most a third of the time and never more often than ``PARTIAL_S``; once more as
soon as the speaker pauses, so that the words are usually there before the turn is known to be over. What was decoded in
a pause is kept where it is long enough to stand alone, so that no decoding takes long.

Invariants:
    * all sessions share one network and one thread; what ends a turn goes before partial words;
    * the network is loaded when the first turn begins, behind the speaker's back, and freed after minutes of quiet;
    * a decoding cannot be stopped, but it is short; nothing of a cancelled turn comes out.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.conversation.asr.base import MAX_TURN_S, Transcript
from engine.conversation.asr.whisper_network import MAX_WINDOW_S, Guess, WhisperNetwork, find_network
from engine.errors import BackendFailed, Cancelled, Closed
from engine.types import ANALYSIS_RATE

PARTIAL_S = 0.5
"""Partial words are made anew after so much sound at the earliest."""

_FIRST_S = 0.6
_REST = 2.0  # seconds of sound between two decodings of a turn for each second that the last one took
_PAUSE_S = 0.2
_KEPT_S = 8.0  # of sound before a pause stand alone
_LEAST_CUT_S = 16.0  # of sound without such a pause, cut where it is quietest after this
_LEAST_S, _SILENT_PEAK = 0.1, 0.002  # less than this, or quieter (-54 dBFS), is no word
# A pause is 25 dB below the loudest; in noise, within 4 dB of the quietest, and 10 dB below the loudest.
_QUIET, _NOISE, _QUIET_NOISE = 0.056, 1.6, 0.32
_FRAME = ANALYSIS_RATE // 50
_STOPS = " .!?…-。！？"
_IDLE_S = 300.0
_CLOSE_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


class WhisperRecogniser:
    """The recogniser of a session."""

    def __init__(self, model: str = "", language: str = "en") -> None:
        """Looks for the network; loads nothing yet.

        Args:
            model: a folder, or the name of a size that was downloaded; empty for the usual one.
            language: what is spoken (``en``, ``pt-BR``), or empty to let the network find out.

        Raises:
            BackendFailed: ``asr_missing``: the package is not installed.
            ConfigInvalid: ``asr_model_missing``.
        """
        self._folder = find_network(model)
        self._language = language.lower().replace("_", "-").split("-")[0]
        self._turns: set[WhisperListening] = set()
        self._closed = False

    def listen(self) -> WhisperListening:
        """Begins a turn; see ``Recogniser.listen``."""
        if self._closed:
            raise Closed("asr_closed", "The recogniser is closed.")
        self._turns = {turn for turn in self._turns if not turn.over}
        with _workers_lock:
            worker = _workers.setdefault(self._folder, _Worker(self._folder))
        turn = WhisperListening(worker, self._language)
        self._turns.add(turn)
        worker.add(turn)
        return turn

    async def aclose(self) -> None:
        """Cancels every turn and waits until the network has let go of them. Idempotent."""
        self._closed = True
        turns, self._turns = self._turns, set()
        for turn in turns:
            turn.cancel()
        if turns:
            let_go = [asyncio.wrap_future(turn.worker.let_go(turn)) for turn in turns]
            _, late = await asyncio.wait(let_go, timeout=_CLOSE_TIMEOUT_S)
            if late:
                _log.error("the recogniser whisper did not stop within %.1f s", _CLOSE_TIMEOUT_S)


class WhisperListening:
    """One turn; made by ``WhisperRecogniser.listen``.

    Attributes:
        worker: whose thread decodes it.
        language: of what is spoken, or empty.
    """

    def __init__(self, worker: _Worker, language: str) -> None:
        self.worker = worker
        self.language = language
        self._sound: list[np.ndarray] = []  # all of the turn; guarded by the worker's lock, as is what follows
        self._heard = 0
        self._loudest, self._quietest = 0.0, math.inf  # levels of what was pushed
        self._quiet = 0  # samples at the end that are a pause
        self._finished = self._cancelled = False
        self._partial: Transcript | None = None
        self._result: Future[Transcript] = Future()
        # The thread's own: what was decoded once and for all, and what all that came since was taken for.
        self._kept: list[Guess] = []
        self._kept_to = self._told = 0
        self._guess: Guess | None = None
        self._cost_s = 0.0

    @property
    def over(self) -> bool:
        """Whether there is nothing left to decode."""
        return self._result.done()

    @property
    def finished(self) -> bool:
        """Whether no more sound comes."""
        return self._finished

    def push(self, samples: np.ndarray) -> None:
        """Hears more; see ``Listening.push``."""
        with self.worker.changed:
            room = int(MAX_TURN_S * ANALYSIS_RATE) - self._heard
            if self._finished or self._cancelled or room <= 0 or not samples.size:
                return
            kept = samples[:room]
            self._sound.append(kept)
            self._heard += len(kept)
            level = _loudest(kept)
            self._loudest, self._quietest = max(self._loudest, level), min(self._quietest, level)
            noise = min(_NOISE * self._quietest, _QUIET_NOISE * self._loudest)
            self._quiet = self._quiet + len(kept) if level < max(_QUIET * self._loudest, noise) else 0
            self.worker.changed.notify_all()
        if len(samples) >= room:
            _log.warning("a turn is longer than %.0f s; the rest of it is not transcribed", MAX_TURN_S)

    async def partial(self) -> Transcript | None:
        """The words so far; see ``Listening.partial``."""
        if self.over and not self._result.cancelled() and (error := self._result.exception()):
            raise error
        return self._partial

    async def finish(self) -> Transcript:
        """The final words; see ``Listening.finish``."""
        with self.worker.changed:
            self._finished = True
            self.worker.changed.notify_all()
        try:
            return await asyncio.wrap_future(self._result)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Gives the turn up; see ``Listening.cancel``."""
        with self.worker.changed:
            self._cancelled = True
            self._sound.clear()
            self.worker.changed.notify_all()
        self.settle(Cancelled("asr_cancelled", "The recogniser was stopped before it had the words."))

    def settle(self, outcome: Transcript | Exception) -> None:
        """The thread's answer, or why there is none; the first one counts."""
        with suppress(InvalidStateError):
            if isinstance(outcome, Transcript):
                self._result.set_result(outcome)
            else:
                self._result.set_exception(outcome)

    def is_due(self) -> bool:
        """For the thread: whether partial words are to be made."""
        if self._heard < _FIRST_S * ANALYSIS_RATE:
            return False
        wait_s = max(PARTIAL_S, _REST * self._cost_s)
        waited = self._heard - self._told >= wait_s * ANALYSIS_RATE
        return (self._pauses() or waited) and not self._knows_the_end()

    def decode(self, network: WhisperNetwork) -> None:
        """For the thread: makes the words of all that was heard; settles the turn when it is finished."""
        with self.worker.changed:
            final, heard, enough, pauses = self._finished, self._heard, self._knows_the_end(), self._pauses()
            sound = np.concatenate([np.zeros(0, np.float32), *self._sound])[self._kept_to :]
        if not final or not enough:
            started_s = time.monotonic()
            while len(sound) > MAX_WINDOW_S * ANALYSIS_RATE and not self._cancelled:
                cut = _quietest(sound)
                self._kept.append(network.guess(sound[:cut], self.language, thorough=True))
                self._kept_to += cut
                sound = sound[cut:]
            if self._cancelled:
                return
            audible = len(sound) >= _LEAST_S * ANALYSIS_RATE and np.abs(sound).max() >= _SILENT_PEAK
            thorough = final or pauses
            self._guess = network.guess(sound, self.language, thorough=thorough) if audible else None
            if pauses and self._guess and len(sound) >= _KEPT_S * ANALYSIS_RATE:
                self._kept.append(self._guess)
                self._kept_to, self._guess = heard, None
            self._told, self._cost_s = heard, time.monotonic() - started_s
        transcript = _transcript([*self._kept, *([self._guess] if self._guess else [])], final, self.language)
        if final:
            self.settle(transcript)
            return
        if not pauses:
            # The network ends every text like a sentence, also one that goes on.
            transcript = replace(transcript, text=transcript.text.rstrip(_STOPS))
        self._partial = transcript if transcript.text else None

    def _pauses(self) -> bool:
        """Whether the speaker pauses."""
        return self._quiet >= _PAUSE_S * ANALYSIS_RATE

    def _knows_the_end(self) -> bool:
        """Whether nothing came since the last decoding, or a pause that it heard the beginning of."""
        return 0 < self._heard == self._told or self._told >= self._heard - self._quiet + _PAUSE_S * ANALYSIS_RATE


class _Worker:
    """A network with its thread, which decodes the turns of all sessions.

    Attributes:
        changed: guards everything that the thread and the event loop share, and wakes the thread.
    """

    def __init__(self, folder: Path) -> None:
        self.changed = threading.Condition()
        self._folder = folder
        self._turns: list[WhisperListening] = []
        self._busy_with: WhisperListening | None = None
        self._waiting: list[Future[None]] = []  # for the end of the decoding under way
        self._running = False

    def add(self, turn: WhisperListening) -> None:
        """Takes a turn on."""
        with self.changed:
            self._turns.append(turn)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="asr-whisper", daemon=True).start()
            self.changed.notify_all()

    def let_go(self, turn: WhisperListening) -> Future[None]:
        """Done as soon as a turn is not being decoded."""
        free: Future[None] = Future()
        with self.changed:
            if self._busy_with is turn:
                self._waiting.append(free)
            else:
                free.set_result(None)
        return free

    def _run(self) -> None:
        """The thread: ends, and frees the network, when there was no turn for a while."""
        network: WhisperNetwork | None = None
        while (turn := self._next(loaded=network is not None)) is not None:
            try:
                network = network or WhisperNetwork(self._folder)
                network.check_language(turn.language)
                if turn.finished or turn.is_due():
                    turn.decode(network)
            except Exception as error:
                if not isinstance(error, BackendFailed):
                    _log.exception("the recogniser whisper failed")
                    error = BackendFailed("asr_failed", "The recogniser whisper failed; the log says how.")
                turn.settle(error)
            with self.changed:
                self._busy_with = None
                waiting, self._waiting = self._waiting, []
            for free in waiting:
                with suppress(InvalidStateError):
                    free.set_result(None)

    def _next(self, loaded: bool) -> WhisperListening | None:
        """Waits for work: the first finished turn, else the one that waited longest for partial words."""
        with self.changed:
            while True:
                self._turns = [turn for turn in self._turns if not turn.over]
                finished = [turn for turn in self._turns if turn.finished]
                due = [turn for turn in self._turns if turn.is_due() or not loaded]
                if finished or due:
                    self._busy_with = (finished or due)[0]
                    # To the end of the queue, so that no session waits for ever for the partial words of others.
                    self._turns.remove(self._busy_with)
                    self._turns.append(self._busy_with)
                    return self._busy_with
                if not self.changed.wait(_IDLE_S) and not self._turns:
                    self._running = False
                    return None


_workers: dict[Path, _Worker] = {}
_workers_lock = threading.Lock()


def _loudest(samples: np.ndarray) -> float:
    """Level (root mean square) of the loudest 20 ms of (n,) samples, n > 0."""
    whole = len(samples) // _FRAME * _FRAME
    frames = samples[:whole].reshape(-1, _FRAME) if whole else samples[np.newaxis]
    return float(np.sqrt(np.mean(np.square(frames), axis=1)).max())


def _quietest(sound: np.ndarray) -> int:
    """Where to cut (n,) samples that are too long for one decoding: in the middle of the quietest fifth of a second."""
    first, last = int(_LEAST_CUT_S * ANALYSIS_RATE), int(MAX_WINDOW_S * ANALYSIS_RATE)
    width = int(_PAUSE_S * ANALYSIS_RATE)
    power = np.concatenate([[0.0], np.cumsum(np.square(sound[first:last], dtype=np.float64))])
    return first + int(np.argmin(power[width:] - power[:-width])) + width // 2


def _transcript(guesses: list[Guess], final: bool, language: str) -> Transcript:
    """The words of a turn; the confidence is the mean probability of a token."""
    said = [guess for guess in guesses if guess.text]
    if not said:
        return Transcript("", final, language, 0.0 if final else None)
    tokens = sum(guess.tokens for guess in said)
    mean = sum(guess.log_probability * guess.tokens for guess in said) / tokens
    return Transcript(" ".join(guess.text for guess in said), final, said[-1].language, round(math.exp(mean), 2))
