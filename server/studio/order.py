"""What a person asks the studio to make, checked: the name, the title, the consent, the sentence of the preview.

Place in the flow: fields of a form -> ``Order`` -> job -> worker -> card of the avatar.

Invariants:
    * an order shows nobody real, or names who agreed, when, and to what;
    * every text is bounded, one line, and printable.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from engine.avatar.card import NAME_PATTERN
from engine.conversation.tts.base import is_speakable
from engine.errors import InvalidInput

FIELDS = ("title", "name", "synthetic", "consent_who", "consent_when", "consent_scope", "sentence")
MAX_FIELD_BYTES = 2000

_MAX_TITLE = 60
_MAX_CONSENT = 300
_MAX_SENTENCE = 200
_SENTENCE = "Hello! This is how I look when I speak. Most people prefer to meet a friendly face."
_WORDS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
_MAX_NAME = 40
"""Of a name made from a title; a number may follow."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to make.

    Attributes:
        name: of the avatar, free when the order was taken.
        title: for people.
        synthetic: nobody real is shown.
        consent: ``who, when: scope``; empty when synthetic.
        sentence: what the avatar says in its preview.
    """

    name: str
    title: str
    synthetic: bool
    consent: str
    sentence: str


def read_order(fields: Mapping[str, str], is_free: Callable[[str], bool]) -> Order:
    """Checks the fields of a form.

    Args:
        fields: by name, those of ``FIELDS`` that were sent.
        is_free: whether a well-formed name can be had.

    Raises:
        InvalidInput: ``title_missing``, ``text_invalid``, ``avatar_name_invalid``, ``avatar_exists``,
            ``consent_missing``, ``consent_incomplete``, ``consent_invalid``, ``sentence_invalid``.
    """
    title = _line(fields, "title", _MAX_TITLE)
    name = _line(fields, "name", 64)
    if not title and not name:
        raise InvalidInput("title_missing", "Give the avatar a name, as people will see it.")
    synthetic, consent = _consent(fields)
    sentence = _line(fields, "sentence", _MAX_SENTENCE) or _SENTENCE
    if not is_speakable(sentence):
        raise InvalidInput("sentence_invalid", "There is nothing to say in the sentence of the preview; use words.")
    if name and not NAME_PATTERN.fullmatch(name):
        raise InvalidInput(
            "avatar_name_invalid",
            "The name cannot be used: a-z, 0-9, '-' and '_', a letter or digit first, at most 64 characters.",
        )
    if name and not is_free(name):
        raise InvalidInput("avatar_exists", "There is an avatar of this name already; choose another name.")
    name = name or _name_of(title, is_free)
    return Order(name, title or name.replace("-", " ").replace("_", " ").title(), synthetic, consent, sentence)


def _line(fields: Mapping[str, str], name: str, limit: int) -> str:
    text = " ".join(fields.get(name, "").split())
    if len(text) > limit:
        raise InvalidInput("text_invalid", f"{name} may have {limit} characters at most.")
    # Letters of any script; no controls, no marks that turn the direction of the text around.
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in text):
        raise InvalidInput("text_invalid", f"{name} has characters that cannot be shown.")
    return text


def _consent(fields: Mapping[str, str]) -> tuple[bool, str]:
    synthetic = _WORDS.get(_line(fields, "synthetic", 10).lower() or "no")
    if synthetic is None:
        raise InvalidInput("consent_invalid", "synthetic is yes or no.")
    who, when, scope = (_line(fields, f"consent_{part}", _MAX_CONSENT) for part in ("who", "when", "scope"))
    given = [bool(part) for part in (who, when, scope)]
    if synthetic:
        if any(given):
            raise InvalidInput("consent_invalid", "Either nobody real is shown, or somebody agreed: not both.")
        return True, ""
    if not any(given):
        raise InvalidInput(
            "consent_missing", "An avatar of a real person needs that person's consent: who agreed, when, and to what."
        )
    if not all(given):
        raise InvalidInput("consent_incomplete", "A consent says who agreed, when (a date), and to what.")
    try:
        day = date.fromisoformat(when)
    except ValueError:
        raise InvalidInput("consent_invalid", "The day of the consent is written like 2026-11-21.") from None
    # Somewhere it is tomorrow already.
    if day > (datetime.now(UTC) + timedelta(days=1)).date():
        raise InvalidInput("consent_invalid", "The day of the consent has not come yet.")
    return False, f"{who}, {day.isoformat()}: {scope}"


def _name_of(title: str, is_free: Callable[[str], bool]) -> str:
    """A free name made of a title's letters."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_MAX_NAME].strip("-") or "avatar"
    number = 1
    while not is_free(name := base if number == 1 else f"{base}-{number}"):
        number += 1
    return name
