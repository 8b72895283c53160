"""What a session was asked to say: texts, sounds, streams and replies, each an utterance that waits for its turn.

Place in the flow: session -> Agenda -> (feeder) -> Speech -> playlist -> producer.

Invariants:
    * utterances are heard in the order they were asked for;
    * what waits is bounded, in utterances and in seconds of sound.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np

from engine.aio import Tasks
from engine.audio.window import MelWindow
from engine.clock import FrameClock
from engine.conversation.tts.base import Voice
from engine.conversation.voice.base import VoiceChange
from engine.errors import Busy, Closed, VisavisError
from engine.feeder import Feeder, Source
from engine.limits import SessionLimits
from engine.playlist import Playlist
from engine.reply import Reply
from engine.speech import Speech, SpeechStream
from engine.types import PLAYOUT_RATE
from engine.voice_stages import VoiceStages

STREAM_PATIENCE_S = 10.0
"""A stream that is not live is ended when it was its turn and no sound came for so long, so that what waits behind it
is heard. A sentence of a slow voice takes a few seconds."""


class Agenda:
    """What waits to be said in one session.

    Args:
        voice: speaks texts.
        stages: change the voice.
        tasks: of the session.
        limits: what may wait.
        window: of the lip-sync model, see ``Speech``.
        on_failure: called with the error and the utterance when its sound could not be made.
        on_nothing: called with an utterance of a text that has no sound.

    Attributes:
        voice_change: how the voice is changed.
    """

    def __init__(
        self,
        voice: Voice,
        stages: VoiceStages,
        tasks: Tasks,
        limits: SessionLimits,
        window: MelWindow,
        on_failure: Callable[[VisavisError, Speech], None],
        on_nothing: Callable[[Speech], None],
    ) -> None:
        self.voice_change = VoiceChange()
        self._stages = stages
        self._limits = limits
        self._window = window
        self._feeder = Feeder(voice, tasks, on_failure, on_nothing)
        self._ids = itertools.count(1)
        self._sounds: list[tuple[Speech, int]] = []
        self._playlist: Playlist | None = None
        self._clock = FrameClock()

    def start(self, playlist: Playlist, clock: FrameClock) -> None:
        """From now on utterances are heard.

        Args:
            playlist: plays them.
            clock: of the session.
        """
        self._playlist = playlist
        self._clock = clock

    async def change_voice(self, change: VoiceChange) -> None:
        """Changes the voice from the next sentence on. Raises as ``VoiceStages.stage``, and all is as before then."""
        self._feeder.stage = await self._stages.stage(change)
        self.voice_change = change

    def say(self, text: str) -> int:
        """Queues text to speak.

        Args:
            text: plain text, at most ``limits.text_chars`` characters.

        Returns:
            The utterance's id.

        Raises:
            TextInvalid: ``text_empty`` or ``text_too_long``.
            Busy: ``queue_full``.
        """
        self._limits.require_text(text)
        return self._request(partial(self._feeder.text, text), "text").utterance_id

    def play(self, samples: np.ndarray, label: str) -> int:
        """Queues a whole sound.

        Args:
            samples: (N,) int16 mono at 48 kHz, at most ``limits.audio_s`` long; not copied, so leave it unchanged.
            label: what it is, e.g. ``file``; told with the ``speaking`` event.

        Returns:
            The utterance's id.

        Raises:
            AudioInvalid: ``audio_format``, ``audio_empty`` or ``audio_too_long``.
            Busy: ``queue_full``: too many utterances wait, or more than ``limits.audio_s`` of sound would.
        """
        self._limits.require_sound(samples)
        self.forget_dropped()
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

    def open_stream(self, *, live: bool) -> SpeechStream:
        """Queues an utterance whose sound is pushed while it plays.

        Unless it is live it is ended, with an error event ``stream_stalled``, when it is its turn and no sound comes
        for ``STREAM_PATIENCE_S``.

        Args:
            live: the sound is being made now, so a small delay matters more than completeness; pauses are welcome.

        Raises:
            Busy: ``queue_full``.
        """
        speech = self._enqueue("stream", live=live)
        speech.patience_s = None if live else STREAM_PATIENCE_S
        return SpeechStream(speech)

    def open_reply(self) -> Reply:
        """Queues a reply whose sentences are added while it is heard; end it when there are no more.

        Raises:
            Busy: ``queue_full``.
        """
        speech = self._enqueue("reply")
        reply = Reply(speech)
        self._feeder.add(speech, partial(self._feeder.reply, reply, self._clock))
        return reply

    def require_room(self) -> Playlist:
        """The playlist, when it has room for one more.

        Raises:
            Busy: ``queue_full``.
            Closed: not started.
        """
        if self._playlist is None:
            raise Closed("session_not_started", "This session was not started.")
        if len(self._playlist) >= self._limits.queued:
            raise Busy("queue_full", "Too much is waiting to be said; interrupt, or wait until some of it was heard.")
        return self._playlist

    def utterance(self, label: str, *, live: bool = False) -> Speech:
        """A new utterance that is not queued.

        Args:
            label: what it is; told with the ``speaking`` event.
            live: its sound is being made now.
        """
        return Speech(next(self._ids), self._window, live=live, label=label, created_s=self._clock.now_s())

    def forget_dropped(self) -> None:
        """Whole sounds that were dropped count no more; for whoever dropped some."""
        self._sounds = [(speech, size) for speech, size in self._sounds if not speech.finished]

    async def stop(self) -> None:
        """Ends the making of what was dropped; can be used again at once."""
        await self._feeder.stop()

    def _enqueue(self, label: str, *, live: bool = False) -> Speech:
        playlist = self.require_room()
        speech = self.utterance(label, live=live)
        playlist.add(speech)
        return speech

    def _request(self, source: Source, label: str) -> Speech:
        """Queues an utterance whose sound ``source`` makes."""
        speech = self._enqueue(label)
        self._feeder.add(speech, source)
        return speech
