"""What every language model is to the rest of Visavis: a conversation in, the reply out piece by piece.

Place in the flow: History -> LanguageModel -> deltas of text -> sentences -> Voice.

Invariants:
    * the deltas joined are the reply: only what is meant to be said, no reasoning and no markup of the protocol;
    * closing the iterator, or cancelling the task that waits for it, stops the work at once, also that of a service.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One contribution to a conversation."""

    role: Role
    text: str


class LanguageModel(Protocol):
    """Answers."""

    def reply(self, messages: Sequence[Message], *, temperature: float | None = None) -> AsyncGenerator[str]:
        """Streams the reply to a conversation; an async generator of pieces of text as they come.

        Consume it inside ``contextlib.aclosing``, so that leaving early closes it at once.

        Args:
            messages: the conversation: a system prompt if any, then turns, oldest first. Without a user's turn the
                reply is a greeting.
            temperature: 0 to 2; the model's own default when None.

        Raises:
            BackendFailed: the model cannot answer; what came before stays valid.
        """
        ...

    async def aclose(self) -> None:
        """Frees what the model holds; may be called twice."""
        ...
