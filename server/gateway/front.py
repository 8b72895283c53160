"""The stage of a gateway: avatars and their cards, posters and characters, and no model; the rest a worker tells.

Place in the flow: Config -> ``FrontStage.open`` -> the same handlers as on any stage; ``About`` of a worker -> them.

Invariants:
    * nothing here loads a model, a voice or an avatar's footage;
    * what is told of conversations and restoring is what a worker said last.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.config import Config
from engine.errors import ConfigInvalid
from engine.metrics import EngineMetrics
from engine.session import Mode
from server.language_models import LanguageModels
from server.library import Library
from server.stage import Stage
from server.worker.wire import About


class _Listed(LanguageModels):
    """What workers offer; nothing of it can be used here."""

    def __init__(self, about: About) -> None:
        self.configured = about.language_model
        self._models = {}
        self._found = {}
        self._titles = {model["id"]: model["title"] for model in about.language_models}


class FrontStage(Stage):
    """What a gateway shows of avatars.

    Attributes:
        on_forgotten: told when an avatar was deleted.
    """

    def __init__(self, config: Config, metrics: EngineMetrics, library: Library) -> None:
        """Use ``open_front``."""
        super().__init__(config, metrics, library)
        self.on_forgotten: Callable[[str], None] = lambda name: None
        self.tell(
            About(
                restores=False, mode=config.mode, hears=False, note="", language_models=[], language_model=config.llm
            )
        )

    @classmethod
    async def open_front(cls, config: Config, metrics: EngineMetrics) -> FrontStage:
        """Reads all cards, and makes the default avatar's poster.

        Raises:
            ConfigInvalid: ``avatar_missing``.
            AvatarInvalid: the default avatar's idle loop cannot be read.
        """
        library = Library(config.avatars_dir, config.data_dir / "avatars")
        if not library.cards or (config.avatar and config.avatar not in library.cards):
            wanted = f"called {config.avatar} " if config.avatar else ""
            known = ", ".join(library.cards) or "none"
            raise ConfigInvalid(
                "avatar_missing", f"There is no avatar {wanted}in {config.avatars_dir}; usable ones: {known}."
            )
        stage = cls(config, metrics, library)
        try:
            await stage.poster(stage.default)
        except BaseException:
            await stage.aclose()
            raise
        return stage

    def tell(self, about: About) -> None:
        """Takes what a worker says of itself; all of them have the same options."""
        self._about = about
        self._listed = _Listed(about)

    def forget(self, name: str) -> None:
        """See ``Stage.forget``; the workers are to forget it too."""
        super().forget(name)
        self.on_forgotten(name)

    @property
    def restores(self) -> bool:
        """Whether there is a face restorer."""
        return self._about.restores

    @property
    def mode(self) -> Mode:
        """What becomes of the microphone when a session does not say."""
        return self._about.mode

    @property
    def hears(self) -> bool:
        """Whether spoken words are answered."""
        return self._about.hears

    @property
    def note(self) -> str:
        """Why spoken words are not answered; empty when they are."""
        return self._about.note

    @property
    def language_models(self) -> LanguageModels:
        """Who may answer; to be listed, not to be asked."""
        return self._listed
