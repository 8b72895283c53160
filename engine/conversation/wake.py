"""Tells whether words are meant for the avatar where it answers only to its name, and takes the name out of them.

Place in the flow: final words of a turn -> ``WakeWord`` -> the words to answer, or nothing -> dialogue.

Addressed is what begins with the name ("Maya, what time is it"), calls it anywhere with a greeting ("… so hey Maya,
what time is it"), or ends with it after a comma ("What time is it, Maya?"). Talk *about* it ("I gave it to Maya") is
not.

Whoever was answered is in conversation: for ``ATTENTION_S`` after the answer they may go on without the name.

Invariants:
    * pure: time comes in with every call, and words as any recogniser writes them, with or without punctuation;
    * without a wake word everything is addressed, and no word is taken out of anything.
"""

from __future__ import annotations

import itertools
import re
import unicodedata

ATTENTION_S = 8.0
"""How long after an answer the person may begin to go on without the name, seconds."""

_GREETINGS = ("hey", "hi", "hello", "ok", "okay", "hallo", "he", "salut", "bonjour", "hola", "oye", "oh", "yo")
_UNSPACED_GREETINGS = ("你好", "嗨", "嘿", "喂")
_FILLERS = ("um", "uh", "uhm", "erm", "so", "and", "well", "please", "äh", "ähm", "euh", "eh", "also", "ja", "und")
# Shorter names are within one letter of too many words.
_LEAST_FUZZY_LETTERS = 4
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_BETWEEN = r"[\W_]*"


class WakeWord:
    """The name of one avatar, and whether somebody is in conversation with it.

    Args:
        names: what it may be called, parted by commas; empty when it answers to everything.
    """

    def __init__(self, names: str = "") -> None:
        spellings = [" ".join(_words(name)) for name in names.split(",")]
        self._names = sorted({name for name in spellings if name}, key=len, reverse=True)
        self._attentive_until_s = float("-inf") if self._names else float("inf")
        if self._names:
            one = "|".join(_spelt(name) for name in self._names)
            greeting, filler = _before(_GREETINGS), _before(_GREETINGS + _FILLERS)
            self._first = re.compile(rf"[\W_]*{filler}*?(?:{one})", re.IGNORECASE)
            self._called = re.compile(rf"(?<![^\W_]){greeting}(?:{one})", re.IGNORECASE)
            self._last = re.compile(rf"[,;:.?!，；：。？！、][\W_]*(?:{one})[\W_]*$", re.IGNORECASE)

    def answering(self, now_s: float) -> None:
        """Takes that the avatar answers, or is heard: the person is in conversation with it."""
        self._attentive_until_s = max(self._attentive_until_s, now_s + ATTENTION_S)

    def attentive_at(self, at_s: float) -> bool:
        """Whether what a person begins to say at that moment needs no name."""
        return at_s <= self._attentive_until_s

    def words(self, text: str) -> str | None:
        """The words of a text that calls the avatar.

        Returns:
            Those without the name; all of them where nothing else would be left, or none is needed. None for a text
            that does not call it.
        """
        if not self._names:
            return text
        without = self._without_name(unicodedata.normalize("NFKC", text))
        return without if without is None else without or text

    def _without_name(self, text: str) -> str | None:
        if (first := self._first.match(text)) and self._whole(text, first):
            return _tidy(text[first.end() :])
        for called in self._called.finditer(text):
            if self._whole(text, called):
                return _tidy(text[called.end() :]) or _tidy(text[: called.start()])
        if last := self._last.search(text):
            return text[: last.start() + 1].rstrip(",;:，；：、 ").strip()
        return self._without_misheard(text)

    def _without_misheard(self, text: str) -> str | None:
        """The words after a greeting and something within a letter of the name ("hey my a" for "hey Maya")."""
        words = list(_WORD.finditer(text))
        for at, word in enumerate(words):
            if word.group().casefold() not in _GREETINGS:
                continue
            for name, length in itertools.product(self._names, (1, 2, 3)):
                heard = words[at + 1 : at + 1 + length]
                sounds = "".join(part.group().casefold() for part in heard)
                plain = name.replace(" ", "")
                if len(heard) == length and len(plain) >= _LEAST_FUZZY_LETTERS and _near(sounds, plain):
                    return _tidy(text[heard[-1].end() :]) or _tidy(text[: word.start()])
        return None

    @staticmethod
    def _whole(text: str, found: re.Match[str]) -> bool:
        """Whether a name ends where a word does ("Maya's" and "mayan" are others)."""
        rest = text[found.end() :]
        if not rest or _UNSPACED.match(found.group()[-1]):
            return True
        return not re.match(r"[^\W_]|['’][^\W_]", rest)


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(unicodedata.normalize("NFKC", text))]


def _before(words: tuple[str, ...]) -> str:
    """A pattern for one of these words, or a greeting of unspaced writing, in front of a name."""
    return rf"(?:(?:{'|'.join(words)})[\W_]+|(?:{'|'.join(_UNSPACED_GREETINGS)})[\W_]*)"


def _spelt(name: str) -> str:
    """A pattern for a name, whatever stands between its words."""
    return _BETWEEN.join(map(re.escape, name.split()))


def _tidy(text: str) -> str:
    """A text without the punctuation and the blanks that its first word left behind; empty where no word is left."""
    return text.lstrip(",;:.!?-–—…，；：。！？、 \t\n").strip() if _WORD.search(text) else ""


def _near(heard: str, name: str) -> bool:
    """Whether two words are the same but for one letter that is missing, another, or too many."""
    if abs(len(heard) - len(name)) > 1:
        return False
    start = next((at for at, (a, b) in enumerate(zip(heard, name, strict=False)) if a != b), min(len(heard), len(name)))
    rests = heard[start:], name[start:]
    return rests[0][1:] == rests[1][1:] or rests[0][1:] == rests[1] or rests[0] == rests[1][1:]
