"""The voices of a server: one for each name and pace, shared by all sessions that speak with it.

Place in the flow: Character -> ``Voices.get`` -> Voice of a session.

Invariants:
    * few voices stay loaded, those that sessions use included; more only while sessions use more;
    * a voice that a persona names and that is not there is replaced by the usual one, with a line in the log; one that
      the user named is an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection

from engine.config import Config
from engine.conversation.tts.base import Voice
from engine.errors import VisavisError
from engine.registry import create_voice
from engine.voice_choice import VoiceChoice

VOICES_KEPT = 4

_log = logging.getLogger(__name__)


class Voices:
    """The voices of one provider."""

    def __init__(self, config: Config, on_thread: Callable[[Callable[[], Voice]], Awaitable[Voice]]) -> None:
        """Args: config: which provider; on_thread: runs blocking work."""
        self._config = config
        self._on_thread = on_thread
        # The one asked for last is last.
        self._voices: OrderedDict[VoiceChoice, Voice] = OrderedDict()
        self._loading = asyncio.Lock()

    async def get(self, choice: VoiceChoice, in_use: Collection[VoiceChoice]) -> Voice:
        """A voice; it stays that of this object.

        Args:
            choice: which one.
            in_use: those that must stay loaded.

        Raises:
            ConfigInvalid: the options of the provider cannot be used, or name no voice.
            BackendFailed: it cannot be loaded.
        """
        async with self._loading:
            if choice not in self._voices:
                self._voices[choice] = await self._on_thread(lambda: self._create(choice))
            self._voices.move_to_end(choice)
            unused = [other for other in self._voices if other != choice and other not in in_use]
            while unused and len(self._voices) > VOICES_KEPT:
                await _close(self._voices.pop(unused.pop(0)))
            return self._voices[choice]

    def _create(self, choice: VoiceChoice) -> Voice:
        config = self._config

        def create(name: str) -> Voice:
            return create_voice(
                config.voice,
                url=config.voice_url,
                key=config.voice_key,
                model=config.voice_model,
                name=name,
                rate_wpm=choice.rate_wpm,
                reference=config.voice_reference,
                reference_text=config.voice_reference_text,
            )

        try:
            return create(choice.name)
        except VisavisError as error:
            if choice.name == config.voice_name:
                raise
            voice = create(config.voice_name)
            _log.warning("an avatar's own voice cannot be used, the usual one speaks: %s", error.message)
            return voice

    async def aclose(self) -> None:
        """Closes all; may be called twice."""
        while self._voices:
            await _close(self._voices.popitem()[1])


async def _close(voice: Voice) -> None:
    try:
        await voice.aclose()
    except Exception:
        _log.exception("closing a voice failed")
