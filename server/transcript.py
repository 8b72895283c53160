"""A conversation as a file to keep: JSON lines for programs, plain text for people.

Place in the flow: ``Session.transcript`` -> ``as_lines`` or ``as_text`` -> GET /sessions/{id}/transcript.

Invariant: one line of the file is one contribution, whatever was said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from engine.conversation.history import Line


def as_lines(lines: Sequence[Line]) -> str:
    """A JSON object a line: ``role``, ``text``, ``at`` (ISO 8601, UTC) and ``interrupted``."""
    objects = (
        {
            "role": line.role,
            "text": line.text,
            "at": _clock(line).isoformat(timespec="milliseconds"),
            "interrupted": line.interrupted,
        }
        for line in lines
    )
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in objects)


def as_text(lines: Sequence[Line], avatar: str) -> str:
    """A line each, with its time (UTC) and who said it. Args: avatar: its name."""
    names = {"user": "You", "assistant": avatar}
    return "".join(f"{_clock(line):%H:%M:%S} {names[line.role]}: {' '.join(line.text.split())}\n" for line in lines)


def _clock(line: Line) -> datetime:
    return datetime.fromtimestamp(line.at_s, UTC)
