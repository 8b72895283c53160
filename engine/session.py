"""One conversation with one avatar: what it is asked to say goes in, frames and events come out.

Place in the flow: server, recorder -> Session -> (voice, producer, renderer) -> AvatarFrame and Event.

Invariants:
    * frames start with ``start`` and do not stop until ``aclose``: idle when there is nothing to say;
    * a frame is handed out ``HANDOUT_S`` (10 ms) before ``clock.due_s(frame.pts)``, in time to be encoded, and never
      earlier, so an interrupt is silence within one frame;
    * ``pts`` is consecutive, save after a stall of the machine, where it jumps to the present with the clock;
    * utterances are heard in the order they were asked for; whatever fails in one is an event, and the next one plays.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import numpy as np

from engine.aio import Subscription, Tasks
from engine.audio.pcm import PlayoutResampler
from engine.avatar.bundle import Avatar
from engine.clock import FrameClock
from engine.conversation.tts.base import SpeechPiece, Voice, Word, is_speakable
from engine.errors import AudioInvalid, BackendFailed, Busy, Closed, NotFound, TextInvalid, VisavisError
from engine.metrics import EngineMetrics
from engine.narrator import Narrator
from engine.producer import HANDOUT_S, Producer
from engine.quality import AUTO, OFF, Quality, QualityState
from engine.renderer import Renderer
from engine.speech import Caption, Speech, SpeechStream, require_playout
from engine.types import PLAYOUT_RATE, AvatarFrame, Event, Playback

# A sentence is resampled in steps of this length, so that frames leave in between.
_RESAMPLE_STEP_S = 0.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may hold.

    Attributes:
        text_chars: longest text of one ``say``.
        queued: utterances waiting or playing; one more raises Busy.
        audio_s: longest sound of one ``play``, and of all that wait to be played together, seconds: whole sounds are
            held in memory, 96 kB a second.
    """

    text_chars: int = 2000
    queued: int = 16
    audio_s: float = 600.0


DEFAULT_LIMITS = SessionLimits()

STREAM_PATIENCE_S = 10.0
"""A stream that is not live is ended when it was its turn and no sound came for so long, so that what waits behind it
is heard. A sentence of a slow voice takes a few seconds."""


class Session:
    """One conversation.

    The renderer and the voice are shared and belong to the caller; the session closes neither.

    Args:
        avatar: what it shows.
        renderer: draws its mouth.
        voice: speaks its text.
        limits: what it may hold.
        quality: how well its faces are restored, where there is a restorer.
        clock: when frames are due; when None, frame 0 is due with ``start``.
        metrics: where to count; the renderer's when None.

    Attributes:
        avatar: what it shows.
        clock: frame ``pts`` is due at ``clock.due_s(pts)``, monotonic seconds; settled once started.
    """

    def __init__(
        self,
        avatar: Avatar,
        renderer: Renderer,
        voice: Voice,
        *,
        limits: SessionLimits = DEFAULT_LIMITS,
        quality: Quality = AUTO,
        clock: FrameClock | None = None,
        metrics: EngineMetrics | None = None,
    ) -> None:
        self.avatar = avatar
        self.clock = clock if clock is not None else FrameClock()
        self._own_clock = clock is None
        self._renderer = renderer
        self._voice = voice
        self._limits = limits
        self._asked = quality
        self._metrics = metrics if metrics is not None else renderer.metrics
        self._narrator = Narrator(self._metrics)
        self._tasks = Tasks("session")
        self._producer: Producer | None = None
        self._ids = itertools.count(1)
        self._sounds: list[tuple[Speech, int]] = []
        self._requests: deque[tuple[Speech, Callable[[Speech], Awaitable[None]]]] = deque()
        self._feeder: asyncio.Task[None] | None = None
        self._mirroring = False
        self._microphone: Speech | None = None
        self._closed = False

    async def start(self) -> None:
        """Prepares the avatar, which the renderer keeps for the next session, and starts the frames.

        Cancelling leaves a session that can be started or closed.

        Raises:
            BackendFailed: the model cannot use the avatar.
            Closed: after ``aclose``.
        """
        self._require_open()
        if self._producer is not None:
            return
        prepared = await self._renderer.prepare(self.avatar)
        self._require_open()
        if self._own_clock:
            # The first frame is due as soon as it can be.
            self.clock = FrameClock(self.clock.now_s() + HANDOUT_S)
        self._producer = Producer(
            prepared,
            self._renderer,
            self.clock,
            on_published=self._narrator.published,
            on_failure=self._narrator.picture_failed,
            on_starved=self._narrator.starved,
            metrics=self._metrics,
            quality=self._asked,
            on_quality=self._narrator.quality,
        )
        self._narrator.watch(self._producer, self.clock)
        self._producer.start()
        self._metrics.sessions.inc()

    # What it is asked to say --------------------------------------------------------------------------------------

    def say(self, text: str) -> int:
        """Queues text to speak. When the voice makes no sound of it, an error event ``nothing_to_say`` tells.

        Args:
            text: plain text, at most ``limits.text_chars`` characters.

        Returns:
            The utterance's id.

        Raises:
            TextInvalid: ``text_empty`` or ``text_too_long``.
            Busy: ``queue_full``.
            Closed: not started, or closed.
        """
        if len(text) > self._limits.text_chars:
            raise TextInvalid(
                "text_too_long",
                f"The text has {len(text)} characters; at most {self._limits.text_chars} can be said at once.",
            )
        if not is_speakable(text):
            raise TextInvalid("text_empty", "There is no text to say; send words.")
        return self._request(partial(self._speak, text), "text").utterance_id

    def play(self, samples: np.ndarray, label: str = "") -> int:
        """Queues a whole sound.

        Args:
            samples: (N,) int16 mono at 48 kHz, at most ``limits.audio_s`` long; not copied, so leave it unchanged.
            label: what it is, e.g. ``file``; told with the ``speaking`` event.

        Returns:
            The utterance's id.

        Raises:
            AudioInvalid: ``audio_format``, ``audio_empty`` or ``audio_too_long``.
            Busy: ``queue_full``: too many utterances wait, or more than ``limits.audio_s`` of sound would.
            Closed: not started, or closed.
        """
        require_playout(samples)
        if not len(samples):
            raise AudioInvalid("audio_empty", "The sound has no samples.")
        if len(samples) > self._limits.audio_s * PLAYOUT_RATE:
            raise AudioInvalid("audio_too_long", f"The sound is longer than {self._limits.audio_s:.0f} s.")
        self._require_started()
        self._sounds = [(speech, size) for speech, size in self._sounds if not speech.finished]
        waiting = sum(max(0, size - speech.taken_samples) for speech, size in self._sounds)
        if waiting + len(samples) > self._limits.audio_s * PLAYOUT_RATE:
            raise Busy(
                "queue_full",
                f"{waiting / PLAYOUT_RATE:.0f} s of sound wait to be heard; with this one it would be more than the "
                f"{self._limits.audio_s:g} s allowed. Interrupt, or send it when some of it was heard.",
            )
        speech = self._request(partial(Speech.feed, samples=samples), label)
        self._sounds.append((speech, len(samples)))
        return speech.utterance_id

    def require_room(self) -> None:
        """Says at once what ``play`` would say after a long upload.

        Raises:
            Busy: ``queue_full``.
            Closed: not started, or closed.
        """
        if len(self._require_started().playlist) >= self._limits.queued:
            raise Busy("queue_full", "Too much is waiting to be said; interrupt, or wait until some of it was heard.")

    def open_stream(self, *, live: bool = False) -> SpeechStream:
        """Queues an utterance whose sound is pushed while it plays.

        Unless it is live it is ended, with an error event ``stream_stalled``, when it is its turn and no sound comes
        for ``STREAM_PATIENCE_S``.

        Args:
            live: the sound is being made now, so a small delay matters more than completeness; pauses are welcome.

        Raises:
            Busy: ``queue_full``.
            Closed: not started, or closed.
        """
        speech = self._enqueue("stream", live=live)
        speech.patience_s = None if live else STREAM_PATIENCE_S
        return SpeechStream(speech)

    def hear(self, samples: np.ndarray) -> None:
        """Takes microphone sound; never blocks. Ignored unless mirroring, and while something else is said.

        Args:
            samples: (n,) int16 mono at 48 kHz, any n.
        """
        if not self._mirroring or self._closed or self._producer is None:
            return
        if self._microphone is None or self._microphone.closed:
            if len(self._producer.playlist):
                return
            self._microphone = self._speech("microphone", live=True)
            self._producer.playlist.set_background(self._microphone)
        self._microphone.push(samples)

    def set_mirror(self, on: bool) -> None:
        """Microphone pass-through on or off; what is queued takes precedence over it."""
        self._mirroring = on
        if not on and self._microphone is not None:
            self._microphone = None
            if self._producer is not None:
                self._producer.playlist.set_background(None)

    # What it is asked to do ---------------------------------------------------------------------------------------

    def act(self, name: str) -> None:
        """Plays a clip of the avatar, eased in and out: one that loops until it is stopped, replaced, or speech begins.

        Args:
            name: of a clip, see ``Avatar.clips``.

        Raises:
            NotFound: ``action_unknown``: the avatar has no such clip.
            Closed: not started, or closed.
        """
        producer = self._require_started()
        if name not in self.avatar.clips:
            known = ", ".join(sorted(self.avatar.clips)) or "none"
            raise NotFound("action_unknown", f"This avatar has no such action; it has: {known}.")
        producer.act(name)

    def stop_action(self) -> None:
        """Eases back from whatever ``act`` began. Raises Closed as ``act`` does."""
        self._require_started().act("")

    def set_listening(self, on: bool) -> None:
        """Whether somebody else has the floor: the avatar listens while it says nothing. Raises Closed as ``act``."""
        self._require_started().set_listening(on)

    @property
    def quality(self) -> QualityState:
        """The quality that was asked for, and the level there is."""
        if self._producer is None:
            return QualityState(self._asked, OFF, "preparing")
        return self._producer.quality.state

    def set_quality(self, quality: Quality) -> None:
        """Asks for another quality; ``quality`` events tell what comes of it. Raises Closed as ``act``."""
        self._require_started().quality.ask(quality)

    def encoded(self, seconds: float) -> None:
        """Takes what encoding one frame took, for whoever has to know what a frame costs."""
        if self._producer is not None:
            self._producer.quality.observe("encode", seconds)

    async def interrupt(self) -> Playback:
        """Silence from the next frame on: drops what is playing, queued and being spoken; the mouth eases shut.

        The sound has stopped by the first time this waits; cancelling only leaves the voice to end by itself.

        Returns:
            What of the utterance that was playing was really played.
        """
        if self._producer is None or self._closed:
            return Playback(0, 0, 0)
        playback = self._producer.interrupt()
        self._requests.clear()
        self._sounds.clear()
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            await self._tasks.cancel(feeder)
        return playback

    # What comes out -----------------------------------------------------------------------------------------------

    def events(self) -> Subscription[Event]:
        """Subscribes to all events from now on; ends when the session closes.

        Iterate over it; leave it with ``await subscription.aclose()``. It holds 256 events, then loses the oldest.
        """
        return self._narrator.events.subscribe()

    def __aiter__(self) -> AsyncIterator[AvatarFrame]:
        """Frames, each when it is due; for one consumer. Ends when the session closes.

        A consumer more than five frames late loses the oldest. Cancelling loses nothing.

        Raises:
            Closed: not started.
        """
        return self._require_started().frames

    async def aclose(self) -> None:
        """Ends frames and events, cancels and awaits all tasks. Idempotent and time-limited."""
        if self._closed:
            return
        self._closed = True
        self._requests.clear()
        await self._tasks.aclose()
        if self._producer is not None:
            await self._producer.aclose()
            self._metrics.sessions.dec()
        self._narrator.events.close()

    # Sources ------------------------------------------------------------------------------------------------------

    def _speech(self, label: str, *, live: bool) -> Speech:
        window = self._renderer.lipsync.window
        return Speech(next(self._ids), window, live=live, label=label, created_s=self.clock.now_s())

    def _enqueue(self, label: str, *, live: bool = False) -> Speech:
        self.require_room()
        speech = self._speech(label, live=live)
        self._require_started().playlist.add(speech)
        return speech

    def _request(self, source: Callable[[Speech], Awaitable[None]], label: str) -> Speech:
        """Queues an utterance whose sound ``source`` makes."""
        speech = self._enqueue(label)
        self._requests.append((speech, source))
        if self._feeder is None or self._feeder.done():
            self._feeder = self._tasks.start(self._feed_requests(), "feeder")
        return speech

    async def _feed_requests(self) -> None:
        """Makes the sound of one utterance after the other; ends when there is none left."""
        while self._requests:
            speech, source = self._requests.popleft()
            try:
                await source(speech)
            except VisavisError as error:
                if not speech.closed:
                    self._voice_failed(error, speech)
            except Exception as error:
                _log.exception("making the sound of an utterance failed")
                failure = BackendFailed("voice_failed", "The voice failed on this text; other texts may work.")
                failure.__cause__ = error
                self._voice_failed(failure, speech)
            finally:
                speech.end()

    async def _speak(self, text: str, speech: Speech) -> None:
        pieces = self._voice.speak(text)
        async with aclosing(pieces):  # type: ignore[type-var]  # the protocol promises an async generator
            async for piece in pieces:
                await self._speak_piece(piece, speech)
        if not speech.total_samples and not speech.closed:
            self._narrator.nothing_said(speech)

    async def _speak_piece(self, piece: SpeechPiece, speech: Speech) -> None:
        start_ms = speech.total_samples * 1000 // PLAYOUT_RATE
        words = tuple(Word(word.text, start_ms + word.start_ms, start_ms + word.end_ms) for word in piece.words)
        speech.caption(Caption(piece.text, start_ms, start_ms + piece.duration_ms, words))
        resampler = PlayoutResampler(piece.sample_rate)
        step = max(1, round(_RESAMPLE_STEP_S * piece.sample_rate))
        for start in range(0, len(piece.samples), step):
            await speech.feed(resampler.push(piece.samples[start : start + step]))
            await asyncio.sleep(0)
        await speech.feed(resampler.flush())

    def _voice_failed(self, error: VisavisError, speech: Speech) -> None:
        self._metrics.failures("voice").inc()
        self._narrator.failed(error, speech.utterance_id)

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("session_closed", "This session is closed.")

    def _require_started(self) -> Producer:
        self._require_open()
        if self._producer is None:
            raise Closed("session_not_started", "This session was not started.")
        return self._producer
