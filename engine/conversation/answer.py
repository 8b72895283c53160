"""One turn and its answer: the model's words into sentences, the sentences into a reply, and what was heard of it.

Place in the flow: words of the person -> Answerer (history, language model, sentences) -> Reply -> session.

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

from engine.conversation.history import History
from engine.conversation.llm.base import LanguageModel, Message
from engine.conversation.roles import SentenceSplitter, Speaker
from engine.conversation.waterfall import Waterfall
from engine.errors import BackendFailed
from engine.metrics import EngineMetrics
from engine.reply import Reply
from engine.slots import Published

MAX_REPLY_CHARS = 8000
"""A model that goes on is cut off here, ten minutes into its monologue."""
APOLOGY = "Sorry, something went wrong on my side. Please try again in a moment."

Outcome = Literal["answered", "interrupted", "empty", "failed"]
Stage = Literal["recogniser", "model", "voice"]


@dataclass(frozen=True, slots=True)
class DialogueOptions:
    """How a conversation goes.

    Attributes:
        greeting: said when the person is heard for the first time; empty for none.
        speak_errors: apologise aloud when a service fails; else an event is all there is.
        temperature: of the language model; its own when None.
    """

    greeting: str = ""
    speak_errors: bool = True
    temperature: float | None = None


@dataclass(slots=True, eq=False)
class Turn:
    """One turn of a person, from the end of what they said to the end of the answer.

    Attributes:
        turn_id: as events call it.
        waterfall: where its time goes.
        over_pause: it was said while the avatar waits, interrupted or not.
        text: what is answered; empty until it is known, and for a greeting.
        stage: where its task is.
        reply: the answer, or an apology in its place; None before its first sentence.
        heard_before: what was heard of the answer before the apology; None while there is none.
        audible: something of the answer was heard.
        superseded: the person spoke on; its words belong to the next turn.
        heard_out: set once the reply was heard to its end.
        task: what carries it out.
    """

    turn_id: int
    waterfall: Waterfall
    over_pause: bool = False
    text: str = ""
    stage: Stage = "recogniser"
    reply: Reply | None = None
    heard_before: str | None = None
    audible: bool = False
    superseded: bool = False
    heard_out: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Answerer:
    """Answers turns of one dialogue; it decides nothing about whose turn it is. For arguments see ``Dialogue``."""

    def __init__(
        self,
        speaker: Speaker,
        model: LanguageModel,
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

    async def answer(self, turn: Turn) -> None:
        """Has a turn answered; returns when the answer was heard to its end.

        Raises:
            BackendFailed: the model failed, or gave no answer.
            Busy: too much waits to be said.
        """
        splitter = self._sentences()
        length = 0
        deltas = self._model.reply(self._history.messages(turn.text), temperature=self._options.temperature)
        async with aclosing(deltas):
            async for delta in deltas:
                turn.waterfall.reach("first_token", self._speaker.clock.now_s())
                length += len(delta)
                self.say(turn, splitter.feed(delta))
                if length > MAX_REPLY_CHARS or (turn.reply is not None and turn.reply.failed):
                    break
        self.say(turn, splitter.flush())
        if turn.reply is None:
            raise BackendFailed("model_said_nothing", "The language model gave no answer; ask again.")
        await self.hear_out(turn)

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
        self.say(turn, [APOLOGY])
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
            self._tell_latency(turn)
        if reply.played_out:
            turn.heard_out.set()

    def keep(self, turn: Turn, outcome: Outcome) -> None:
        """Keeps, counts and tells what came of a turn."""
        heard = turn.heard_before
        if heard is None:
            heard = turn.reply.heard_text if turn.reply is not None else ""
        if heard:
            if turn.text:
                self._history.add(Message("user", turn.text))
            self._history.add_played(heard, outcome == "interrupted")
        if outcome == "interrupted" and turn.reply is not None:
            self._speaker.tell("interrupted", utterance_id=turn.reply.utterance_id, played_text=heard)
        self.tell(turn, outcome)
        self._metrics.turns(outcome).inc()

    def tell(self, turn: Turn, state: str) -> None:
        """Tells what state a turn is in."""
        self._speaker.tell("turn", turn_id=turn.turn_id, state=state)

    def _tell_latency(self, turn: Turn) -> None:
        if turn.text:  # a greeting answers nobody
            stages_ms = turn.waterfall.stages_ms
            for stage, value in stages_ms.items():
                self._metrics.turn_ms(stage).observe(value)
            self._speaker.tell("latency", turn_id=turn.turn_id, stages_ms=stages_ms)
