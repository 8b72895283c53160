"""What was said in a conversation: as much of it as the language model gets, and all of it for export.

Place in the flow: final transcripts and what was really played -> History -> messages for the LanguageModel.

Invariants:
    * the system prompt is in every request, whatever else has to go;
    * an assistant's turn is what people heard, not what the model wrote; where it was cut off it ends in ``…``, and
      a reply of which nothing was heard leaves no turn;
    * the context is cut between turns and begins with a user's; it is cut well below the budget, so that the start of
      the request stays the same for many turns and services can reuse what they computed for it;
    * the record lives in memory only, and is bounded.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from engine.conversation.llm.base import Message

DEFAULT_BUDGET_TOKENS = 3000
"""Fits the 4096 tokens that local servers give a model unless told otherwise, with room for the reply."""
MAX_TURNS = 5000
"""Turns that are kept for export; about ten hours of talk."""
CUT_MARK = "…"

_TRIM_TO = 0.75  # share of the budget that is left after a cut
_TOKENS_PER_MESSAGE = 4  # role and separators of common chat templates
_DENSE = re.compile("[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_TOKENS_DENSE, _TOKENS_ASCII, _TOKENS_OTHER = 1.0, 0.27, 0.5  # a character


def estimate_tokens(text: str) -> int:
    """About how many tokens a text is, rather too many than too few: no tokeniser of any model is asked.

    A Chinese, Japanese or Korean character counts as one, four English letters as one, two of other scripts as one.
    """
    dense = len(_DENSE.findall(text))
    plain = len(text.encode("ascii", "ignore"))
    other = len(text) - dense - plain
    return math.ceil(dense * _TOKENS_DENSE + plain * _TOKENS_ASCII + other * _TOKENS_OTHER)


@dataclass(frozen=True, slots=True)
class Line:
    """One contribution as it is exported.

    Attributes:
        role: who said it.
        text: what was heard; ends in ``CUT_MARK`` where it was cut off.
        at_s: when it was said, seconds since 1970.
        interrupted: more was to come.
    """

    role: Literal["user", "assistant"]
    text: str
    at_s: float
    interrupted: bool = False


class History:
    """The memory of one conversation."""

    def __init__(
        self,
        system_prompt: str = "",
        budget_tokens: int = DEFAULT_BUDGET_TOKENS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """An empty conversation.

        Args:
            system_prompt: who the avatar is; may be empty.
            budget_tokens: how long a request may become, estimated; the system prompt counts.
            now: the clock of exported turns, seconds since 1970.
        """
        self.system_prompt = system_prompt
        self._budget = budget_tokens
        self._now = now
        self._turns: deque[Line] = deque(maxlen=MAX_TURNS)
        self._context: deque[tuple[Message, int]] = deque()  # with what each weighs
        self._forgotten = 0  # turns that fell out of the record

    @property
    def lines(self) -> list[Line]:
        """The whole conversation as far as it is remembered, oldest first."""
        return list(self._turns)

    def add(self, message: Message, *, ago_s: float = 0.0, interrupted: bool = False) -> None:
        """Records a turn; one without text is none.

        Args:
            message: who said what.
            ago_s: how long ago it was said, seconds.
            interrupted: more was to come.

        Raises:
            ValueError: a system message; the system prompt is set, not said.
        """
        if message.role == "system":
            raise ValueError("the system prompt is an argument of History")
        text = message.text.strip()
        if not text:
            return
        self._forgotten += len(self._turns) == MAX_TURNS
        self._turns.append(Line(message.role, text, self._now() - ago_s, interrupted))
        self._context.append((Message(message.role, text), _weight(text)))
        self._trim("")

    def add_played(self, text: str, cut: bool, *, ago_s: float = 0.0) -> None:
        """Records what was heard of the assistant's reply, begun ``ago_s`` ago; ``cut`` says that more was to come."""
        text = text.strip()
        if text and cut:
            text = text.rstrip(" .,;:–—…、，。；：") + CUT_MARK
        self.add(Message("assistant", text), ago_s=ago_s, interrupted=cut)

    def messages(self, text: str = "") -> list[Message]:
        """The request to the language model: system prompt, as many turns as fit, and what the user says now.

        Args:
            text: what the user says; not recorded, so that it can be withdrawn. Empty when it is recorded already.
        """
        self._trim(text)
        system = [Message("system", self.system_prompt)] if self.system_prompt.strip() else []
        turns = [message for message, _ in self._context]
        return [*system, *turns, *([Message("user", text)] if text.strip() else [])]

    def restore(self, lines: Iterable[Line]) -> None:
        """Goes on where another history of the same conversation, whose ``lines`` they were, has ended."""
        self.clear()
        for line in lines:
            self._turns.append(line)
            self._context.append((Message(line.role, line.text), _weight(line.text)))
        self._trim("")

    def clear(self) -> None:
        """Forgets everything but the system prompt."""
        self._turns.clear()
        self._context.clear()
        self._forgotten = 0

    def to_json(self) -> str:
        """The whole conversation without the system prompt: ``{"turns": [{"role", "text", "at"}], "forgotten": 0}``."""
        turns: list[dict[str, Any]] = [
            {"role": turn.role, "text": turn.text, "at": _clock(turn.at_s).isoformat(timespec="milliseconds")}
            for turn in self._turns
        ]
        return json.dumps({"turns": turns, "forgotten": self._forgotten}, ensure_ascii=False, indent=2)

    def to_text(self, user: str = "You", assistant: str = "Avatar") -> str:
        """The whole conversation for people: a line a turn, with its time (UTC) and who said it."""
        names = {"user": user, "assistant": assistant}
        lines = [f"[{self._forgotten} earlier turns are gone]"] if self._forgotten else []
        lines += [
            f"{_clock(turn.at_s):%H:%M:%S} {names[turn.role]}: {' '.join(turn.text.split())}" for turn in self._turns
        ]
        return "".join(f"{line}\n" for line in lines)

    def _trim(self, text: str) -> None:
        """Drops the oldest turns when they, the system prompt and ``text`` are over the budget."""
        total = _weight(self.system_prompt) + _weight(text) + sum(weight for _, weight in self._context)
        if total <= self._budget:
            return
        least = 0 if text.strip() else 1
        while len(self._context) > least:
            message, weight = self._context[0]
            if total <= self._budget * _TRIM_TO and message.role == "user":
                return
            self._context.popleft()
            total -= weight


def _weight(text: str) -> int:
    return estimate_tokens(text) + _TOKENS_PER_MESSAGE if text.strip() else 0


def _clock(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
