"""Who answers in the sessions of a server: shared language models, a recogniser each, or a word on what is missing.

Place in the flow: Config -> ``Host`` -> ``Host.attend`` gives each session somebody who answers in its character.

Invariants:
    * without ears (no voice activity network, no recogniser) typed text is still answered, and ``note`` says why;
    * an avatar whose language the recogniser does not know answers typed text only; the log says so;
    * what a person has to mend in the options (an address, a name) is an error at the start.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from engine.config import Config
from engine.conversation.answer import DialogueOptions
from engine.conversation.asr.base import Recogniser
from engine.conversation.dialogue import Dialogue
from engine.conversation.history import History, Line
from engine.conversation.llm.base import LanguageModel
from engine.conversation.phrases import phrases_in
from engine.conversation.realtime.base import SpeakingModel, SpeakingService
from engine.conversation.tts.stream import SentenceStream
from engine.conversation.turn import TurnTaker
from engine.conversation.turn_options import TurnOptions
from engine.errors import BackendFailed, ConfigInvalid
from engine.metrics import EngineMetrics
from engine.registry import REALTIME, create_realtime, create_recogniser, create_vad
from engine.session import Mode, Session
from server.character import Character
from server.language_models import LanguageModels
from server.manner import Manner

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
        self.models = LanguageModels(config)
        """Who may answer."""
        self._realtime: SpeakingService | None = None
        if config.llm == REALTIME:
            self._realtime = create_realtime(
                config.llm_url, key=config.llm_key, model=config.llm_model, transcriber=config.asr_model
            )
        self.note = ""
        """Why nobody hears; empty when somebody does."""
        try:
            if config.asr == "none" or (self._realtime is None and self._create_recogniser(config.language) is None):
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

    def attend(
        self,
        session: Session,
        character: Character,
        style: str = "",
        language_model: str = "",
        lines: Sequence[Line] = (),
    ) -> Manner:
        """Gives a session somebody who answers.

        Args:
            session: without anybody yet.
            character: of its avatar.
            style, language_model: as ``Manner``.
            lines: what was said before, where a conversation goes on.

        Returns:
            How it answers.

        Raises:
            NotFound: ``style_unknown``, ``language_model_unknown``.
        """
        config = self._config
        history = History()
        history.restore(lines)
        manner = Manner(character, history, self.models, style, language_model)
        recogniser: Recogniser | None
        model: LanguageModel | SpeakingModel
        if self._realtime is not None:
            model = conversation = self._realtime.converse(
                history.system_prompt,
                voice=character.realtime_voice,
                language=character.language,
                eager=not config.wake_word,
            )
            recogniser = conversation if self.hears else None
        else:
            model, recogniser = manner, self._recogniser_for(character)
        session.converse(
            Dialogue(
                session,
                vad=create_vad() if recogniser is not None else None,
                turns=TurnTaker(TurnOptions(language=character.language)),
                recogniser=recogniser,
                model=model,
                history=history,
                sentences=SentenceStream,
                metrics=self._metrics,
                options=DialogueOptions(
                    # Whoever has talked with it was greeted.
                    greeting="" if lines else character.greeting,
                    greeting_interruptible=config.greeting_interruptible == "yes",
                    speak_errors=config.on_failure == "speak",
                    wake_word=config.wake_word,
                    phrases=phrases_in(character.language),
                    temperature=None if model is manner else character.temperature_in(manner.style),
                ),
            )
        )
        return manner

    async def aclose(self) -> None:
        """Frees everything; idempotent. Close the sessions first."""
        await self.models.aclose()
        if self._realtime is not None:
            await self._realtime.aclose()

    def _recogniser_for(self, character: Character) -> Recogniser | None:
        if not self.hears:
            return None
        try:
            return self._create_recogniser(character.language)
        except ConfigInvalid as error:
            # At the start it was in order, so it is this avatar's language.
            logger.warning("%s does not hear what people say: %s", character.name, error.message)
            return None

    def _create_recogniser(self, language: str) -> Recogniser | None:
        config = self._config
        return create_recogniser(
            config.asr, url=config.asr_url, key=config.asr_key, model=config.asr_model, language=language
        )
