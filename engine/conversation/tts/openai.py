"""Any voice behind ``/v1/audio/speech``: OpenAI, Kokoro-FastAPI, openedai-speech, LocalAI and their like.

Place in the flow: sentence -> request -> ServiceVoice.
"""

from __future__ import annotations

from typing import Any

from engine.conversation.http import Service, Timeouts
from engine.conversation.tts.service_voice import USUAL_RATE_WPM, Request, ServiceVoice

DEFAULT_MODEL = "tts-1"
DEFAULT_VOICE = "alloy"
PCM_RATE = 24_000  # Hz, of ``response_format`` pcm

_SLOWEST, _FASTEST = 0.25, 4.0


class OpenAiVoice(ServiceVoice):
    """A voice of a service."""

    def __init__(
        self,
        url: str,
        key: str = "",
        model: str = "",
        name: str = "",
        rate_wpm: int = USUAL_RATE_WPM,
        timeouts: Timeouts | None = None,
    ) -> None:
        """Checks the configuration; nothing is sent yet.

        Args:
            url: base URL, see ``service_url.base_url``.
            key: secret of the service, if any.
            model: its name; empty for ``DEFAULT_MODEL``.
            name: of the voice; empty for ``DEFAULT_VOICE``.
            rate_wpm: pace; 165 leaves it to the voice.
            timeouts: patience.

        Raises:
            ConfigInvalid: ``service_url_invalid``, ``service_key_invalid``.
        """
        asked: dict[str, Any] = {"model": model or DEFAULT_MODEL, "voice": name or DEFAULT_VOICE}
        asked["response_format"] = "pcm"
        if rate_wpm != USUAL_RATE_WPM:
            asked["speed"] = round(min(max(rate_wpm / USUAL_RATE_WPM, _SLOWEST), _FASTEST), 2)
        super().__init__(
            Service("voice", "voice", url, key, timeouts or Timeouts(first_byte_s=10.0, next_byte_s=5.0)),
            lambda sentence: Request("/audio/speech", json={**asked, "input": sentence}),
            PCM_RATE,
        )
