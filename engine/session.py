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

import itertools
from collections.abc import AsyncIterator
from functools import partial
from typing import Literal

import numpy as np

from engine.aio import Subscription, Tasks
from engine.avatar.bundle import Avatar
from engine.clock import FrameClock
from engine.conversation.dialogue import Dialogue
from engine.conversation.tts.base import Voice
from engine.errors import Busy, Closed, NotFound, VisavisError
from engine.feeder import Feeder, Source
from engine.limits import SessionLimits
from engine.metrics import EngineMetrics
from engine.mirror import Mirror
from engine.narrator import Narrator
from engine.producer import HANDOUT_S, Producer
from engine.quality import AUTO, OFF, Quality, QualityState
from engine.renderer import Renderer
from engine.reply import Reply
from engine.slots import Published
from engine.speech import Speech, SpeechStream
from engine.types import PLAYOUT_RATE, AvatarFrame, Event, Playback

DEFAULT_LIMITS = SessionLimits()

Mode = Literal["converse", "mirror", "say"]
"""What becomes of microphone sound: it is answered, repeated, or ignored."""

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
        self._limits = limits
        self._asked = quality
        self._metrics = metrics if metrics is not None else renderer.metrics
        self._narrator = Narrator(self._metrics)
        self._tasks = Tasks("session")
        self._producer: Producer | None = None
        self._ids = itertools.count(1)
        self._sounds: list[tuple[Speech, int]] = []
        self._feeder = Feeder(voice, self._tasks, self._voice_failed, self._narrator.nothing_said)
        self._mode: Mode = "say"
        self._mirror = Mirror(partial(self._speech, "microphone", live=True))
        self._dialogue: Dialogue | None = None
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
            on_published=self._published,
            on_failure=self._narrator.picture_failed,
            on_starved=self._narrator.starved,
            metrics=self._metrics,
            quality=self._asked,
            on_quality=self._narrator.quality,
        )
        self._mirror.playlist = self._producer.playlist
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
        self._limits.require_text(text)
        return self._request(partial(self._feeder.text, text), "text").utterance_id

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
        self._limits.require_sound(samples)
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
        """Takes microphone sound; never blocks. What becomes of it is up to the mode.

        Args:
            samples: (n,) int16 mono at 48 kHz, any n.
        """
        if self._closed or self._producer is None:
            return
        if self._mode == "converse" and self._dialogue is not None:
            self._dialogue.hear(samples)
        elif self._mode == "mirror":
            self._mirror.hear(samples)

    def set_mirror(self, on: bool) -> None:
        """Microphone pass-through on or off; what is queued takes precedence over it."""
        if on or self._mode == "mirror":
            self.set_mode("mirror" if on else "say")

    # Conversing ---------------------------------------------------------------------------------------------------

    def converse(self, dialogue: Dialogue) -> None:
        """Gives the session somebody who answers, who is closed with it; ``set_mode`` lets them hear."""
        self._dialogue = dialogue

    @property
    def mode(self) -> Mode:
        """What becomes of microphone sound."""
        return self._mode

    def set_mode(self, mode: Mode) -> None:
        """What becomes of microphone sound from now on.

        Args:
            mode: ``converse`` answers it, ``mirror`` repeats it in the person's own voice, ``say`` ignores it.

        Raises:
            NotFound: ``conversation_missing``: nobody answers here.
        """
        if mode == "converse":
            self._require_dialogue()
        if mode == self._mode:
            return
        self._mode = mode
        if self._dialogue is not None:
            self._dialogue.attend(mode == "converse")
        if mode != "mirror":
            self._mirror.stop()

    async def ask(self, text: str) -> int:
        """Has a typed text answered, in place of whatever is being said.

        Returns:
            The turn's id, as events call it.

        Raises:
            TextInvalid: ``text_empty`` or ``text_too_long``.
            NotFound: ``conversation_missing``.
            Closed: not started, or closed.
        """
        self._require_started()
        dialogue = self._require_dialogue()
        self._limits.require_text(text)
        await self.interrupt()
        self._require_open()
        return dialogue.ask(text.strip())

    def push_to_talk(self, down: bool | None) -> None:
        """The talk key goes down or up; None listens always again. Raises NotFound as ``ask``."""
        self._require_dialogue().push_to_talk(down)

    def tell(self, kind: str, **data: object) -> None:
        """Publishes an event."""
        self._narrator.tell(kind, **data)

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

    def open_reply(self) -> Reply:
        """Queues a reply whose sentences are added while it is heard; end it when there are no more.

        Raises:
            Busy: ``queue_full``.
            Closed: not started, or closed.
        """
        speech = self._enqueue("reply")
        reply = Reply(speech)
        self._feeder.add(speech, partial(self._feeder.reply, reply, self.clock))
        return reply

    def pause(self) -> None:
        """Silence from the next frame on, everything kept as it is, until ``resume`` or ``interrupt``. Idempotent."""
        if self._producer is not None and not self._closed:
            self._producer.pause()

    def resume(self) -> None:
        """Goes on where ``pause`` stopped. Idempotent."""
        if self._producer is not None and not self._closed:
            self._producer.resume()

    def duck(self, level: float) -> None:
        """Plays at another level, 0 (silent) to 1 (as it is), from the next frame on; an interrupt brings it back."""
        if self._producer is not None and not self._closed:
            self._producer.duck(level)

    async def interrupt(self) -> Playback:
        """Silence from the next frame on: drops what is playing, queued and being spoken; the mouth eases shut.

        The sound has stopped by the first time this waits; cancelling only leaves the voice to end by itself.

        Returns:
            What of the utterance that was playing was really played.
        """
        playback = self._silence()
        if self._dialogue is not None and not self._closed:
            self._dialogue.cut()
        await self._feeder.stop()
        return playback

    async def cut_off(self) -> None:
        """An interrupt by the dialogue itself, which knows."""
        self._silence()
        await self._feeder.stop()

    def _silence(self) -> Playback:
        if self._producer is None or self._closed:
            return Playback(0, 0, 0)
        self._sounds.clear()
        return self._producer.interrupt()

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
        if self._dialogue is not None:
            await self._dialogue.aclose()
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

    def _request(self, source: Source, label: str) -> Speech:
        """Queues an utterance whose sound ``source`` makes."""
        speech = self._enqueue(label)
        self._feeder.add(speech, source)
        return speech

    def _voice_failed(self, error: VisavisError, speech: Speech) -> None:
        self._metrics.failures("voice").inc()
        self._narrator.failed(error, speech.utterance_id)

    def _published(self, published: Published) -> None:
        self._narrator.published(published)
        if self._dialogue is not None:
            self._dialogue.published(published)

    def _require_dialogue(self) -> Dialogue:
        if self._dialogue is None:
            raise NotFound("conversation_missing", "Nobody answers on this server; its log says what is missing.")
        return self._dialogue

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("session_closed", "This session is closed.")

    def _require_started(self) -> Producer:
        self._require_open()
        if self._producer is None:
            raise Closed("session_not_started", "This session was not started.")
        return self._producer
