"""Which voice of the configured provider an avatar speaks with.

Place in the flow: persona of an avatar, Config -> ``choose_voice`` -> name and pace for ``registry.create_voice``.

Invariant: an option that was set wins over the persona, and one at its default leaves it the word.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import Config
from engine.persona import Persona


@dataclass(frozen=True, slots=True)
class VoiceChoice:
    """A voice of a provider: its name, empty for the provider's own choice, and its pace, words a minute."""

    name: str
    rate_wpm: int


def choose_voice(persona: Persona, config: Config) -> VoiceChoice:
    """The voice of an avatar under the options."""
    chosen = config.model_fields_set
    if "language" in chosen:
        persona = persona.in_language(config.language)
    name = config.voice_name if "voice_name" in chosen else persona.voices.get(config.voice, config.voice_name)
    rate_wpm = None if "voice_rate" in chosen else persona.rate_wpm
    return VoiceChoice(name, config.voice_rate if rate_wpm is None else rate_wpm)
