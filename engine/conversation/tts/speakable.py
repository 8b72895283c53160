"""What a chat model writes, as it would be read aloud: without markdown, emoji, addresses and code.

Place in the flow: text of a language model, in pieces of any size -> Unmarked -> SentenceStream -> Voice; whole texts
go through ``speakable``.

What is left is paragraphs: headings, list items and rows of a table are paragraphs of their own, cells are parted by
commas, an address is the word "link", and blocks of code, comments and a model's thoughts are gone.

Invariants:
    * the result is the same however the text was cut into pieces;
    * text is held back only while what it means is open: at most one construct (a link, a tag) or the first marks of
      a line, and never more than a link of the longest kind;
    * the result holds no control characters; its only line breaks are the empty lines between paragraphs.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable

from engine.conversation.tts import marks
from engine.conversation.tts.spoken_text import PROTECTED_BLANK, SpokenText

_Handler = Callable[["Unmarked", str, int, bool], int | None]


def speakable(text: str, link_word: str = "link") -> str:
    """A whole text as it would be read aloud.

    Args:
        text: any text, with or without markdown.
        link_word: what an address is called.
    """
    reader = Unmarked(link_word)
    return (reader.feed(text) + reader.flush()).replace(PROTECTED_BLANK, " ").strip()


class Unmarked:
    """Reads text piece by piece; each call returns what has become certain. After ``flush`` a new text can begin.

    Blanks inside of code come as ``PROTECTED_BLANK``.

    Args:
        link_word: what an address is called.
    """

    def __init__(self, link_word: str = "link") -> None:
        self._link_word = link_word
        self._restart()

    def _restart(self) -> None:
        self._held = ""  # not certain yet
        self._text = SpokenText()
        self._line_start = True
        self._line_is_paragraph = False  # headings and rows end with their line
        self._skipped_until: re.Pattern[str] | None = None
        self._address: str | None = None  # the end of the address that is being read: it may not belong to it
        self._address_brackets = 0

    def feed(self, delta: str) -> str:
        """Takes the next piece of the text."""
        return self._read(delta, final=False)

    def flush(self) -> str:
        """Takes the end of the text."""
        rest = self._read("", final=True)
        if self._address is not None:
            self._end_address()
            rest += self._text.take()
        self._restart()
        return rest

    def _read(self, delta: str, *, final: bool) -> str:
        self._held += delta
        if not final and self._held.endswith("\r"):
            raw, kept = self._held[:-1], "\r"  # half of a line break, perhaps
        else:
            raw, kept = self._held, ""
        raw = raw.replace("\r\n", "\n").replace("\r", "\n")
        at = self._consume(raw, final)
        self._held = raw[at:] + kept
        return self._text.take()

    def _consume(self, raw: str, final: bool) -> int:
        at = 0
        while at < len(raw):
            step = self._step(raw, at, final)
            if step is None:
                break
            at = step
        return at

    def _step(self, raw: str, at: int, final: bool) -> int | None:
        """Reads one construct at ``at``; the index behind it, or None while what it is depends on what comes."""
        if self._skipped_until is not None:
            return self._skip(raw, at, final)
        if self._address is not None:
            return self._read_address(raw, at)
        char = raw[at]
        if char == "\n":
            self._end_line()
            return at + 1
        if marks.BLANKS.match(char):
            self._text.blank()
            return at + 1
        if self._line_start:
            return self._head(raw, at, final)
        if char in "hHwW" and not (self._text.adjacent and self._text.last.isascii() and self._text.last.isalnum()):
            if address := marks.ADDRESS.match(raw, at):
                self._address, self._address_brackets = "", 0
                return address.end()
            if not final and any(full.startswith(raw[at : at + 8].lower()) for full in marks.ADDRESS_STARTS):
                return None
        handler = _HANDLERS.get(char)
        if handler is not None:
            return handler(self, raw, at, final)
        self._text.write(char)
        return at + 1

    # Lines --------------------------------------------------------------------------------------------------------

    def _end_line(self) -> None:
        if self._line_start or self._line_is_paragraph:
            self._text.paragraph()
        self._text.blank()
        self._line_start, self._line_is_paragraph = True, False

    def _head(self, raw: str, at: int, final: bool) -> int | None:
        """Reads the marks at the start of a line."""
        newline = raw.find("\n", at, at + marks.MAX_HEAD_CHARS)
        line = raw[at : newline + 1] if newline >= 0 else raw[at : at + marks.MAX_HEAD_CHARS]
        if not final and newline < 0 and len(line) < marks.MAX_HEAD_CHARS:
            if marks.HEAD_UNDECIDED.fullmatch(line) or line.startswith("~~~"):
                return None
        if rule := marks.RULE.match(line):
            self._line_is_paragraph = True
            self._line_start = False
            return at + rule.end()
        if fence := marks.TILDE_FENCE.match(line):
            self._text.paragraph()
            self._line_start = False
            self._skipped_until = re.compile(fence[1] + r"~*(?=[^~])")
            return at + fence.end()
        if line[0] == ">":
            return at + 1
        self._line_start = False
        if heading := marks.HEADING.match(line):
            self._text.paragraph()
            self._line_is_paragraph = True
            return at + heading.end()
        if bullet := marks.BULLET.match(line):
            self._text.paragraph()
            return at + bullet.end()
        if marks.NUMBER.match(line):
            self._text.paragraph()
        elif line[0] == "|":
            self._text.paragraph()
            self._line_is_paragraph = True
        return at

    # What is not read ---------------------------------------------------------------------------------------------

    def _skip(self, raw: str, at: int, final: bool) -> int | None:
        assert self._skipped_until is not None
        if end := self._skipped_until.search(raw, at):
            self._skipped_until = None
            return end.end()
        # What ends it is shorter than this, and may have begun.
        kept = len(raw) if final else max(at, len(raw) - 24)
        return kept if kept > at else None

    def _read_address(self, raw: str, at: int) -> int:
        run = marks.ADDRESS_RUN.match(raw, at)
        if run is None:
            self._end_address()
            return at + (raw[at] == ">")
        whole = f"{self._address}{run[0]}"
        self._address_brackets += run[0].count("(")
        self._address = whole[len(whole.rstrip(marks.ADDRESS_TAIL)) :][-16:]
        return run.end()

    def _end_address(self) -> None:
        tail, self._address = self._address or "", None
        self._text.write(self._link_word)
        while self._address_brackets and tail.startswith(")"):  # .../Mouth_(anatomy)
            tail, self._address_brackets = tail[1:], self._address_brackets - 1
        self._consume(tail, True)

    # Marks in a line ----------------------------------------------------------------------------------------------

    def _backticks(self, raw: str, at: int, final: bool) -> int | None:
        inside = marks.run_end(raw, at)
        count = inside - at
        if inside == len(raw) and not final:
            return None
        if count >= 3:
            self._text.paragraph()
            self._skipped_until = re.compile(f"`{{{min(count, 16)},}}(?=[^`])")
            return inside
        line = raw[inside : inside + marks.MAX_CODE_CHARS].partition("\n")[0]
        closing = re.search(f"(?<!`)`{{{count}}}(?!`)", line)
        cut_off = not final and len(raw) <= inside + len(line) and len(line) < marks.MAX_CODE_CHARS
        if cut_off and (closing is None or closing.end() == len(line)):
            return None
        if closing is None:
            return inside
        self._text.write(re.sub(r"[\s_]", PROTECTED_BLANK, line[: closing.start()].strip()))
        return inside + closing.end()

    def _star(self, raw: str, at: int, final: bool) -> int | None:
        end = marks.run_end(raw, at)
        if not final and len(raw) < end + 2:
            return None
        following = raw[end : end + 2]
        if end == at + 1 and (
            (self._text.last.isdigit() and following.strip()[:1].isdigit())
            or (self._text.after_blank and following[:1] == " ")
        ):
            self._text.write("×")
        return end

    def _underscore(self, raw: str, at: int, final: bool) -> int | None:
        end = marks.run_end(raw, at)
        if end == len(raw) and not final:
            return None
        if self._text.adjacent and self._text.last.isalnum() and raw[end : end + 1].isalnum():
            self._text.blank()  # snake_case
        return end

    def _tilde(self, raw: str, at: int, final: bool) -> int | None:
        if at + 1 == len(raw) and not final:
            return None
        if raw[at + 1 : at + 2] == "~":
            return at + 2
        self._text.write("~")
        return at + 1

    def _pipe(self, raw: str, at: int, final: bool) -> int | None:
        self._text.pause()
        self._line_is_paragraph = True
        return at + 1

    def _bullet_inside(self, raw: str, at: int, final: bool) -> int | None:
        self._text.paragraph()
        return at + 1

    def _bang(self, raw: str, at: int, final: bool) -> int | None:
        if at + 1 == len(raw) and not final:
            return None
        if raw[at + 1 : at + 2] == "[":
            end = self._linked(raw, at + 1, final)
            if end != at + 1:
                return end
        self._text.write("!")
        return at + 1

    def _bracket(self, raw: str, at: int, final: bool) -> int | None:
        end = self._linked(raw, at, final)
        if end != at:
            return end
        close = raw.find("]", at + 1, at + 12)
        if close > 0 and marks.CITATION.fullmatch(raw[at + 1 : close]):
            return close + 1
        if close < 0 and not final and len(raw) < at + 12:
            return None
        self._text.write("[")
        return at + 1

    def _linked(self, raw: str, at: int, final: bool) -> int | None:
        """Reads ``[label](address)`` or ``[label][name]`` at ``at``; returns ``at`` when it is neither."""
        close = marks.closing(raw, at, "[]", marks.MAX_LABEL_CHARS)
        if close is None or (close > 0 and close + 1 == len(raw)):
            if not final:
                return None
        if close is None or close < 0 or raw[close + 1 : close + 2] not in ("(", "["):
            return at
        target = raw[close + 1]
        end = marks.closing(raw, close + 1, "()" if target == "(" else "[]", marks.MAX_TARGET_CHARS)
        if end is None and not final:
            return None
        label = raw[at + 1 : close]
        if end is None or end < 0 or (target == "[" and marks.CITATION.fullmatch(label)):
            return at
        self._consume(label, True)
        if self._address is not None:
            self._end_address()
        return end + 1

    def _source_mark(self, raw: str, at: int, final: bool) -> int | None:
        close = raw.find("】", at + 1, at + 60)
        if close < 0 and not final and len(raw) < at + 60:
            return None
        if close > 0 and re.match(r"\d", raw[at + 1 : close]):
            return close + 1
        self._text.write("【")
        return at + 1

    def _angle(self, raw: str, at: int, final: bool) -> int | None:
        start = raw[at + 1 : at + 9].lower()
        if start.startswith(marks.ADDRESS_STARTS):
            return at + 1
        if raw.startswith("<!--", at):
            self._skipped_until = re.compile("-->")
            return at + 4
        name_match = marks.TAG_NAME.match(raw, at)
        name = (name_match[1] or "").lower() if name_match else ""
        open_end = name_match is not None and name_match.end() == len(raw)
        if not final and (
            open_end
            or len(raw) == at + 1
            or any(full.startswith(raw[at + 1 :].lower()) for full in (*marks.ADDRESS_STARTS, "!--"))
        ):
            if len(raw) - at < 24:
                return None
        if name not in marks.BLOCKS | marks.INLINE | marks.UNREAD:
            self._text.write("<")
            return at + 1
        tag = marks.TAG.match(raw, at, at + marks.MAX_TAG_CHARS)
        if tag is None:
            if not final and len(raw) < at + marks.MAX_TAG_CHARS and not re.search("[<>]", raw[at + 1 :]):
                return None
            self._text.write("<")
            return at + 1
        if name in marks.UNREAD:
            if raw[at + 1] != "/" and not tag[0].endswith("/>"):
                self._skipped_until = re.compile(rf"</{name}\s*>", re.IGNORECASE)
            self._text.paragraph()
        elif name in marks.BLOCKS:
            self._text.paragraph()
        elif name in ("td", "th"):
            self._text.pause()
        return tag.end()

    def _entity(self, raw: str, at: int, final: bool) -> int | None:
        if entity := marks.ENTITY.match(raw, at):
            self._text.write(html.unescape(entity[0]))
            return entity.end()
        start = marks.ENTITY_START.match(raw, at)
        assert start is not None
        if not final and start.end() == len(raw) and len(raw) - at < marks.MAX_ENTITY_CHARS:
            return None
        self._text.write("&")
        return at + 1

    def _backslash(self, raw: str, at: int, final: bool) -> int | None:
        if at + 1 == len(raw) and not final:
            return None
        following = raw[at + 1 : at + 2]
        if following in tuple("()[]"):  # borders of a formula
            return at + 2
        if following and following in string.punctuation:
            self._text.write(following)
            return at + 2
        if following != "\n":
            self._text.write("\\")
        return at + 1

    def _dollar(self, raw: str, at: int, final: bool) -> int | None:
        if at + 1 == len(raw) and not final:
            return None
        if raw[at + 1 : at + 2] == "$":
            return at + 2
        self._text.write("$")
        return at + 1

    def _stroke(self, raw: str, at: int, final: bool) -> int | None:
        """``->`` and ``=>`` are arrows."""
        if at + 1 == len(raw) and not final:
            return None
        if raw[at + 1 : at + 2] == ">":
            self._text.pause()
            return at + 2
        self._text.write(raw[at])
        return at + 1


_HANDLERS: dict[str, _Handler] = {
    "`": Unmarked._backticks,
    "*": Unmarked._star,
    "_": Unmarked._underscore,
    "~": Unmarked._tilde,
    "|": Unmarked._pipe,
    "•": Unmarked._bullet_inside,
    "!": Unmarked._bang,
    "[": Unmarked._bracket,
    "【": Unmarked._source_mark,
    "<": Unmarked._angle,
    "&": Unmarked._entity,
    "\\": Unmarked._backslash,
    "$": Unmarked._dollar,
    "-": Unmarked._stroke,
    "=": Unmarked._stroke,
}
