"""CosyVoice behind its own HTTP server (``runtime/python/fastapi``): voices it has, and voices cloned from a recording.

Place in the flow: sentence -> form -> ServiceVoice.

What is asked for follows from the options:
    no recording                          /inference_sft: a speaker of the model, by name
    a recording and what is said in it    /inference_zero_shot: that voice
    a recording alone                     /inference_cross_lingual: that voice, also in another language
    a recording and an instruction        /inference_instruct2: that voice, speaking as it is told

The server sends bare 16-bit samples and does not say how many a second; its model decides.
"""

from __future__ import annotations

from pathlib import Path

from engine.conversation.http import Form, Service, Timeouts
from engine.conversation.tts.reference import as_wav, read_reference
from engine.conversation.tts.service_voice import Request, ServiceVoice
from engine.errors import ConfigInvalid

DEFAULT_SPEAKER = "英文女"
"""The English woman of CosyVoice-300M-SFT, the one model that has speakers of its own."""

LEAST_REFERENCE_S, MOST_REFERENCE_S = 1.0, 30.0
_FIRST_MODELS_RATE, _RATE = 22_050, 24_000
_END_OF_PROMPT = "<|endofprompt|>"
_THIRD_MODELS_PROMPT = f"You are a helpful assistant.{_END_OF_PROMPT}"


class CosyVoice(ServiceVoice):
    """A voice of a CosyVoice server."""

    def __init__(
        self,
        url: str,
        key: str = "",
        model: str = "",
        name: str = "",
        reference: str = "",
        reference_text: str = "",
        timeouts: Timeouts | None = None,
    ) -> None:
        """Checks the configuration and reads the recording; nothing is sent yet. Blocking, some 50 ms.

        Args:
            url: base URL of the server.
            key: secret sent as a bearer token, where something in front of the server asks for one.
            model: what the server runs, such as ``CosyVoice-300M`` or ``Fun-CosyVoice3-0.5B``; empty for a
                ``CosyVoice2-0.5B``.
            name: without a recording a speaker, empty for ``DEFAULT_SPEAKER``; with one an instruction, such as
                "speak softly", or empty.
            reference: path of a recording of the voice, 1 to 30 s.
            reference_text: what is said in it; empty where it is not known.
            timeouts: patience.

        Raises:
            ConfigInvalid: ``service_url_invalid``, ``service_key_invalid``, ``voice_reference_invalid``.
        """
        if reference_text and not reference:
            raise ConfigInvalid(
                "voice_reference_invalid", "voice_reference_text says what is said in voice_reference, which is empty."
            )
        first = "300m" in model.lower()
        third = "cosyvoice3" in model.lower()
        self._opening = _THIRD_MODELS_PROMPT if third else ""
        self._name, self._reference_text = name, reference_text
        self._recording = b""
        if reference:
            path = Path(reference).expanduser()
            self._recording = as_wav(read_reference(path, LEAST_REFERENCE_S, MOST_REFERENCE_S))
        # The first sentence after its start takes such a server up to half a minute.
        patience = timeouts or Timeouts(first_byte_s=30.0, next_byte_s=15.0)
        choice = "reference" if reference else "name"
        super().__init__(
            Service("voice", "voice", url, key, patience, versioned=False, choice=choice),
            self._request_for,
            _FIRST_MODELS_RATE if first else _RATE,
        )

    def _request_for(self, sentence: str) -> Request:
        if not self._recording:
            return Request("/inference_sft", form={"tts_text": sentence, "spk_id": self._name or DEFAULT_SPEAKER})
        form: Form = {"tts_text": sentence, "prompt_wav": ("reference.wav", self._recording, "audio/wav")}
        if self._name:
            told = self._name if _END_OF_PROMPT in self._name else f"{self._name}{_END_OF_PROMPT}"
            opening = self._opening.removesuffix(_END_OF_PROMPT)
            return Request("/inference_instruct2", form={**form, "instruct_text": f"{opening} {told}".strip()})
        if self._reference_text:
            said = self._opening + self._reference_text
            return Request("/inference_zero_shot", form={**form, "prompt_text": said})
        return Request("/inference_cross_lingual", form={**form, "tts_text": self._opening + sentence})
