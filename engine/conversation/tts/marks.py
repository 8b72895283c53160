"""What the marks of markdown and HTML look like.

Place in the flow: tables and patterns of ``speakable.Unmarked``.

Invariant: each construct has a longest length, behind which it is taken for plain text, so that reading never waits
for ever.
"""

from __future__ import annotations

import re

MAX_TARGET_CHARS = 1700  # of a link; longer ones are read as they are written
MAX_LABEL_CHARS, MAX_TAG_CHARS, MAX_CODE_CHARS, MAX_HEAD_CHARS, MAX_ENTITY_CHARS = 300, 300, 300, 200, 33

HEAD_UNDECIDED = re.compile(r"[#>\-*+•–|:_=~ \t]*|\d{1,3}[.)]?")
RULE = re.compile(r"(?:(?:[-*_=:|][ \t]*){3,}|--|==)(?=\n|\Z)")  # thematic breaks, underlines, the rows below a header
HEADING = re.compile(r"#{1,6}[ \t]")
BULLET = re.compile(r"[-*+•–‣◦●○▪][ \t]+")
NUMBER = re.compile(r"\d{1,3}[.)][ \t]")
TILDE_FENCE = re.compile(r"(~{3,})[^~\n]*(?=\n)")
ADDRESS = re.compile(r"(?:https?://|www\.)", re.IGNORECASE)
ADDRESS_STARTS = ("http://", "https://", "www.")
ADDRESS_RUN = re.compile(r"[!#-;=?-_a-z~|]+")  # printable ASCII without blanks and " < > ` { }
ADDRESS_TAIL = ".,;:!?'*_~)]|"  # characters that belong to an address only when more of it follows
TAG_NAME = re.compile(r"</?([A-Za-z][A-Za-z0-9]*)?")
TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]*(?:[\s/][^<>]*)?>")
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
ENTITY_START = re.compile(r"&#?[A-Za-z0-9]*")
CITATION = re.compile(r"\^?[^\s\]]{0,3}\d+|\^[^\s\]]+|[ xX]?")  # [1], [^note], [ ] and [x] of a list of tasks
RUN = re.compile(r"(.)\1{0,63}", re.DOTALL)
BLANKS = re.compile(r"[^\S\n]")

UNREAD = frozenset("think thinking thought reasoning script style svg".split())
"""Elements whose content is not read either."""
BLOCKS = frozenset(
    "address article blockquote br dd div dl dt footer h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section table "
    "tr ul summary details".split()
)
INLINE = frozenset(
    "a abbr b big bdi bdo body button caption center cite code col del dfn em font form head html i iframe img input "
    "ins kbd label mark q s samp small source span strike strong sub sup tbody td tfoot th thead time title tt u var "
    "video wbr audio picture".split()
)


def run_end(raw: str, at: int) -> int:
    """Where the run of one and the same character that begins at ``at`` ends, at most 64 behind it."""
    run = RUN.match(raw, at)
    assert run is not None
    return run.end()


def closing(raw: str, at: int, pair: str, limit: int) -> int | None:
    """The index of the bracket that closes the one at ``at``; -1: there is none in its line; None: not yet."""
    depth = 0
    for index in range(at, min(len(raw), at + limit)):
        char = raw[index]
        if char == "\n":
            return -1
        depth += (char == pair[0]) - (char == pair[1])
        if depth == 0:
            return index
    return None if len(raw) < at + limit else -1
