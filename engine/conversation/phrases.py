"""What the avatar says of itself in a conversation that goes wrong, in the language people speak with it.

Place in the flow: language of the character -> ``phrases_in`` -> dialogue.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrases:
    """Sentences of one language.

    Attributes:
        apology: when a service failed.
        not_understood: when somebody spoke, and no words could be made of it.
    """

    apology: str
    not_understood: str


ENGLISH = Phrases(
    "Sorry, something went wrong on my side. Please try again in a moment.",
    "Sorry, I did not get that. Could you say it again?",
)

_PHRASES = {
    "en": ENGLISH,
    "de": Phrases(
        "Entschuldigung, bei mir ist etwas schiefgegangen. Bitte versuchen Sie es gleich noch einmal.",
        "Entschuldigung, das habe ich nicht verstanden. Können Sie es noch einmal sagen?",
    ),
    "fr": Phrases(
        "Pardon, un problème est survenu de mon côté. Réessayez dans un instant.",
        "Pardon, je n'ai pas compris. Pouvez-vous répéter ?",
    ),
    "es": Phrases(
        "Perdón, algo ha fallado por mi parte. Inténtelo de nuevo en un momento.",
        "Perdón, no lo he entendido. ¿Puede repetirlo?",
    ),
    "zh": Phrases("抱歉，我这边出了点问题，请稍后再试。", "抱歉，我没听清，请再说一遍好吗？"),
}


def phrases_in(language: str) -> Phrases:
    """The phrases of a language such as ``de`` or ``zh-CN``; English where there are none of its own."""
    return _PHRASES.get(language.lower().partition("-")[0], ENGLISH)
