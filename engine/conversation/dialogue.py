"""One conversation: hears a person, decides whose turn it is, has the answer made and spoken, and yields.

Place in the flow: microphone -> Dialogue (ear, turns, recogniser, floor, language model, sentences) -> Reply ->
session; typed text enters where the recogniser's words do.

A turn of the person becomes one task: words -> history -> language model -> sentences -> reply, until the reply was
heard to its end. What the person does meanwhile is heard all the same:
    * speaking on before anything of the answer was heard withdraws it; the words of both parts are answered together;
    * speaking over the avatar ducks it, then pauses it, and ends in an interruption or, when it was none, in going on.
      What they said over it is a contender until then: it takes the floor or is forgotten.

Where the avatar answers to its name only, whoever is not in conversation with it neither interrupts it nor is answered.

Invariants:
    * it owns no clock: the session's frames are its ticks, so the same sound gives the same conversation;
    * the history keeps what was really heard of an answer, and nothing of a turn of which nothing was;
    * whatever fails in a turn ends that turn only: an event tells, the avatar apologises if so configured, and listens;
    * no text of the person or of the model is ever logged.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Literal

import numpy as np

from engine.aio import Tasks
from engine.conversation.answer import Answerer, DialogueOptions, Turn
from engine.conversation.asr.base import Listening, Recogniser
from engine.conversation.ear import PREROLL_S, Ear
from engine.conversation.floor import Floor
from engine.conversation.history import History, Line
from engine.conversation.llm.base import LanguageModel
from engine.conversation.own_words import are_own_words
from engine.conversation.realtime.base import SpeakingModel
from engine.conversation.roles import SentenceSplitter, Speaker, VoiceActivity
from engine.conversation.turn import TurnTaker
from engine.conversation.turn_events import TurnEvent
from engine.conversation.wake import WakeWord
from engine.conversation.waterfall import Waterfall
from engine.errors import BackendFailed, VisavisError
from engine.metrics import EngineMetrics
from engine.slots import Published

DUCKED = 0.3
"""Level of the avatar's voice while it is not certain yet that it is being interrupted."""
KEY_PREROLL_S = 0.1
"""Sound from before the talk key went down: hands and lips are not that exact."""
PARTIAL_FRAMES = 5
"""Frames between two questions for the words so far (200 ms)."""
_log = logging.getLogger(__name__)


class Dialogue:
    """The conversation of one session.

    The language model is shared and belongs to the caller; all else is of this dialogue alone and closed with it.

    Args:
        speaker: the session.
        vad: voice activity; None where only typed text is answered.
        turns: whose turn it is.
        recogniser: speech to words. None where only typed text is answered.
        model: words to an answer; one that speaks itself is of this dialogue alone, and closed with it.
        history: what was said.
        sentences: makes a splitter for each answer.
        metrics: where to count.
        options: how it goes.
    """

    def __init__(
        self,
        speaker: Speaker,
        *,
        vad: VoiceActivity | None,
        turns: TurnTaker,
        recogniser: Recogniser | None,
        model: LanguageModel | SpeakingModel,
        history: History,
        sentences: Callable[[], SentenceSplitter],
        metrics: EngineMetrics,
        options: DialogueOptions | None = None,
    ) -> None:
        self._speaker = speaker
        self._ear = Ear(vad, recogniser)
        self._turns = turns
        self._options = options or DialogueOptions()
        self._metrics = metrics
        self._history = history
        self._answerer = Answerer(speaker, model, history, sentences, metrics, self._options)
        self._tasks = Tasks("dialogue")
        self._floor = Floor(speaker, self._answerer, self._tasks)
        self._wake = WakeWord(self._options.wake_word)
        self._ids = itertools.count(1)
        self._partial: asyncio.Task[None] | None = None
        self._frames = 0
        self._hearing: Literal["always", "push_to_talk"] = "always"
        self._greeted = False
        self._paused = False
        # Whether the avatar speaks, and whether it must not be interrupted.
        self._avatar = (False, False)
        self._user_speaks = False
        # Whether what is being said comes from somebody in conversation with the avatar.
        self._attentive = True
        self._asked_again = False
        self._closed = False

    # What comes in ------------------------------------------------------------------------------------------------

    def hear(self, samples: np.ndarray) -> None:
        """Takes microphone sound, (n,) int16 mono at 48 kHz, any n; never blocks."""
        if self._closed:
            return
        if not self._greeted:
            self._greeted = True
            self._greet()
        for probability in self._ear.hear(samples):
            self._follow(self._turns.heard(probability, self._now_s()))

    def ask(self, text: str) -> int:
        """Answers a typed text in place of what is being answered; returns the turn's id. Silence the session first."""
        self.cut()
        self._greeted = True
        turn = self._new_turn(self._now_s())
        turn.text, turn.stage = text, "model"
        self._floor.begin(turn)
        self._tell_words(turn, text)
        turn.task = self._tasks.start(self._take_turn(turn, None, None), "turn")
        return turn.turn_id

    def push_to_talk(self, down: bool | None) -> None:
        """The talk key goes down or up, and only what is said meanwhile is heard; None listens always again."""
        now_s = self._now_s()
        self._hearing = "always" if down is None else "push_to_talk"
        self._follow(self._turns.set_mode(self._hearing, now_s))
        if down is not None:
            self._follow(self._turns.push_to_talk(down, now_s))

    def attend(self, on: bool) -> None:
        """Whether the microphone's sound comes here; without it nothing of what was being heard remains."""
        if not on:
            self._ear.forget()
            self._tell_user(False)
        self._follow(self._turns.set_mode(self._hearing if on else "typed", self._now_s()))

    def published(self, published: Published) -> None:
        """Takes every frame as it leaves: the dialogue's clock, and how it knows what was heard."""
        if self._closed:
            return
        self._frames += 1
        now_s = self._now_s()
        self._ear.played(published.frame.audio)
        turn = self._floor.turn
        if turn is not None and turn.reply is not None:
            self._answerer.watch(turn, turn.reply, published)
        if turn is not None and turn.addressed:
            self._wake.answering(now_s)
        protected = turn is not None and turn.protected
        speaks = published.speech is not None or self._paused or protected
        avatar = (speaks, speaks and (protected or not self._may_interrupt(now_s)))
        if avatar != self._avatar:
            self._avatar = avatar
            self._follow(self._turns.avatar(*avatar, now_s))
        self._follow(self._turns.tick(now_s))
        asked = self._partial is not None and not self._partial.done()
        if self._ear.listens and not asked and self._frames % PARTIAL_FRAMES == 0:
            self._partial = self._tasks.start(self._ask_partial(), "partial")

    def cut(self) -> None:
        """The session was interrupted: the answer ends here, and the history keeps what was heard of it."""
        self._paused = False
        self._floor.clear()

    def heard(self, turn_id: int, at_s: float) -> None:
        """Takes when the person's device began to sound a turn's answer, by the session's clock; told as latency."""
        self._answerer.latencies.heard(turn_id, at_s, self._now_s())

    @property
    def transcript(self) -> list[Line]:
        """What was said so far, by both, oldest first."""
        return self._history.lines

    @property
    def so_far(self) -> list[Line]:
        """The same, with as much of the present turn as an interruption would leave of it."""
        return [*self._history.lines, *(self._answerer.so_far(turn) if (turn := self._floor.turn) is not None else ())]

    async def aclose(self) -> None:
        """Ends every task, the recogniser and the answerer, whatever fails. Idempotent and time-limited."""
        self._closed = True
        async with AsyncExitStack() as stages:  # the last is ended first
            stages.push_async_callback(self._answerer.aclose)
            stages.push_async_callback(self._ear.aclose)
            stages.push_async_callback(self._tasks.aclose)
            self._ear.drop()

    # Turn-taking --------------------------------------------------------------------------------------------------

    def _follow(self, events: Sequence[TurnEvent]) -> None:
        for event in events:
            match event.kind:
                case "speech_started":
                    self._tell_user(True)
                    self._attentive = self._hearing == "push_to_talk" or self._wake.attentive_at(event.since_s)
                    # What was said before the key went down is nobody's business.
                    self._ear.open(KEY_PREROLL_S if self._hearing == "push_to_talk" else PREROLL_S)
                    self._floor.withdraw()
                case "duck":
                    self._speaker.duck(DUCKED)
                case "unduck":
                    self._speaker.duck(1.0)
                case "barge_in":
                    self._paused = True
                    self._speaker.pause()
                    self._speaker.tell("paused")
                case "false_interruption":
                    self._paused = False
                    self._speaker.duck(1.0)
                    self._speaker.resume()
                    self._speaker.tell("resumed")
                case "interrupted":
                    self._avatar = (False, False)
                    # Where Stop or a typed text has ended the pause, what was paused is gone, and what came must stay.
                    if self._paused:
                        self._paused = False
                        self._floor.interrupt()
                        self._tasks.start(self._speaker.cut_off(), "cut-off")
                    self._floor.promote()
                case "turn_dropped":
                    self._tell_user(False)
                    self._ear.drop()
                    self._take_up()
                case "end_of_turn":
                    self._tell_user(False)
                    self._end_of_turn(event)

    def _end_of_turn(self, event: TurnEvent) -> None:
        listening = self._ear.take()
        if listening is None:
            return
        turn = self._new_turn(event.since_s, over_pause=self._paused)
        turn.sounded_like_words = self._ear.has_words
        turn.addressed = self._attentive
        turn.waterfall.reach("endpoint", event.at_s)
        waits_for = self._floor.enter(turn)
        turn.task = self._tasks.start(self._take_turn(turn, listening, waits_for, event.turn), "turn")

    def _take_up(self) -> None:
        """What seemed to go on was nothing: what it withdrew is answered after all."""
        self._floor.reinstate()
        if self._floor.turn is None and (text := self._floor.inherit("")):
            turn = self._new_turn(self._now_s())
            turn.text, turn.stage = text, "model"
            self._floor.begin(turn)
            turn.task = self._tasks.start(self._take_turn(turn, None, None), "turn")

    def _may_interrupt(self, now_s: float) -> bool:
        """Whether whoever speaks now, or begins to, is in conversation with the avatar."""
        if self._hearing == "push_to_talk":
            return True
        return self._attentive if self._turns.user in ("speaking", "paused") else self._wake.attentive_at(now_s)

    def _is_own(self, text: str) -> bool:
        """Whether words that were recognised are those of the avatar, come back through the microphone."""
        turn = self._floor.turn
        return turn is not None and turn.reply is not None and are_own_words(text, turn.reply.heard_text)

    def _tell_user(self, speaks: bool) -> None:
        if speaks != self._user_speaks:
            self._user_speaks = speaks
            self._speaker.set_listening(speaks)
            self._speaker.tell("user_speaking", speaking=speaks)

    async def _ask_partial(self) -> None:
        try:
            text = await self._ear.partial()
        except VisavisError:
            return  # the final words may come all the same, and fail aloud if they do not
        if text is None:
            return
        own = self._is_own(text)
        self._attentive = self._attentive or (not own and self._wake.words(text) is not None)
        if self._attentive and not own:
            self._speaker.tell("transcript", role="user", text=text, final=False)
        self._follow(self._turns.transcript(text, False, self._now_s(), own=own))

    # Answering ----------------------------------------------------------------------------------------------------

    def _new_turn(self, from_s: float, *, over_pause: bool = False) -> Turn:
        return Turn(next(self._ids), Waterfall(from_s), over_pause)

    async def _take_turn(
        self, turn: Turn, listening: Listening | None, before: asyncio.Task[None] | None, number: int | None = None
    ) -> None:
        """The task of a turn. Args: before: whose words it may inherit; number: how ``turns`` calls it."""
        try:
            if before is not None and not before.done():
                await asyncio.wait([before])
            if listening is not None and not await self._recognise(turn, listening, number):
                return
            await self._answerer.answer(turn)
            self._floor.finish(turn, "failed" if turn.reply is None or turn.reply.failed else "answered")
        except VisavisError as error:
            await self._apologise(turn, error)
        except Exception as error:
            _log.exception("a turn failed")
            failure = BackendFailed("turn_failed", "The answer failed; the log says why. Please say it again.")
            failure.__cause__ = error
            await self._apologise(turn, failure)
        finally:
            if listening is not None:
                listening.cancel()
            if turn.reply is not None:
                turn.reply.end()

    async def _recognise(self, turn: Turn, listening: Listening, number: int | None) -> bool:
        """Waits for the words of a turn; False when there is nothing to answer now."""
        transcript = await listening.finish()
        text = "" if self._is_own(transcript.text) else transcript.text.strip()
        turn.waterfall.reach("transcript", self._now_s())
        turn.text = self._floor.inherit(text)
        called = self._wake.words(turn.text)
        addressed = turn.addressed or called is not None
        if text and addressed:
            self._tell_words(turn, text)
        self._follow(self._turns.transcript(text, True, self._now_s(), number))
        if turn.superseded:
            self._floor.carry(turn)
            return False
        if not addressed:
            self._floor.finish(turn, "not_addressed" if turn.text else "empty")
            return False
        if turn is self._floor.contender and (turn.over_pause or not text):
            self._floor.finish(turn, "empty")  # nothing that takes the floor
            return False
        turn.text = turn.text if called is None else called
        if turn is self._floor.contender:
            turn.addressed = True
            self._floor.take(turn)
        elif not turn.addressed:
            turn.addressed = True
            self._answerer.tell(turn, "thinking")
        turn.stage = "model" if turn.text else "voice"
        if not turn.text:
            # Once: what is not understood twice is hardly meant for anybody.
            if turn.sounded_like_words and not self._asked_again and turn is self._floor.turn:
                self._asked_again = True
                await self._answerer.ask_again(turn)
            self._floor.finish(turn, "empty")
            return False
        self._asked_again = False
        return True

    async def _apologise(self, turn: Turn, error: VisavisError) -> None:
        self._metrics.failures(turn.stage).inc()
        self._speaker.tell("error", **error.to_dict(), turn_id=turn.turn_id)
        if turn is not self._floor.turn:
            self._floor.finish(turn, "failed")
            return  # somebody else has the floor
        voiceless = turn.reply is not None and turn.reply.failed
        try:
            if self._options.speak_errors and turn.addressed and not turn.superseded and not voiceless:
                await self._answerer.apologise(turn)
            else:
                await self._answerer.hear_out(turn)
        except VisavisError as unsaid:
            _log.warning("an apology could not be said: %s", unsaid.code)
        self._floor.finish(turn, "failed")

    def _greet(self) -> None:
        if self._options.greeting and self._floor.turn is None:
            turn = self._new_turn(self._now_s())
            turn.stage, turn.protected = "voice", not self._options.greeting_interruptible
            self._floor.begin(turn)
            turn.task = self._tasks.start(self._say_greeting(turn), "greeting")

    async def _say_greeting(self, turn: Turn) -> None:
        try:
            self._answerer.say(turn, [self._options.greeting])
        except VisavisError as error:
            self._speaker.tell("error", **error.to_dict(), turn_id=turn.turn_id)
        if turn.reply is not None:
            await self._answerer.hear_out(turn)
        self._floor.finish(turn, "failed" if turn.reply is None or turn.reply.failed else "answered")

    def _tell_words(self, turn: Turn, text: str) -> None:
        self._speaker.tell("transcript", role="user", text=text, final=True, turn_id=turn.turn_id)

    def _now_s(self) -> float:
        return self._speaker.clock.now_s()
