"""What an avatar is like in the sessions of this server: its persona, with the options that the user set in front.

Place in the flow: card of an avatar, Config -> ``character_of`` -> voice, greeting and manner of a session.

Invariants:
    * an option that was set, on whatever way, wins over the persona; one at its default leaves it the word;
    * a language that was set makes nobody read a text of another language aloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engine.config import Config
from engine.conversation.styles import NATURAL, STYLES
from engine.errors import NotFound
from engine.persona import Persona, Style
from engine.registry import REALTIME
from engine.voice_choice import VoiceChoice, choose_voice


@dataclass(frozen=True, slots=True)
class Character:
    """What an avatar is like.

    Attributes:
        name: its own, or that of its portrait.
        language: it speaks and understands.
        system_prompt: what the language model is told about it, whatever the style.
        greeting: first words; empty for none.
        temperature: of the language model where a style leaves it open; the model's own when None.
        style: the one that nobody chose; always one of ``styles``.
        styles: all that can be chosen, by name, in the order in which they are shown.
        voice: what speaks.
        realtime_voice: voice of a service that hears, answers and speaks itself; empty for its own choice.
    """

    name: str
    language: str
    system_prompt: str
    greeting: str
    temperature: float | None
    style: str
    styles: Mapping[str, Style]
    voice: VoiceChoice
    realtime_voice: str = ""

    def known_style(self, name: str | None) -> str:
        """The name if there is such a style; the default for None or an empty name.

        Raises:
            NotFound: ``style_unknown``.
        """
        name = name or self.style
        if name not in self.styles:
            raise NotFound("style_unknown", f"There is no such style; known: {', '.join(self.styles)}.")
        return name

    def instructions(self, style: str) -> str:
        """The system prompt of a conversation in a style."""
        return f"{self.system_prompt}\n\n{self.styles[style].prompt}".strip()

    def temperature_in(self, style: str) -> float | None:
        """The temperature of a conversation in a style."""
        own = self.styles[style].temperature
        return self.temperature if own is None else own

    def listed_styles(self) -> list[dict[str, str]]:
        """The styles as the page gets them: ``{"name", "title"}``."""
        return [{"name": name, "title": style.title} for name, style in self.styles.items()]


def character_of(persona: Persona, title: str, config: Config) -> Character:
    """What becomes of a persona under the options.

    Args:
        persona: of the avatar's card.
        title: of the avatar, its name where the persona has none.
        config: options.
    """
    chosen = config.model_fields_set
    if "language" in chosen or not persona.language:
        persona = persona.in_language(config.language)
    prompt = config.system_prompt
    if "system_prompt" not in chosen:
        called = f"Your name is {persona.name}. " if persona.name else ""
        prompt = persona.system_prompt or called + prompt
    styles = {**STYLES, **persona.styles}
    # A style of the persona goes with its own description, not with one that somebody else wrote.
    style = persona.style if persona.style in styles and "system_prompt" not in chosen else NATURAL
    return Character(
        name=persona.name or title,
        language=persona.language,
        system_prompt=prompt,
        greeting=config.greeting if "greeting" in chosen else persona.greeting,
        temperature=persona.temperature,
        style=style,
        styles=MappingProxyType(styles),
        voice=choose_voice(persona, config),
        realtime_voice=config.llm_voice or persona.voices.get(REALTIME, ""),
    )
