"""Plain text into clean sentences, so that a voice can start with the first one and captions follow the sound.

Place in the flow: text of an utterance -> ``clean_text`` -> ``split_sentences`` -> Voice.

Invariants:
    * cleaned text holds no control characters, no lone surrogates and no runs of blanks;
    * sentences in order hold every speakable character of the text;
    * no sentence is longer than ``MAX_SENTENCE_CHARS``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MAX_SENTENCE_CHARS = 400
"""A sentence without punctuation is cut here, at a comma or blank, so that the first sound never waits for pages."""

_JOINERS = "\u200c\u200d"  # change how Persian and Indic words are read; every other format character is dropped
_PARAGRAPH = re.compile(r"\s*\n\s*\n\s*|\n(?=\s*(?:[-*•–]|\d+[.)])\s)")
_BLANKS = re.compile(r"\s+")
_CLOSERS = "\"'”’»)]}」』）】》"
_FULL_STOPS = frozenset("。！？｡؟।॥۔")  # end a sentence without a blank after them
_STOPS = frozenset(".!?…;") | _FULL_STOPS
_SOFT_BREAK = re.compile(r"[,;:、，；：—–]\s*|\s+")
_ABBREVIATIONS = frozenset(
    "dr mr mrs ms mx prof st sr jr vs nos vol dept gen lt capt sgt rev ltd corp approx est jan feb apr jun jul aug "
    "sep sept oct nov dec e.g i.e u.s u.k cf z.b d.h u.a bzw ca nr hr str usw ggf sra srta ud uds mme mlle".split()
)


def clean_text(text: str) -> str:
    """Drops what cannot be spoken: control and format characters, surrogates, unassigned code points.

    Line breaks survive as ``\\n`` because they separate list items and paragraphs; other blanks become one space.
    """
    kept = []
    for char in unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")):
        category = unicodedata.category(char)
        if char == "\n" or char in _JOINERS:
            kept.append(char)
        elif char == "\t" or category in ("Zs", "Zl", "Zp"):
            kept.append(" ")
        elif category not in ("Cc", "Cf", "Cs", "Co", "Cn"):
            kept.append(char)
    return re.sub(r"[ ]{2,}", " ", "".join(kept)).strip()


def split_sentences(text: str) -> list[str]:
    """Splits text into sentences that can be spoken one after another.

    Understands abbreviations, initials, numbers, addresses, closing quotes, list items, paragraphs and the full
    stops of Chinese, Japanese, Arabic, Urdu and Hindi. What holds no letter or digit joins its neighbour.

    Args:
        text: any text; it is cleaned first.
    """
    sentences: list[str] = []
    for paragraph in _PARAGRAPH.split(clean_text(text)):
        for sentence in _sentences_of(_BLANKS.sub(" ", paragraph).strip()):
            speakable = any(char.isalnum() for char in sentence)
            if not speakable and sentences and len(sentences[-1]) + len(sentence) < MAX_SENTENCE_CHARS:
                sentences[-1] += " " + sentence
            else:
                sentences.extend(_cut_long(sentence))
    return sentences


def _sentences_of(paragraph: str) -> Iterator[str]:
    start = position = 0
    while position < len(paragraph):
        if paragraph[position] not in _STOPS:
            position += 1
            continue
        stop = position
        while position < len(paragraph) and (paragraph[position] in _STOPS or paragraph[position] in _CLOSERS):
            position += 1
        if _ends_sentence(paragraph, start, stop, position):
            yield paragraph[start:position].strip()
            start = position
    if paragraph[start:].strip():
        yield paragraph[start:].strip()


def _ends_sentence(text: str, start: int, stop: int, after: int) -> bool:
    """Whether the stop at ``stop``, whose run of stops and closers ends at ``after``, ends the sentence."""
    if after >= len(text):
        return True
    if any(char in _FULL_STOPS for char in text[stop:after]):
        return True
    if text[after] != " ":  # 3.14, example.org, v1.2
        return False
    if text[stop] == ";":
        return after - start > 80  # a breath in a long sentence, not in a short one
    if text[stop] == "." and stop + 1 == after:
        word = text[start:stop].rpartition(" ")[2].lstrip("(\"'“‘«[").lower()
        if word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i"):
            return False
        if word.isdigit() and stop - len(word) == start:  # "1. First": the number of a list item
            return False
    following = text[after:].lstrip(" \"'“‘«([¿¡")
    return not following[:1].islower() or text[stop] in "!?"


def _cut_long(sentence: str) -> Iterator[str]:
    while len(sentence) > MAX_SENTENCE_CHARS:
        breaks = [m.end() for m in _SOFT_BREAK.finditer(sentence, MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS)]
        cut = breaks[-1] if breaks else MAX_SENTENCE_CHARS
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if sentence:
        yield sentence
