"""What a TurnTaker tells: that somebody began or ended to speak, and that the avatar must yield or may go on.

Place in the flow: TurnTaker -> TurnEvent -> dialogue.

Invariants: see the diagram of ``engine.conversation.turn`` for what follows what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "speech_started", "speech_paused", "speech_resumed", "end_of_turn", "turn_dropped",
    "duck", "unduck", "barge_in", "false_interruption", "interrupted",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """Something that follows from what was heard.

    Attributes:
        kind: see the diagram of ``engine.conversation.turn``.
        at_s: when it was decided.
        turn: number of the user's turn, from 1; 0 before the first.
        since_s: when the speech began (``speech_started``, ``speech_resumed``) or ended (``speech_paused``,
            ``end_of_turn``, ``turn_dropped``); ``at_s`` for the others.
    """

    kind: Kind
    at_s: float
    turn: int
    since_s: float
