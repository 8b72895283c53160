"""What the service remembers of a conversation, beside what it should remember, and how to make the two agree.

Place in the flow: committed sound, answers and the history -> Items -> what to delete and to create at the service.

The history decides: it holds what was really heard, forgets its oldest turns, and knows of typed texts and greetings.
Before each answer the service's conversation is made equal to it, by as few changes as possible, so that what the
person said stays there as sound, with its tone, and only what is missing comes as text.

Invariants:
    * the order here is the service's order;
    * an entry that is open, whose text is still being made, is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from engine.conversation.llm.base import Message, Role
from engine.conversation.realtime.wire import new_id


@dataclass(slots=True, eq=False)
class Entry:
    """One contribution as the service has it.

    Attributes:
        role: who made it.
        text: as the history has it; None while it is open.
        item_ids: the service's items; they may come later than the entry.
    """

    role: Role
    text: str | None = None
    item_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Created:
    """A text the service lacks. ``after`` is the item before it, ``root`` for none; None: it goes to the end."""

    entry: Entry
    after: str | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How to make the service agree: what to create, and the entries it does not need."""

    created: tuple[Created, ...]
    removed: tuple[Entry, ...]


class Items:
    """The service's side of one conversation, oldest first."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> Entry:
        """Something new came to the end."""
        self.entries.append(entry)
        return entry

    def remove(self, entry: Entry) -> None:
        """It is gone from the service. Idempotent."""
        if entry in self.entries:
            self.entries.remove(entry)

    def agree(self, messages: Sequence[Message], *, so_far: bool = False) -> Agreement:
        """Makes the entries what they should be, and says what to do for it at the service.

        Args:
            messages: contributions of user and assistant.
            so_far: nothing is to be answered yet, so what the person said since the last answer is left alone.
        """
        wanted = [(message.role, message.text.strip()) for message in messages if message.text.strip()]
        if wanted and wanted[-1][0] == "user" and not so_far:
            self._join_last(wanted[-1][1])
        end = len(self.entries)
        while so_far and end and self.entries[end - 1].role == "user":
            end -= 1
        there = [entry for entry in self.entries[:end] if entry.text is not None]
        behind = [entry for entry in self.entries[:end] if entry.text is None] + self.entries[end:]
        kept: list[Entry] = []
        created: list[Created] = []
        removed: list[Entry] = []
        matcher = SequenceMatcher(None, [(entry.role, entry.text) for entry in there], wanted, autojunk=False)
        for what, a, b, c, d in matcher.get_opcodes():
            if what == "equal":
                kept += there[a:b]
                continue
            removed += there[a:b]
            for role, text in wanted[c:d]:
                entry = Entry(role, text, [new_id("item")])
                last = kept[-1].item_ids[-1:] if kept else ["root"]
                at_end = b == len(there) and not behind
                created.append(Created(entry, None if at_end or not last else last[0]))
                kept.append(entry)
        self.entries = kept + behind
        return Agreement(tuple(created), tuple(removed))

    def _join_last(self, text: str) -> None:
        """What the person said in several parts, or with a word before it that is not meant, becomes one entry."""
        said = [entry for entry in self.entries if entry.text is not None]
        parts: list[Entry] = []
        for entry in reversed(said):
            if entry.role != "user":
                return
            parts.insert(0, entry)
            joined = " ".join(part.text or "" for part in parts)
            if joined == text or (len(parts) == 1 and joined.endswith(text)):
                break
        else:
            return
        parts[0].text = text
        for part in parts[1:]:
            parts[0].item_ids += part.item_ids
            self.entries.remove(part)
