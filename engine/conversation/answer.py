"""One turn and its answer: the model's words into sentences, these or its sound into a reply, and what was heard.

Place in the flow: words of the person -> Answerer (history, language model, sentences) -> Reply -> session; a model
that speaks itself gives sound and its text in the place of sentences.

Invariants:
    * the first sentence is spoken as soon as it is there, and leaving early ends the model's work at once;
    * the history keeps what was heard of an answer, together with what it answered, or neither;
    * a turn whose answer is heard tells its latency once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from engine.conversation.history import History, Line
from engine.conversation.llm.base import LanguageModel, Message
from engine.conversation.phrases import ENGLISH, Phrases
from engine.conversation.realtime.base import SpeakingModel, SpokenPart, SpokenText, Timed
from engine.conversation.roles import SentenceSplitter, Speaker
from engine.conversation.waterfall import Latencies, Waterfall
from engine.errors import BackendFailed
from engine.metrics import EngineMetrics
from engine.reply import Reply
from engine.slots import Published
from engine.speech import Caption

MAX_REPLY_CHARS = 8000
"""A model that goes on is cut off here, ten minutes into its monologue."""

Outcome = Literal["answered", "interrupted", "empty", "failed", "not_addressed"]
Stage = Literal["recogniser", "model", "voice"]


@dataclass(frozen=True, slots=True)
class DialogueOptions:
    """How a conversation goes.

    Attributes:
        greeting: said when the person is heard for the first time; empty for none.
        speak_errors: apologise aloud when a service fails; else an event is all there is.
        temperature: of the language model; its own when None.
        greeting_interruptible: whoever speaks over the greeting is heard at once, not when it has ended.
        wake_word: what the avatar must be called to answer, see ``engine.conversation.wake``; empty for nothing.
        phrases: what it says of itself.
    """

    greeting: str = ""
    speak_errors: bool = True
    temperature: float | None = None
    greeting_interruptible: bool = True
    wake_word: str = ""
    phrases: Phrases = ENGLISH


@dataclass(slots=True, eq=False)
class Turn:
    """One turn of a person, from the end of what they said to the end of the answer.

    Attributes:
        turn_id: as events call it.
        waterfall: where its time goes.
        over_pause: it was said while the avatar waits, interrupted or not.
        sounded_like_words: the recogniser had words of it for a while, whatever its final ones are.
        text: what is answered; empty until it is known, and for a greeting.
        stage: where its task is.
        reply: the answer, or an apology in its place; None before its first sentence.
        spoken: the answer where the model spoke it itself.
        heard_before: what was heard of the answer before the apology; None while there is none.
        audible: something of the answer was heard.
        superseded: the person spoke on; its words belong to the next turn.
        addressed: it is known to be meant for the avatar.
        protected: it must not be interrupted.
        heard_out: set once the reply was heard to its end.
        task: what carries it out.
    """

    turn_id: int
    waterfall: Waterfall
    over_pause: bool = False
    sounded_like_words: bool = False
    text: str = ""
    stage: Stage = "recogniser"
    reply: Reply | None = None
    spoken: Reply | None = None
    heard_before: str | None = None
    audible: bool = False
    superseded: bool = False
    addressed: bool = True
    protected: bool = False
    heard_out: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def awaits_words(self) -> bool:
        """Whether its words are not known yet, and nothing is said to it."""
        return self.stage == "recogniser" and self.reply is None


class Answerer:
    """Answers turns of one dialogue; it decides nothing about whose turn it is. For arguments see ``Dialogue``.

    Attributes:
        latencies: what answers took.
    """

    def __init__(
        self,
        speaker: Speaker,
        model: LanguageModel | SpeakingModel,
        history: History,
        sentences: Callable[[], SentenceSplitter],
        metrics: EngineMetrics,
        options: DialogueOptions,
    ) -> None:
        self._speaker = speaker
        self._model = model
        self._history = history
        self._sentences = sentences
        self._metrics = metrics
        self._options = options
        self.latencies = Latencies(speaker.tell, metrics)

    async def answer(self, turn: Turn) -> None:
        """Has a turn answered; returns when the answer was heard to its end.

        Raises:
            BackendFailed: the model failed, or gave no answer.
            Busy: too much waits to be said.
        """
        if isinstance(self._model, SpeakingModel):
            await self._listen_to(self._model, turn)
        else:
            await self._read(self._model, turn)
        if turn.reply is None:
            raise BackendFailed("model_said_nothing", "The language model gave no answer; ask again.")
        await self.hear_out(turn)

    async def aclose(self) -> None:
        """Ends a model that speaks itself, which belongs to this dialogue alone. Idempotent."""
        if isinstance(self._model, SpeakingModel):
            await self._model.aclose()

    async def _read(self, model: LanguageModel, turn: Turn) -> None:
        """A model's words become sentences of the reply."""
        splitter = self._sentences()
        length = 0
        deltas = model.reply(self._history.messages(turn.text), temperature=self._options.temperature)
        async with aclosing(deltas):
            async for delta in deltas:
                turn.waterfall.reach("first_token", self._speaker.clock.now_s())
                length += len(delta)
                self.say(turn, splitter.feed(delta))
                if length > MAX_REPLY_CHARS or (turn.reply is not None and turn.reply.failed):
                    break
        self.say(turn, splitter.flush())

    async def _listen_to(self, model: SpeakingModel, turn: Turn) -> None:
        """A model's own sound becomes the reply."""
        parts = model.answer(self._history.messages(turn.text), temperature=self._options.temperature)
        async with aclosing(parts):
            async for part in parts:
                turn.waterfall.reach("first_token", self._speaker.clock.now_s())
                if turn.reply is None:
                    turn.reply = turn.spoken = self._speaker.open_reply()
                if turn.reply.failed:
                    break
                _add(turn.reply, part)

    def say(self, turn: Turn, sentences: Sequence[str]) -> None:
        """Adds sentences to the answer. Raises Busy as ``Session.open_reply``."""
        if sentences and turn.reply is None:
            turn.reply = self._speaker.open_reply()
        for sentence in sentences:
            assert turn.reply is not None
            turn.reply.add(sentence)

    async def apologise(self, turn: Turn) -> None:
        """Hears out what there is of an answer and says sorry. Raises Busy as ``Session.open_reply``."""
        await self.hear_out(turn)
        turn.heard_before = turn.reply.heard_text if turn.reply is not None else ""
        turn.reply = None
        turn.heard_out.clear()
        self.say(turn, [self._options.phrases.apology])
        await self.hear_out(turn)

    async def ask_again(self, turn: Turn) -> None:
        """Says that nothing was understood. Raises Busy as ``Session.open_reply``."""
        self.say(turn, [self._options.phrases.not_understood])
        await self.hear_out(turn)

    async def hear_out(self, turn: Turn) -> None:
        """Ends the answer and returns when it was heard."""
        if turn.reply is not None:
            turn.reply.end()
            await turn.heard_out.wait()

    def watch(self, turn: Turn, reply: Reply, published: Published) -> None:
        """Takes a frame that left while this turn is answered."""
        if reply.plays(published.speech) and published.index is not None and not turn.audible:
            turn.audible = True
            self.tell(turn, "speaking")
            if reply.first_sound_s is not None:
                turn.waterfall.reach("first_audio", reply.first_sound_s)
            turn.waterfall.reach("first_frame", self._speaker.clock.now_s())
            if turn.text:  # a greeting answers nobody
                self.latencies.answered(turn.turn_id, turn.waterfall)
        if reply.played_out:
            turn.heard_out.set()

    def keep(self, turn: Turn, outcome: Outcome) -> None:
        """Keeps, counts and tells what came of a turn."""
        heard = self._write(turn, self._history, cut=outcome == "interrupted")
        if isinstance(self._model, SpeakingModel):
            self._model.remember(self._history.messages(), turn.spoken.heard_ms if turn.spoken is not None else None)
        if outcome == "interrupted" and turn.reply is not None:
            self._speaker.tell("interrupted", utterance_id=turn.reply.utterance_id, played_text=heard)
        self.tell(turn, outcome)
        self._metrics.turns(outcome).inc()

    def so_far(self, turn: Turn) -> list[Line]:
        """What would be kept of a turn that were interrupted now."""
        draft = History()
        self._write(turn, draft, cut=True)
        return draft.lines

    def _write(self, turn: Turn, history: History, *, cut: bool) -> str:
        """Writes down what was heard of a turn, which is returned, together with what it answered."""
        heard = turn.heard_before
        if heard is None:
            heard = turn.reply.heard_text if turn.reply is not None else ""
        if heard:
            now_s = self._speaker.clock.now_s()
            if turn.text:
                history.add(Message("user", turn.text), ago_s=now_s - turn.waterfall.from_s)
            begun_s = turn.waterfall.reached_s.get("first_frame", now_s)
            history.add_played(heard, cut, ago_s=now_s - begun_s)
        return heard

    def tell(self, turn: Turn, state: str) -> None:
        """Tells what state a turn is in."""
        self._speaker.tell("turn", turn_id=turn.turn_id, state=state)


def _add(reply: Reply, part: SpokenPart) -> None:
    match part:
        case SpokenText():
            reply.add(_caption(part))
        case Timed():
            reply.time([_caption(text) for text in part.texts])
        case _:
            reply.add(part)


def _caption(text: SpokenText) -> Caption:
    return Caption(text.text, text.start_ms, text.end_ms)
