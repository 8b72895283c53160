"""The text that is read aloud, put together from single characters, pauses and paragraphs.

Place in the flow: ``speakable.Unmarked`` finds out what a text means and writes what is left of it here.

Invariants:
    * it holds no control characters and no pictures, no runs of blanks, and no blank at either end of a paragraph;
    * what people read out (degrees, copyright, currencies, mathematics) is no picture.
"""

from __future__ import annotations

import unicodedata

PROTECTED_BLANK = "\u00a0"
"""A blank inside of code: no sentence ends at it."""

_PICTURES = (
    (0x2300, 0x23FF),  # technical: watches, keys
    (0x2500, 0x27BF),  # boxes, shapes, weather, signs, dingbats
    (0x2B00, 0x2BFF),  # stars, squares
    (0x1F000, 0x1FAFF),  # emoji
)
_PICTURE_MARKS = frozenset("\ufe0e\ufe0f\u20e3\u3030\u303d")  # make a picture of what is before, or always are one
_JOINERS = "\u200c\u200d"
_TIGHT = ".,;:!?…)]}»”。，！？、；："  # no blank and no second pause before these


class SpokenText:
    """Collects text; blanks and pauses are written only once something follows them in their paragraph.

    Attributes:
        last: the last character that is read; empty at the start of a paragraph.
    """

    def __init__(self) -> None:
        self.last = ""
        self._out: list[str] = []
        self._blank = self._pause = False
        self._picture = False  # since the last character

    @property
    def adjacent(self) -> bool:
        """Whether the next character follows the last one without a blank."""
        return bool(self.last) and not (self._blank or self._pause)

    @property
    def after_blank(self) -> bool:
        """Whether a blank lies between the last character of the paragraph and the next."""
        return bool(self.last) and self._blank

    def take(self) -> str:
        """What was written since the last call."""
        out, self._out = "".join(self._out), []
        return out

    def blank(self) -> None:
        """A blank comes next."""
        self._blank = True

    def pause(self) -> None:
        """A comma comes next, in the middle of a paragraph."""
        self._pause = self._blank = True

    def paragraph(self) -> None:
        """What comes next, if anything, is a new paragraph."""
        if self.last:
            self._out.append("\n\n")
            self.last = ""
        self._blank = self._pause = False

    def write(self, text: str) -> None:
        """Adds characters as they are; those that nobody can read are left out."""
        for char in text:
            self._write(char)

    def _write(self, char: str) -> None:
        category = unicodedata.category(char)
        if char in _JOINERS:  # between letters they change how those are read, between pictures they are part of one
            if self.adjacent and unicodedata.category(self.last)[0] in "LM" and not self._picture:
                self._out.append(char)
        elif char != PROTECTED_BLANK and (category in ("Zs", "Zl", "Zp") or char in "\t\n"):
            self._blank = True
        elif _is_picture(char):
            self._picture = True
        elif _is_arrow(char):
            self.pause()
        elif category not in ("Cc", "Cf", "Cs", "Co", "Cn"):
            self._out.append(self._gap_before(char) + char)
            self._blank = self._pause = self._picture = False
            self.last = char

    def _gap_before(self, char: str) -> str:
        if not self.last:
            return ""
        if self._pause and self.last not in _TIGHT:
            return "" if char in _TIGHT else ", "
        return " " if self._blank and not (self._picture and char in _TIGHT) else ""


def _is_picture(char: str) -> bool:
    return char in _PICTURE_MARKS or any(first <= ord(char) <= last for first, last in _PICTURES)


def _is_arrow(char: str) -> bool:
    return "\u2190" <= char <= "\u21ff" or "\u27f0" <= char <= "\u27ff"
