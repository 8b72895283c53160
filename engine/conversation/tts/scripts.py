"""Which language to read a sentence in when the voice's own language does not use its letters.

Place in the flow: sentence -> ``language_of`` -> the built-in voice.

Invariant: a sentence in letters that the voice's language writes is left to that language.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

_READERS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "cmn",
    "HANGUL": "ko",
    "CYRILLIC": "ru",
    "GREEK": "el",
    "ARABIC": "ar",
    "HEBREW": "he",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "LATIN": "en-us",
}
"""First word of a letter's Unicode name -> a language that reads it."""

_WRITERS = {
    "CYRILLIC": frozenset("ru uk bg sr mk kk ky tt be ba cv mn os".split()),
    "ARABIC": frozenset("ar fa ur sd ug ku".split()),
    "DEVANAGARI": frozenset("hi mr ne kok sa".split()),
    "BENGALI": frozenset("bn as bpy".split()),
    "CJK": frozenset("cmn zh yue hak ja".split()),
}
"""Scripts with several languages -> those that write it; the others belong to their reader alone."""

_NOT_LATIN = frozenset(language for languages in _WRITERS.values() for language in languages) | (
    frozenset(_READERS.values()) - {"en-us"}
)


def language_of(sentence: str, preferred: str) -> str:
    """The language to read a sentence in.

    Args:
        sentence: plain text.
        preferred: the voice's own language, kept whenever it writes most of the sentence's letters.
    """
    scripts = Counter(
        unicodedata.name(char, "?").partition(" ")[0].partition("-")[0] for char in sentence if char.isalpha()
    )
    known = {script: count for script, count in scripts.items() if script in _READERS}
    if not known:
        return preferred
    if "HIRAGANA" in known or "KATAKANA" in known:  # Japanese mixes its kana with Chinese characters
        script = "HIRAGANA"
    else:
        script = max(known, key=lambda name: known[name])
    base = preferred.partition("-")[0]
    if script == "LATIN":
        writes = base not in _NOT_LATIN
    else:
        writes = base == _READERS[script] or base in _WRITERS.get(script, ())
    return preferred if writes else _READERS[script]
