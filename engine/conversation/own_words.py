"""Tells whether words that were recognised are those the avatar has just said, come back through the microphone.

Place in the flow: transcripts, and what was heard of the answer -> ``are_own_words`` -> dialogue.

Invariants:
    * words are compared in their order, as sounds of the same few seconds; single words are nobody's;
    * recognisers mishear an echo, so one word in three may be another.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

RECENT_WORDS = 60
"""Words of the answer that may still come back: what a turn over it can have picked up, about 20 s."""
_LEAST_WORDS = 2
_LEAST_SHARE = 0.66
_SPREAD = 1.5
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’][^\W_{_UNSPACED}]+)*")


def are_own_words(text: str, heard: str) -> bool:
    """Whether a text is a part of what was just heard of the avatar.

    Args:
        text: recognised words.
        heard: what was heard of the answer so far, see ``Reply.heard_text``.
    """
    words, said = _words(text), _words(heard)[-RECENT_WORDS:]
    if len(words) < _LEAST_WORDS or not said:
        return False
    blocks = SequenceMatcher(None, words, said, autojunk=False).get_matching_blocks()
    matches = [block for block in blocks if block.size]
    same = sum(block.size for block in matches)
    if not matches or (same < len(words) and len(words) == _LEAST_WORDS):
        return False
    # Common words are found anywhere; those of an echo lie as close together as they were said.
    spread = matches[-1].b + matches[-1].size - matches[0].b
    return same >= _LEAST_SHARE * len(words) and spread <= _SPREAD * len(words)


def _words(text: str) -> list[str]:
    return [word.casefold().replace("’", "'") for word in _WORD.findall(text)]
