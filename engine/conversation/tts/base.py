"""What every voice is to the rest of Visavis: text in, spoken sentences with the times of their words out.

Place in the flow: text of an utterance -> Voice -> SpeechPiece -> playout resampling -> producer.

Invariants:
    * pieces come in the order of the text, and their texts together are the whole text;
    * a sentence is one piece, or, where its sound arrives bit by bit, one piece with its text and more without,
      all ``more`` but the last;
    * every word lies inside its piece: ``0 <= start_ms <= end_ms <= duration_ms``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word and when it sounds.

    Attributes:
        text: the word as it was written.
        start_ms: start of its sound, from the start of its piece.
        end_ms: end of its sound, from the start of its piece.
    """

    text: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class SpeechPiece:
    """One spoken sentence, or a part of the sound of one.

    Attributes:
        samples: (N,) int16 mono; N may be 0 in the last of several parts.
        sample_rate: Hz, the same for all parts of a sentence; whatever the voice makes, playout resamples.
        text: the sentence, cleaned of control characters; empty in all parts but the first.
        words: its words in order; empty when the voice does not tell.
        more: the next piece goes on with the same sentence, without a gap.
        expected_ms: about how long the whole sentence will be, milliseconds, where ``more`` is to come.
    """

    samples: np.ndarray
    sample_rate: int
    text: str
    words: list[Word] = field(default_factory=list)
    more: bool = False
    expected_ms: int = 0

    @property
    def duration_ms(self) -> int:
        """Length of the sound, milliseconds, rounded up."""
        return -(-len(self.samples) * 1000 // self.sample_rate)


def is_speakable(text: str) -> bool:
    """Whether any voice could make sound of a text: it holds a letter, a digit, a symbol or punctuation.

    Which symbols are read out is up to the voice; blanks, control and format characters are read by none.
    """
    return any(unicodedata.category(char)[0] in "LNPS" for char in text)


class Voice(Protocol):
    """Speaks text."""

    def speak(self, text: str) -> AsyncIterator[SpeechPiece]:
        """Speaks a text sentence by sentence; an async generator.

        Cancelling (or closing the iterator) stops the work at once; pieces already handed out stay valid and
        the voice can speak again.

        Args:
            text: plain text; markup is read out, not interpreted.

        Raises:
            BackendFailed: the voice cannot speak.
        """
        ...

    async def aclose(self) -> None:
        """Frees what the voice holds; may be called twice."""
        ...
