"""How one session is answered: in which style, by which language model; both may change while it lasts.

Place in the flow: messages of a dialogue -> Manner -> the language model of this moment; commands of a browser change
what that is.

Invariant: what changes holds from the next answer on; the one that is being made is finished as it was begun.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from engine.conversation.history import History
from engine.conversation.llm.base import Message
from server.character import Character
from server.language_models import LanguageModels


class Manner:
    """The language model of one session's dialogue; it owns none of those behind it.

    Attributes:
        character: of the avatar.
        style: name of the style.
        language_model: id of the model.
    """

    def __init__(
        self, character: Character, history: History, models: LanguageModels, style: str = "", language_model: str = ""
    ) -> None:
        """
        Args:
            character: of the avatar.
            history: of the dialogue; its system prompt follows the style.
            models: what may be chosen.
            style, language_model: as ``set_style`` and ``set_language_model``; empty for the usual ones.

        Raises:
            NotFound: ``style_unknown``, ``language_model_unknown``.
        """
        self.character = character
        self._history = history
        self._models = models
        self.set_style(style)
        self.set_language_model(language_model)

    def set_style(self, name: str) -> None:
        """Answers in another style. Raises NotFound ``style_unknown``."""
        self.style = self.character.known_style(name)
        self._history.system_prompt = self.character.instructions(self.style)

    def set_language_model(self, model_id: str) -> None:
        """Has another language model answer. Raises NotFound ``language_model_unknown``."""
        self.language_model = self._models.known(model_id)

    def reply(self, messages: Sequence[Message], *, temperature: float | None = None) -> AsyncGenerator[str]:
        """Streams the reply; see ``LanguageModel.reply``. A temperature of None is that of the style."""
        if temperature is None:
            temperature = self.character.temperature_in(self.style)
        model = self._models.get(self.language_model, self.character)
        return model.reply(messages, temperature=temperature)

    async def aclose(self) -> None:
        """Nothing is held: the models belong to the server."""
