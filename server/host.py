"""Who answers in the sessions of a server: one language model for all, a recogniser each, or a word on what is missing.

Place in the flow: Config -> ``Host.open`` -> ``Host.attend`` gives each session somebody who answers.

Invariants:
    * without ears (no voice activity network, no recogniser) typed text is still answered, and ``note`` says why;
    * what a person has to mend in the options (an address, a name) is an error at the start.
"""

from __future__ import annotations

import logging

from engine.config import Config
from engine.conversation.answer import DialogueOptions
from engine.conversation.asr.base import Recogniser
from engine.conversation.dialogue import Dialogue
from engine.conversation.history import History
from engine.conversation.tts.stream import SentenceStream
from engine.conversation.turn import TurnTaker
from engine.conversation.turn_options import TurnOptions
from engine.errors import BackendFailed
from engine.metrics import EngineMetrics
from engine.registry import create_language_model, create_recogniser, create_vad
from engine.session import Mode, Session

logger = logging.getLogger(__name__)


class Host:
    """Who answers in all sessions of a server."""

    def __init__(self, config: Config, metrics: EngineMetrics) -> None:
        """Loads what sessions share; takes up to a second, so call it off the event loop.

        Args:
            config: options.
            metrics: where to count.

        Raises:
            NotFound: no recogniser or language model of that name.
            ConfigInvalid: a service's address or key cannot be used.
        """
        self._config = config
        self._metrics = metrics
        self._model = create_language_model(
            config.llm, url=config.llm_url, key=config.llm_key, model=config.llm_model, language=config.language
        )
        self.note = ""
        """Why nobody hears; empty when somebody does."""
        try:
            if self._create_recogniser() is None:
                self.note = "Speech recognition is switched off; typed text is answered."
            else:
                # The first one loads the network that all share, and tells whether there is one.
                create_vad()
        except BackendFailed as error:
            self.note = error.message
            logger.warning("the avatar cannot hear what people say: %s", error.message)

    @property
    def hears(self) -> bool:
        """Whether spoken words are answered."""
        return not self.note

    @property
    def mode(self) -> Mode:
        """What becomes of the microphone when a session does not say."""
        return "mirror" if self._config.mode == "converse" and not self.hears else self._config.mode

    def attend(self, session: Session) -> None:
        """Gives a session somebody who answers."""
        config = self._config
        session.converse(
            Dialogue(
                session,
                vad=create_vad() if self.hears else None,
                turns=TurnTaker(TurnOptions(language=config.language)),
                recogniser=self._create_recogniser() if self.hears else None,
                model=self._model,
                history=History(config.system_prompt),
                sentences=SentenceStream,
                metrics=self._metrics,
                options=DialogueOptions(greeting=config.greeting, speak_errors=config.on_failure == "speak"),
            )
        )

    async def aclose(self) -> None:
        """Frees everything; idempotent. Close the sessions first."""
        await self._model.aclose()

    def _create_recogniser(self) -> Recogniser | None:
        config = self._config
        return create_recogniser(
            config.asr, url=config.asr_url, key=config.asr_key, model=config.asr_model, language=config.language
        )
