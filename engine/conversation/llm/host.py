"""The scripted host: answers offline when no language model is configured, and says how to add one.

Place in the flow: messages -> language and topic of the last user turn -> a line of ``host_lines``, word by word.

Invariants:
    * the same conversation gets the same reply; the same question later in it gets the next variant;
    * it never pretends to understand: what is not in its script is repeated, and it says that no language model is
      configured.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections.abc import AsyncGenerator, Sequence

from engine.conversation.llm.base import Message
from engine.conversation.llm.host_lines import LANGUAGES

DEFAULT_NAME = "Visavis"
MAX_REPEATED_CHARS = 160

_PIECE = re.compile(r"\s*[^\s。！？]+[。！？]?|[。！？]")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_LETTERS = re.compile(r"[^\w]+|_")


class ScriptedHost:
    """Greets, says what it is, answers a few questions about itself, repeats the rest."""

    def __init__(self, language: str = "", name: str = "") -> None:
        """Makes a host.

        Args:
            language: of the greeting, and of replies to what belongs to no known language, such as "de" or "de-AT";
                English where it is empty or not spoken.
            name: what it calls itself; that of the project where it is empty.
        """
        self._name = name or DEFAULT_NAME
        base = re.split(r"[-_+]", language.lower())[0]
        self._language = {"cmn": "zh"}.get(base, base) if base in (*LANGUAGES, "cmn") else "en"

    async def reply(self, messages: Sequence[Message], *, temperature: float | None = None) -> AsyncGenerator[str]:
        """Streams the reply; see ``LanguageModel.reply``. ``temperature`` changes nothing."""
        for piece in _PIECE.findall(self._answer(messages)):
            yield piece
            await asyncio.sleep(0)  # lets an interruption in

    async def aclose(self) -> None:
        """Nothing is held."""

    def _answer(self, messages: Sequence[Message]) -> str:
        said = [message.text for message in messages if message.role == "user"]
        if not said:
            return self._line(self._language, "greeting", 0)
        heard = " ".join(said[-1].split())
        code, topic = matched = self._match(heard)
        if topic == "again":
            earlier = [message.text for message in messages if message.role == "assistant"]
            if earlier:
                return earlier[-1]
        before = sum(self._match(text) == matched for text in said[:-1])
        return self._line(code, topic, before, heard)

    def _line(self, code: str, topic: str, number: int, heard: str = "") -> str:
        lines, how = LANGUAGES[code].lines[topic], LANGUAGES[code].lines["how"][0]
        # Replaced in this order, so that braces in what was heard stay what they are.
        line = lines[number % len(lines)].replace("{how}", how).replace("{name}", self._name)
        return line.replace("{heard}", _shortened(heard))

    def _match(self, text: str) -> tuple[str, str]:
        """Language and topic of what was said."""
        code, words = _language_of(text, self._language), _normalised(text)
        if not words:
            return code, "empty"
        patterns = LANGUAGES[code].patterns.items()
        return code, next((topic for topic, pattern in patterns if re.search(pattern, words)), "unknown")


def _shortened(heard: str) -> str:
    text = heard.strip(" .!?¡¿…。！？“”\"«»„")
    if len(text) <= MAX_REPEATED_CHARS:
        return text
    head = text[:MAX_REPEATED_CHARS]
    return (head.rpartition(" ")[0] or head) + "…"


def _normalised(text: str) -> str:
    """Lower-case words with single blanks and no punctuation."""
    return _LETTERS.sub(" ", unicodedata.normalize("NFC", text).lower()).strip()


def _language_of(text: str, default: str) -> str:
    """The language with the most telling words in a text; the default where none stands out."""
    if _HAN.search(text) and not _KANA.search(text):
        return "zh"
    words = _normalised(text).split()
    hits = {code: sum(word in language.words for word in words) for code, language in LANGUAGES.items()}
    best = max(hits, key=lambda code: (hits[code], code == default))
    return best if hits[best] > hits[default] else default
