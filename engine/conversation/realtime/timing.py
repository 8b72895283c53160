"""When the sentences of an answer sound, from a growing transcript and a growing sound that tell nothing of each other.

Place in the flow: deltas of transcript and sound of one answer -> SpokenWords -> SpokenText -> captions, history.

A service sends the transcript along with the sound, a little before or after it, or all at once. So a sentence is
taken to begin where the sound was when its first letters came, unless no voice would be so fast or so slow. When all
of the sound is there, sentences get shares of it by their letters.

Invariant: sentences come in order, and none begins before the one before it.
"""

from __future__ import annotations

import re

from engine.conversation.realtime.base import SpokenText
from engine.conversation.tts.sentences import sentence_end

_MS_PER_LETTER, _MS_PER_DENSE = 65.0, 190.0
"""Speech of alphabets, and of scripts where a character is a syllable or more."""
_SLOWEST, _FASTEST = 1.5, 0.65
"""How far a real voice is from that."""
_BLANKS = re.compile(r"\s+")


class SpokenWords:
    """The sentences of one answer."""

    def __init__(self) -> None:
        self._text = ""
        self._from_ms: float | None = None
        self._expected_ms = 0.0
        self._done: list[SpokenText] = []

    def feed(self, delta: str, sound_ms: int) -> list[SpokenText]:
        """Takes more transcript, when so much of the sound was there; gives the sentences complete by now."""
        self._text = _BLANKS.sub(" ", self._text + delta).lstrip()
        if self._from_ms is None and self._text:
            self._from_ms = self._place(sound_ms)
        complete = []
        while (end := sentence_end(self._text, 0, complete=False)) is not None:
            sentence, self._text = self._text[:end], self._text[end:].lstrip()
            complete += self._finish(sentence)
            self._from_ms = self._place(sound_ms) if self._text else None
        return complete

    def end(self) -> list[SpokenText]:
        """The rest."""
        rest, self._text = self._text, ""
        return self._finish(rest)

    def timed(self, sound_ms: int) -> tuple[SpokenText, ...]:
        """All sentences so far, over the whole sound."""
        total = sum(_expected_ms(text.text) for text in self._done)
        timed, at = [], 0.0
        for text in self._done:
            end = at + _expected_ms(text.text)
            timed.append(SpokenText(text.text, round(at / total * sound_ms), round(end / total * sound_ms)))
            at = end
        return tuple(timed)

    def _place(self, sound_ms: int) -> float:
        return min(max(float(sound_ms), self._expected_ms * _FASTEST), self._expected_ms * _SLOWEST)

    def _finish(self, sentence: str) -> list[SpokenText]:
        sentence = sentence.strip()
        if not sentence:
            return []
        start_ms = max(round(self._from_ms or 0.0), self._done[-1].start_ms if self._done else 0)
        self._expected_ms += _expected_ms(sentence)
        text = SpokenText(sentence, start_ms, round(start_ms + _expected_ms(sentence)))
        self._done.append(text)
        return [text]


def _expected_ms(text: str) -> float:
    return sum(_MS_PER_LETTER if ord(char) < 0x1100 else _MS_PER_DENSE for char in text) or _MS_PER_LETTER
