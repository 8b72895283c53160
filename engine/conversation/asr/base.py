"""What every recogniser is to the rest of Visavis: speech of one turn in, its words out, before and after it ends.

Place in the flow: analysis sound -> ``Recogniser.listen`` -> ``Listening`` -> ``Transcript`` -> turn taking, dialogue.

Invariants:
    * one ``Listening`` is one turn: sound goes in until ``finish`` or ``cancel``, then it is over;
    * taking sound never waits, so it can be done on the event loop;
    * sound without words gives an empty text, never an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

MAX_TURN_S = 120.0
"""Longest speech of one turn; what comes after it is left out of the transcript, and logged."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What somebody said.

    Attributes:
        text: the words; empty when there were none.
        final: False while more may come and the text may still change.
        language: two-letter code, or empty when the recogniser does not tell.
        confidence: 0 (a guess) to 1 (sure), or None when the recogniser does not tell.
    """

    text: str
    final: bool
    language: str = ""
    confidence: float | None = None


class Listening(Protocol):
    """One turn being heard."""

    def push(self, samples: np.ndarray) -> None:
        """Hears more; never waits.

        Args:
            samples: (n,) float32 mono at 16 kHz, nominally in [-1, 1]; any length. Must not be changed afterwards.
                Ignored once finished or cancelled.
        """
        ...

    async def partial(self) -> Transcript | None:
        """The words so far, not final; None when there are none yet, or the recogniser gives none before the end.

        Raises:
            BackendFailed: the recogniser failed; so will ``finish``.
        """
        ...

    async def finish(self) -> Transcript:
        """No more sound comes: the final words. To be called once; cancelling the call cancels the listening.

        Raises:
            BackendFailed: the recogniser failed.
            Cancelled: ``asr_cancelled``: ``cancel`` or ``Recogniser.aclose`` came first.
        """
        ...

    def cancel(self) -> None:
        """Nobody wants the words any more: frees everything, soon. At any moment; idempotent."""
        ...


class Recogniser(Protocol):
    """Turns speech into text for one session."""

    def listen(self) -> Listening:
        """Begins a turn.

        Raises:
            Closed: ``asr_closed``.
        """
        ...

    async def aclose(self) -> None:
        """Cancels every listening and frees what the recogniser holds; may be called twice."""
        ...
