"""Who an avatar is: its name, language, voice, manner and first words, as the table ``[persona]`` of its card has them.

Place in the flow: ``avatar.toml`` -> ``read_persona`` -> ``Persona`` -> server, which lets options of the user win.

Invariants:
    * a persona that exists is valid: every text is bounded, every number in range, every name well-formed;
    * a table with a member that nobody knows is refused, so that a slip of the pen is never silently without effect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

RATE_WPM = (80, 450)
MAX_PROMPT_CHARS = 20_000
MAX_GREETING_CHARS = 1000
MAX_NAME_CHARS = 100
MAX_STYLES = 16

_KEY = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_MULTILINGUAL = ("openai", "realtime")
"""Providers whose voices speak every language."""


@dataclass(frozen=True, slots=True)
class Style:
    """A way of talking.

    Attributes:
        title: for people.
        prompt: what the language model is told beside who it is; may be empty.
        temperature: of the language model, 0 to 2; None leaves it to the persona.
    """

    title: str
    prompt: str = ""
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Persona:
    """Who an avatar is. Whatever is empty or None is left to the options.

    Attributes:
        name: what it calls itself.
        language: that it speaks, such as ``en`` or ``de-AT``.
        system_prompt: what the language model is told about itself.
        greeting: its first words.
        temperature: of the language model, 0 to 2.
        style: how it talks when nobody chooses: the name of one of its own styles or of a built-in one.
        rate_wpm: words a minute, 80 to 450.
        voices: its voice, by provider (``espeak``, ``openai`` …).
        styles: styles of its own, by name; one called as a built-in one takes its place.
    """

    name: str = ""
    language: str = ""
    system_prompt: str = ""
    greeting: str = ""
    temperature: float | None = None
    style: str = ""
    rate_wpm: int | None = None
    voices: Mapping[str, str] = field(default_factory=dict)
    styles: Mapping[str, Style] = field(default_factory=dict)

    def in_language(self, language: str) -> Persona:
        """The same person speaking another language: without its first words and the voices that cannot."""
        if not self.language or _base(language) == _base(self.language):
            return replace(self, language=language)
        voices = {provider: name for provider, name in self.voices.items() if provider in _MULTILINGUAL}
        variant = self.voices.get("espeak", "").partition("+")[2]
        if variant:
            # A language and who speaks it are independent there, and every language has a form without a country.
            voices["espeak"] = f"{_base(language)}+{variant}"
        return replace(self, language=language, greeting="", voices=voices)


def read_persona(table: object) -> Persona:
    """Checks a table ``[persona]``.

    Raises:
        ValueError: with what is wrong and what is allowed, as the end of a sentence.
    """
    reader = _Reader(table, "[persona]")
    voices = _Reader(reader.take("voices", {}), "[persona.voices]")
    styles = _Reader(reader.take("styles", {}), "[persona.styles]")
    if len(styles.table) > MAX_STYLES:
        raise ValueError(f"[persona.styles] has {len(styles.table)} styles; {MAX_STYLES} are allowed")
    persona = Persona(
        name=reader.text("name", MAX_NAME_CHARS),
        language=reader.text("language", MAX_NAME_CHARS),
        system_prompt=reader.text("system_prompt", MAX_PROMPT_CHARS),
        greeting=reader.text("greeting", MAX_GREETING_CHARS),
        temperature=reader.temperature(),
        style=reader.text("style", MAX_NAME_CHARS),
        rate_wpm=reader.rate(),
        voices=MappingProxyType({key: voices.text(key, MAX_NAME_CHARS) for key in voices.keys()}),
        styles=MappingProxyType({key: _style(styles.take(key, {}), key) for key in styles.keys()}),
    )
    reader.end()
    if persona.language and not _LANGUAGE.fullmatch(persona.language):
        raise ValueError("'language' in [persona] must be a code such as en or de-AT")
    return persona


def persona_lines(persona: Persona) -> Iterator[str]:
    """The lines of a table ``[persona]`` that reads as this persona; none for one that says nothing."""
    if persona == Persona():
        return
    yield "[persona]"
    for key in ("name", "language", "system_prompt", "greeting", "style"):
        if value := getattr(persona, key):
            yield f"{key} = {toml_text(value)}"
    if persona.temperature is not None:
        yield f"temperature = {persona.temperature}"
    if persona.rate_wpm is not None:
        yield f"rate = {persona.rate_wpm}"
    if persona.voices:
        yield from ("", "[persona.voices]")
        yield from (f"{key} = {toml_text(name)}" for key, name in persona.voices.items())
    for key, style in persona.styles.items():
        yield from ("", f"[persona.styles.{key}]", f"title = {toml_text(style.title)}")
        if style.prompt:
            yield f"prompt = {toml_text(style.prompt)}"
        if style.temperature is not None:
            yield f"temperature = {style.temperature}"


def toml_text(text: str) -> str:
    """A text as TOML writes it."""
    # A JSON string is a TOML basic string, save for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _base(language: str) -> str:
    return language.lower().partition("-")[0]


def _style(table: object, key: str) -> Style:
    reader = _Reader(table, f"[persona.styles.{key}]")
    style = Style(reader.text("title", MAX_NAME_CHARS), reader.text("prompt", MAX_PROMPT_CHARS), reader.temperature())
    reader.end()
    if not style.title:
        raise ValueError(f"{reader.where} needs a 'title'")
    return style


class _Reader:
    """Takes the members of a table one by one; what is left over at the end is a mistake."""

    def __init__(self, table: object, where: str) -> None:
        if not isinstance(table, dict):
            raise ValueError(f"{where} must be a table")
        self.table, self.where = dict(table), where

    def take(self, key: str, default: object) -> object:
        return self.table.pop(key, default)

    def keys(self) -> list[str]:
        """All names, which somebody else chose."""
        for key in self.table:
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key!r} in {self.where} must be at most 32 of a-z, 0-9, '-' and '_', a letter first")
        return list(self.table)

    def text(self, key: str, most_chars: int) -> str:
        value = self.take(key, "")
        if not isinstance(value, str) or len(value) > most_chars:
            raise ValueError(f"{key!r} in {self.where} must be a text of at most {most_chars} characters")
        return value.strip()

    def temperature(self) -> float | None:
        value = self.take("temperature", None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
            raise ValueError(f"'temperature' in {self.where} must be a number from 0 to 2")
        return float(value)

    def rate(self) -> int | None:
        value, (low, high) = self.take("rate", None), RATE_WPM
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"'rate' in {self.where} must be words a minute, {low} to {high}")
        return value

    def end(self) -> None:
        if self.table:
            raise ValueError(f"{self.where} has {', '.join(map(repr, self.table))}, which means nothing there")
