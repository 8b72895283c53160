"""What a model that speaks its answers itself is to the rest of Visavis: a conversation in, sound and its text out.

Place in the flow: History -> SpeakingModel -> parts -> Reply -> feeder -> lips; what was heard goes back to it.

Invariants:
    * parts come in the order they are heard; the text of a sentence may come a little before or after its sound;
    * it remembers the conversation itself, so it must be told what was really heard of an answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engine.conversation.asr.base import Recogniser
from engine.conversation.llm.base import Message
from engine.conversation.tts.base import SpeechPiece


@dataclass(frozen=True, slots=True)
class SpokenText:
    """A sentence and when it sounds, milliseconds from the start of the answer; estimated where nothing tells."""

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Timed:
    """All sentences of an answer again, once its whole sound is there, with better times."""

    texts: tuple[SpokenText, ...]


SpokenPart = SpeechPiece | SpokenText | Timed
"""A part of an answer: sound (pieces without text), a sentence of it, or all sentences when it is complete."""


@runtime_checkable
class SpeakingModel(Protocol):
    """Answers aloud, for one conversation."""

    def answer(self, messages: Sequence[Message], *, temperature: float | None = None) -> AsyncGenerator[SpokenPart]:
        """Streams the answer to a conversation; an async generator of parts as they come.

        Consume it inside ``contextlib.aclosing``; closing it early stops the service's work.

        Args:
            messages: as for ``LanguageModel.reply``.
            temperature: 0 to 2, where the service can be told; its own when None.

        Raises:
            BackendFailed: the service cannot answer; what came before stays valid.
        """
        ...

    def remember(self, messages: Sequence[Message], heard_ms: int | None) -> None:
        """Tells the conversation as the history has it after a turn; never waits.

        Args:
            messages: as for ``answer``; where something of the last answer was heard they end with that.
            heard_ms: sound of the last answer that was really played, milliseconds; None where it was not this model's,
                as a greeting. An answer nobody tells about was not heard.
        """
        ...

    async def aclose(self) -> None:
        """Ends the conversation; may be called twice."""
        ...


class Conversation(Recogniser, SpeakingModel, Protocol):
    """Hears and answers one person."""


class SpeakingService(Protocol):
    """Has conversations."""

    def converse(
        self, instructions: str = "", *, voice: str = "", language: str = "", eager: bool = True
    ) -> Conversation:
        """Makes a conversation, which its session closes; it connects when it is needed.

        Args:
            instructions: who the service is, until the messages it is asked to answer say otherwise.
            voice: what its voice is called; empty for its own choice.
            language: of what is spoken (``en``, ``pt-BR``), or empty to let the service find out.
            eager: ask for answers as soon as a turn has ended; not where many turns are nobody's business.
        """
        ...

    async def aclose(self) -> None:
        """Closes all connections; may be called twice."""
        ...
