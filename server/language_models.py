"""The language models of a server: the one that is configured, and those that were found on this machine.

Place in the flow: Config, ``discover`` -> LanguageModels -> the page's choice; id of a choice -> LanguageModel.

Invariants:
    * the configured one answers unless a session asks for another: what was found is offered, never used by itself;
    * what people see of a model is its name and that of its server, never an address;
    * a model is made when it is first asked for, shared by all sessions, and closed with the server.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from engine.config import Config
from engine.conversation.discover import Found
from engine.conversation.llm.base import LanguageModel
from engine.errors import NotFound
from engine.registry import REALTIME, create_language_model
from server.character import Character

MAX_OFFERED = 24

_SCRIPT_TITLE = "Built-in script"

_log = logging.getLogger(__name__)


class LanguageModels:
    """All language models that sessions may be answered by."""

    def __init__(self, config: Config) -> None:
        """Makes the configured one.

        Raises:
            NotFound: no language model of that name.
            ConfigInvalid: its service's address or key cannot be used.
        """
        self._config = config
        self._models: dict[tuple[str, str, str], LanguageModel] = {}  # by id, and language and name of a script
        # Ids of those that are found have a stroke in them.
        self.configured = config.llm
        """Id of the one that answers unless a session asks for another."""
        title = _SCRIPT_TITLE if config.llm == "host" else config.llm_model or "Language model"
        self._titles = {self.configured: title}
        self._found: dict[str, tuple[str, str]] = {}  # id -> base URL, name of the model
        # Who speaks itself answers through no model of text; see ``Host``.
        if config.llm != REALTIME:
            self.get(self.configured)

    def offer(self, found: Sequence[Found]) -> None:
        """Lets sessions choose what was found on this machine; not where one service hears, answers and speaks."""
        if self._config.llm == REALTIME:
            return
        for server in found:
            for name in server.models:
                # What makes vectors of texts is listed beside what answers.
                if "embed" in name.lower() or len(self._found) == MAX_OFFERED:
                    continue
                model_id = f"{server.name}/{name}".lower().replace(" ", "-")
                self._found[model_id] = (server.url, name)
                self._titles[model_id] = f"{name} ({server.name})"

    def listed(self) -> list[dict[str, str]]:
        """What can be chosen, the configured one first: ``{"id", "title"}``."""
        return [{"id": model_id, "title": title} for model_id, title in self._titles.items()]

    def known(self, model_id: str | None) -> str:
        """The id if there is such a model; the configured one for None or an empty id.

        Raises:
            NotFound: ``language_model_unknown``.
        """
        model_id = model_id or self.configured
        if model_id not in self._titles:
            raise NotFound(
                "language_model_unknown", f"There is no such language model; known: {', '.join(self._titles)}."
            )
        return model_id

    def get(self, model_id: str, character: Character | None = None) -> LanguageModel:
        """A model; it stays that of this object.

        Args:
            model_id: of one that is listed.
            character: whose language and name the script has; those of the options when None.

        Raises:
            NotFound: ``language_model_unknown``.
        """
        key = (self.known(model_id), self._config.language, "")
        if character is not None and key[0] == "host":
            key = ("host", character.language, character.name)
        if key not in self._models:
            self._models[key] = self._create(*key)
        return self._models[key]

    def _create(self, model_id: str, language: str, called: str) -> LanguageModel:
        config = self._config
        if model_id in self._found:
            url, name = self._found[model_id]
            return create_language_model("openai", url=url, model=name)
        return create_language_model(
            config.llm,
            url=config.llm_url,
            key=config.llm_key,
            model=config.llm_model,
            language=language,
            called=called,
        )

    async def aclose(self) -> None:
        """Closes all; may be called twice."""
        while self._models:
            _, model = self._models.popitem()
            try:
                await model.aclose()
            except Exception:
                _log.exception("closing a language model failed")
