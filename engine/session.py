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

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from functools import partial
from typing import Literal

import numpy as np

from engine.agenda import Agenda
from engine.aio import Subscription, Tasks
from engine.avatar.bundle import Avatar
from engine.clock import FrameClock
from engine.conversation.dialogue import Dialogue
from engine.conversation.history import Line
from engine.conversation.tts.base import Voice
from engine.conversation.voice.base import VoiceChange
from engine.errors import Closed, NotFound, VisavisError
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
from engine.types import AvatarFrame, Event, Playback
from engine.voice_stages import VoiceStages

DEFAULT_LIMITS = SessionLimits()
Mode = Literal["converse", "mirror", "say"]
"""What becomes of microphone sound: it is answered, repeated, or ignored."""


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
        stages: change its voice; shared, or its own when None.

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
        stages: VoiceStages | None = None,
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
        window = renderer.lipsync.window
        self._agenda = Agenda(
            voice, stages or VoiceStages(), self._tasks, limits, window, self._voice_failed, self._narrator.nothing_said
        )
        self._mode: Mode = "say"
        self._mirror = Mirror(partial(self._agenda.utterance, "microphone", live=True))
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
            priority=self._limits.priority,
        )
        self._mirror.playlist = self._producer.playlist
        self._agenda.start(self._producer.playlist, self.clock)
        self._narrator.watch(self._producer, self.clock)
        self._producer.start()
        self._metrics.sessions.inc()

    # What it is asked to say --------------------------------------------------------------------------------------

    def say(self, text: str) -> int:
        """Queues text to speak and returns the utterance's id; see ``Agenda.say``. Raises Closed as all of these.

        When the voice makes no sound of it, an error event ``nothing_to_say`` tells.
        """
        return self._require_agenda().say(text)

    def play(self, samples: np.ndarray, label: str = "") -> int:
        """Queues a whole sound, (N,) int16 mono at 48 kHz, and returns the utterance's id; see ``Agenda.play``."""
        return self._require_agenda().play(samples, label)

    def require_room(self) -> None:
        """Says at once what ``play`` would say after a long upload: raises Busy ``queue_full``."""
        self._require_agenda().require_room()

    def open_stream(self, *, live: bool = False) -> SpeechStream:
        """Queues an utterance whose sound is pushed while it plays; see ``Agenda.open_stream``."""
        return self._require_agenda().open_stream(live=live)

    def open_reply(self) -> Reply:
        """Queues a reply whose sentences are added while it is heard; see ``Agenda.open_reply``."""
        return self._require_agenda().open_reply()

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
        """Has a typed text answered, in place of whatever is being said; returns the turn's id, as events call it.

        Raises:
            TextInvalid: ``text_empty`` or ``text_too_long``.
            NotFound: ``conversation_missing``.
            Closed: not started, or closed.
        """
        self._require_started()
        dialogue = self._require_dialogue()
        self._limits.require_text(text)
        # Nobody may take the floor in between, so nothing is waited for until it is taken.
        self._silence()
        turn_id = dialogue.ask(text.strip())
        await self._agenda.stop()
        return turn_id

    def push_to_talk(self, down: bool | None) -> None:
        """The talk key goes down or up; None listens always again. Raises NotFound as ``ask``."""
        self._require_dialogue().push_to_talk(down)

    def heard_by_viewer(self, turn_id: int, at_s: float) -> None:
        """The person's device began to sound a turn's answer at ``at_s`` by the clock. Raises NotFound as ``ask``."""
        self._require_dialogue().heard(turn_id, at_s)

    def transcript(self) -> list[Line]:
        """What was said so far, by both, oldest first; empty where nobody answers."""
        return self._dialogue.transcript if self._dialogue is not None else []

    def said_so_far(self) -> list[Line]:
        """The same, with as much of an answer that is being heard as an interruption would leave of it."""
        return self._dialogue.so_far if self._dialogue is not None else []

    def tell(self, kind: str, **data: object) -> None:
        """Publishes an event."""
        self._narrator.tell(kind, **data)

    # What it is asked to do ---------------------------------------------------------------------------------------

    def act(self, name: str) -> None:
        """Plays a clip of the avatar, eased in and out: one that loops until it is stopped, replaced, or speech begins.

        Raises:
            NotFound: ``action_unknown``: the avatar has no such clip, see ``Avatar.clips``.
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

    @property
    def voice_change(self) -> VoiceChange:
        """How its voice is changed."""
        return self._agenda.voice_change

    async def set_voice(self, *, pitch: float = 0.0, formant: float = 0.0, conversion: str = "") -> None:
        """Changes the voice that speaks its texts, from the next sentence on; without values it is as it was made.

        Raises InvalidInput as ``VoiceChange``, NotFound and others as ``VoiceStages.stage``, and Closed.
        """
        self._require_open()
        await self._agenda.change_voice(VoiceChange(pitch, formant, conversion))

    def encoded(self, seconds: float) -> None:
        """Takes what encoding one frame took, for whoever has to know what a frame costs."""
        if self._producer is not None:
            self._producer.quality.observe("encode", seconds)

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
        await self._agenda.stop()
        return playback

    async def cut_off(self, reply: Reply | None = None) -> None:
        """Drops one reply, or everything that played or waited when ``pause`` was called; for the dialogue itself."""
        if self._producer is not None:
            playlist = self._producer.playlist
            dropped = None if reply is None else reply.speech
            self._silence(playlist.newcomers if dropped is None else [one for one in playlist if one is not dropped])
        await self._agenda.stop()

    def _silence(self, keep: Collection[Speech] = ()) -> Playback:
        if self._producer is None or self._closed:
            return Playback(0, 0, 0)
        playback = self._producer.interrupt(keep)
        self._agenda.forget_dropped()
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
        """Ends frames and events, cancels and awaits all tasks, whatever fails. Idempotent and time-limited."""
        if self._closed:
            return
        self._closed = True
        async with AsyncExitStack() as stages:  # the last is ended first
            stages.callback(self._narrator.events.close)
            if self._producer is not None:
                stages.callback(self._metrics.sessions.dec)
                stages.push_async_callback(self._producer.aclose)
            stages.push_async_callback(self._tasks.aclose)
            if self._dialogue is not None:
                stages.push_async_callback(self._dialogue.aclose)

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

    def _require_agenda(self) -> Agenda:
        self._require_started()
        return self._agenda

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("session_closed", "This session is closed.")

    def _require_started(self) -> Producer:
        self._require_open()
        if self._producer is None:
            raise Closed("session_not_started", "This session was not started.")
        return self._producer
