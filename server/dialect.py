"""What is written on a data channel: our own flat messages; RTVI says the same in others' words.

Place in the flow: data channel -> ``Dialect.read`` -> command for ``ControlChannel``; its answers and a session's
events -> ``Dialect.answer``, ``Dialect.event`` -> data channel.

Invariants: a dialect changes the form of what is said, never what a session does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.errors import InvalidInput

MAX_MESSAGE_CHARS = 64_000

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What a browser's message asks for.

    Attributes:
        command: as our own messages have it, with a ``type``; None when nothing is to be carried out.
        id: what its answer is to be called, where the dialect names requests.
        kind: what the dialect calls the request.
        replies: what is answered at once.
    """

    command: Message | None
    id: str = ""
    kind: str = ""
    replies: tuple[Message, ...] = ()


class Dialect(Protocol):
    """A language of the data channel; one of its own for each channel."""

    def read(self, message: str | bytes) -> Request:
        """What a message asks for.

        Raises:
            InvalidInput: ``invalid_json``, or what else makes it unreadable; ``answer`` tells it.
        """
        ...

    def answer(self, request: Request | None, kind: str, data: Mapping[str, Any]) -> list[Message]:
        """Messages that answer a request, or one that could not be read, with an event of ours."""
        ...

    def event(self, kind: str, data: Mapping[str, Any]) -> list[Message]:
        """Messages that tell an event of ours."""
        ...


class Flat:
    """Our own: ``{"type": …, …}`` both ways."""

    def read(self, message: str | bytes) -> Request:
        """See ``Dialect``."""
        return Request(parse(message))

    def answer(self, request: Request | None, kind: str, data: Mapping[str, Any]) -> list[Message]:
        """See ``Dialect``."""
        return self.event(kind, data)

    def event(self, kind: str, data: Mapping[str, Any]) -> list[Message]:
        """See ``Dialect``."""
        return [{**data, "type": kind}]


def parse(message: str | bytes) -> Message:
    """A message as an object.

    Raises:
        InvalidInput: ``invalid_json``.
    """
    if not isinstance(message, str) or len(message) > MAX_MESSAGE_CHARS:
        raise InvalidInput("invalid_json", f"A command is JSON text of at most {MAX_MESSAGE_CHARS} characters.")
    try:
        command = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("invalid_json", "The command is not JSON.") from error
    if not isinstance(command, dict):
        raise InvalidInput("invalid_json", "A command is a JSON object with a type.")
    return command
