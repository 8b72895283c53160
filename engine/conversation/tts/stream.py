"""Sentences out of a text while it is still being written, so that a voice starts long before the text ends.

Place in the flow: text deltas of a language model -> SentenceStream -> Voice, one sentence at a time.

Invariants:
    * the same sentences come out however the text was cut into deltas;
    * a sentence leaves as soon as nothing that may follow can change where it ends: mostly with the next word;
    * only the first one may be a clause: it ends at the first comma behind enough words to cover the making of the
      next, so that the first sound comes early;
    * every sentence holds a letter or digit, and at most ``MAX_SENTENCE_CHARS`` characters wait for an end.
"""

from __future__ import annotations

from engine.conversation.tts.sentences import clause_end, clean_text, sentence_end
from engine.conversation.tts.speakable import Unmarked
from engine.conversation.tts.spoken_text import PROTECTED_BLANK

FIRST_CLAUSE_WEIGHT = 24
"""How long a first clause is at least, as ``clause_end`` weighs it: about 1.5 s of speech."""


class SentenceStream:
    """One reply of a language model after the other.

    Args:
        early: the first sentence may end at a clause.
        link_word: what an address in the text is called.
    """

    def __init__(self, *, early: bool = True, link_word: str = "link") -> None:
        self._early = early
        self._unmarked = Unmarked(link_word)
        self._waiting = ""
        self._first = True

    def feed(self, delta: str) -> list[str]:
        """Takes the next piece of the reply.

        Returns:
            The sentences that are complete now, as they are read aloud: without markdown, emoji and addresses.
        """
        self._waiting += self._unmarked.feed(delta)
        return self._complete(ended=False)

    def flush(self) -> list[str]:
        """Takes the end of the reply; the next ``feed`` begins another one.

        Returns:
            The sentences that were left.
        """
        self._waiting += self._unmarked.flush()
        sentences = self._complete(ended=True)
        self._waiting, self._first = "", True
        return sentences

    def _complete(self, *, ended: bool) -> list[str]:
        sentences = []
        while self._waiting:
            paragraph, gap, later = self._waiting.partition("\n\n")
            end = sentence_end(paragraph, 0, complete=bool(gap) or ended)
            if self._early and self._first:
                clause = clause_end(paragraph[:end], FIRST_CLAUSE_WEIGHT)
                end = end if clause is None else clause
            if end is None:
                break
            if sentence := _spoken(paragraph[:end]):
                sentences.append(sentence)
                self._first = False
            self._waiting = paragraph[end:].lstrip(" ")
            self._waiting = f"{self._waiting}{gap}{later}" if self._waiting else later
        return sentences


def _spoken(sentence: str) -> str:
    """A sentence as the voice gets it; empty when nothing in it is read."""
    sentence = clean_text(sentence.replace(PROTECTED_BLANK, " "))
    return sentence if any(char.isalnum() for char in sentence) else ""
