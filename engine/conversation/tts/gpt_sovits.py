"""GPT-SoVITS behind its own HTTP server (``api_v2.py``): speaks with a voice cloned from a few seconds of it.

Place in the flow: sentence -> JSON -> ServiceVoice.

The server reads the recording itself: ``voice_reference`` is a path on its machine. Where there is such a file here
too, it is checked at the start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.conversation.http import Service, Timeouts
from engine.conversation.tts.reference import read_reference
from engine.conversation.tts.service_voice import USUAL_RATE_WPM, Request, ServiceVoice
from engine.errors import ConfigInvalid

LEAST_REFERENCE_S, MOST_REFERENCE_S = 3.0, 10.0

_ANY_LANGUAGE = "auto"
_LEAST_INTERVAL_S = 0.01  # of silence behind a sentence; the pauses are made here
_USUAL_HZ = 32_000  # every answer is asked for as WAV, which says its own
_SLOWEST, _FASTEST = 0.5, 2.0


class GptSovitsVoice(ServiceVoice):
    """A voice of a GPT-SoVITS server."""

    def __init__(
        self,
        url: str,
        key: str = "",
        name: str = "",
        rate_wpm: int = USUAL_RATE_WPM,
        reference: str = "",
        reference_text: str = "",
        timeouts: Timeouts | None = None,
    ) -> None:
        """Checks the configuration; nothing is sent yet. Blocking, some 20 ms.

        Args:
            url: base URL of the server.
            key: secret sent as a bearer token, where something in front of the server asks for one.
            name: language of what is said, as the server calls it (``en``, ``zh``, ``all_ja``); empty to let it find
                out.
            rate_wpm: pace; 165 leaves it to the voice.
            reference: path, on the server's machine, of a recording of the voice, 3 to 10 s.
            reference_text: what is said in it; from version 3 on the server's models need it.
            timeouts: patience.

        Raises:
            ConfigInvalid: ``service_url_invalid``, ``service_key_invalid``, ``voice_reference_invalid``.
        """
        if not reference:
            raise ConfigInvalid(
                "voice_reference_invalid",
                "The voice gpt-sovits needs a recording of 3 to 10 seconds to speak like. Set voice_reference "
                "(VISAVIS_VOICE_REFERENCE) to its path, as the server of GPT-SoVITS sees it.",
            )
        path = Path(reference).expanduser()
        if path.is_file():
            read_reference(path, LEAST_REFERENCE_S, MOST_REFERENCE_S)
            reference = str(path.resolve())
        asked: dict[str, Any] = {
            "text_lang": name or _ANY_LANGUAGE,
            "ref_audio_path": reference,
            "prompt_text": reference_text,
            "prompt_lang": _ANY_LANGUAGE,
            "text_split_method": "cut0",  # a sentence at a time is cut enough
            "fragment_interval": _LEAST_INTERVAL_S,
            "media_type": "wav",
            "streaming_mode": True,
        }
        if rate_wpm != USUAL_RATE_WPM:
            asked["speed_factor"] = round(min(max(rate_wpm / USUAL_RATE_WPM, _SLOWEST), _FASTEST), 2)
        # The first sentence after its start takes such a server up to half a minute.
        patience = timeouts or Timeouts(first_byte_s=30.0, next_byte_s=15.0)
        super().__init__(
            Service("voice", "voice", url, key, patience, versioned=False, choice="reference"),
            lambda sentence: Request("/tts", json={**asked, "text": sentence}),
            _USUAL_HZ,
        )
