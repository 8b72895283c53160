"""Plain text into clean sentences, so that a voice can start with the first one and captions follow the sound.

Place in the flow: text of an utterance -> ``clean_text`` -> ``split_sentences`` -> Voice; text that is still being
written goes through ``stream.SentenceStream``, which asks the same ``sentence_end``.

Invariants:
    * cleaned text holds no control characters, no lone surrogates and no runs of blanks;
    * where a sentence ends does not depend on how much of the text behind it is known, only when that can be told;
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
_OPENERS = dict(zip("([{“„«「『（《【", ")]}”“»」』）》】", strict=True))
_CLOSERS_OF_ASIDES = frozenset(_OPENERS.values()) | {'"'}
_MAX_ASIDE_CHARS = 120  # a bracket or quotation this long is read sentence by sentence; so is one that never closes
_LOOKAHEAD_CHARS = 8
_SENTENCE_PAUSE_MS, _CLAUSE_PAUSE_MS = 220, 90
_NUMBERED = frozenset("no nos fig figs p pp ch sec eq art vol".split())  # abbreviations only before a number
_MONTHS = frozenset("jan jän feb mär apr mai jun jul aug sep okt nov dez".split())
_ABBREVIATIONS = frozenset(
    "dr mr mrs ms mx prof st sr jr vs nos vol dept gen lt capt sgt rev ltd corp approx est jan feb apr jun jul aug "
    "sep sept oct nov dec e.g i.e u.s u.k cf z.b d.h u.a bzw ca nr hr str usw ggf ph.d sra srta ud uds mme mlle".split()
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

    Understands abbreviations, initials, numbers, addresses, brackets and quotations, list items, paragraphs and the
    full stops of Chinese, Japanese, Arabic, Urdu and Hindi. What holds no letter or digit joins its neighbour.

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
                sentences.append(sentence)
    return sentences


def pause_after_ms(sentence: str) -> int:
    """Silence that belongs behind a sentence, or a clause of one, when another follows; milliseconds."""
    ending = sentence.rstrip(_CLOSERS)[-1:]
    return _CLAUSE_PAUSE_MS if _SOFT_BREAK.fullmatch(ending) else _SENTENCE_PAUSE_MS


def _sentences_of(paragraph: str) -> Iterator[str]:
    start = 0
    while start < len(paragraph):
        end = sentence_end(paragraph, start, complete=True)
        assert end is not None
        if sentence := paragraph[start:end].strip():
            yield sentence
        start = end + (paragraph[end : end + 1] == " ")


def sentence_end(paragraph: str, start: int, *, complete: bool) -> int | None:
    """Where the sentence ends that starts at ``start``, at most ``MAX_SENTENCE_CHARS`` behind it.

    Args:
        paragraph: text without line breaks and without runs of blanks.
        start: index of its first character.
        complete: nothing will be appended to the paragraph.

    Returns:
        The index behind it; None when what comes next decides.
    """
    limit = start + MAX_SENTENCE_CHARS
    asides = Asides()
    position = start
    while position < min(len(paragraph), limit):
        asides.read(paragraph, position, start)
        if paragraph[position] not in _STOPS:
            position += 1
            continue
        stop = position
        position += 1
        while position < len(paragraph) and (
            paragraph[position] in _STOPS or paragraph[position] in _CLOSERS or asides.closes(paragraph[position])
        ):
            asides.read(paragraph, position, start)
            position += 1
        if position > limit:
            break
        if asides.holds(position) and position < len(paragraph):
            continue
        ends = _ends_sentence(paragraph, start, stop, position, complete)
        if ends is None:
            return None
        if ends:
            return position
    if len(paragraph) > limit:
        breaks = [m.end() for m in _SOFT_BREAK.finditer(paragraph, limit - MAX_SENTENCE_CHARS // 2, limit)]
        return breaks[-1] if breaks else limit
    return len(paragraph) if complete else None


def clause_end(paragraph: str, least_weight: int) -> int | None:
    """Where a clause ends that is long enough to be spoken alone, for a voice that should start early.

    Args:
        paragraph: as for ``sentence_end``, from the start of the clause on.
        least_weight: how much there has to be before; a letter weighs 1, one that is a syllable 3.

    Returns:
        The index behind its comma, colon, semicolon or dash; None where there is none yet.
    """
    asides = Asides()
    weight = 0
    for position in range(len(paragraph) - 1):
        char, following = paragraph[position], paragraph[position + 1]
        asides.read(paragraph, position, 0)
        weight += 3 if is_wide(char) else 1
        if weight < least_weight or asides.holds(position):
            continue
        if char in "，；：" or (char == "、" and any("\u3040" <= other <= "\u30ff" for other in paragraph[:position])):
            return position + 1
        if char in ",;:—–" and following == " " and position + 2 < len(paragraph):
            if not (paragraph[position - 1].isdigit() and paragraph[position + 2].isdigit()):  # May 5, 2024
                return position + 1
    return None


class Asides:
    """The brackets and quotations that are open at a place in a text: a sentence does not end inside one."""

    def __init__(self) -> None:
        self._open: list[tuple[str, int]] = []  # (what closes it, where it was opened)

    def read(self, text: str, position: int, start: int) -> None:
        """Takes note of the character at ``position``; called for each in turn, from ``start`` on."""
        char = text[position]
        before = text[position - 1] if position > start else " "
        if self.closes(char):
            while self._open.pop()[0] != char:
                pass
        elif char in _OPENERS:
            if before not in ":;=":  # :( is a face
                self._open.append((_OPENERS[char], position))
        elif char == '"' and (before == " " or before in _OPENERS):
            self._open.append((char, position))

    def closes(self, char: str) -> bool:
        """Whether a character closes an open aside: “ does so in German, and opens one in English."""
        return char in _CLOSERS_OF_ASIDES and any(closer == char for closer, _ in self._open)

    def holds(self, position: int) -> bool:
        """Whether ``position``, behind everything read, is inside of an aside that is not too long."""
        return bool(self._open) and position - self._open[0][1] <= _MAX_ASIDE_CHARS


def is_wide(char: str) -> bool:
    """Whether a character is a Chinese character, kana or Hangul: about a syllable, and written without blanks."""
    return "\u3040" <= char <= "\u30ff" or "\u3400" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7af"


def _ends_sentence(text: str, start: int, stop: int, after: int, complete: bool) -> bool | None:
    """Whether the stop at ``stop``, whose run of stops and closers ends at ``after``, ends the sentence.

    Returns:
        None when what comes next decides.
    """
    if after >= len(text):
        return True if complete else None
    if any(char in _FULL_STOPS for char in text[stop:after]):
        return not (text[after] == "と" and text[after - 1] in "」』")  # 「はい。」と言った
    if text[after] != " ":  # 3.14, example.org, v1.2; but 好!走
        return text[stop] in ".!?" and is_wide(text[after]) and is_wide(text[stop - 1 : stop] or " ")
    if text[stop] == ";":
        return after - start > 80  # a breath in a long sentence, not in a short one
    ahead = text[after : after + _LOOKAHEAD_CHARS]
    following = ahead.lstrip(" \"'“‘«([¿¡")
    if not following and not complete and len(ahead) < _LOOKAHEAD_CHARS:
        return None
    if text[stop] == "." and stop + 1 == after:
        word = text[start:stop].rpartition(" ")[2].lstrip("(\"'“‘«[").lower()
        if word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i"):
            return False
        if word.isdigit() and stop - len(word) == start:  # "1. First": the number of a list item
            return False
        if word.isdigit() and len(word) <= 2:  # am 3. Oktober
            if len(following) < 3 and not complete and len(ahead) < _LOOKAHEAD_CHARS:
                return None
            if following[:3].lower() in _MONTHS:
                return False
        if word in _NUMBERED and following[:1].isdigit():
            return False
    if following[:1].islower():  # "Stop!" she said
        return text[stop] in "!?" and text[after - 1] in _STOPS
    return True
