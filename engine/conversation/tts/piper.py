"""Piper's voices: small neural networks, on a CPU faster than speech. Needs the package piper-tts and a voice's files.

Place in the flow: sentence -> PiperSynthesiser -> LocalVoice.

Invariant: the package is imported when a voice is made, so nothing pays for it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.conversation.tts.local_voice import LocalVoice
from engine.errors import BackendFailed, ConfigInvalid

_USUAL_RATE_WPM = 165
_HOW = (
    "Get one with: python -m piper.download_voices en_US-lessac-medium, and set voice_model (VISAVIS_VOICE_MODEL) to "
    "the path of its .onnx file; the .onnx.json file belongs beside it."
)


class PiperSynthesiser:
    """A loaded voice of Piper.

    Args:
        voice: a ``piper.PiperVoice``.
        config: a ``piper.SynthesisConfig``.
    """

    def __init__(self, voice: Any, config: Any) -> None:
        self._voice = voice
        self._config = config

    def parts(self, sentence: str) -> Iterator[tuple[np.ndarray, int]]:
        """See ``Synthesiser.parts``."""
        for chunk in self._voice.synthesize(sentence, self._config):
            yield np.asarray(chunk.audio_int16_array, np.int16), int(chunk.sample_rate)


def load_piper(model: str, name: str = "", rate_wpm: int = _USUAL_RATE_WPM) -> LocalVoice:
    """Loads a voice; takes a second or two, so call it off the event loop.

    Args:
        model: path of its .onnx file.
        name: of a speaker, where the voice has several; empty for its first.
        rate_wpm: pace; 165 leaves it to the voice.

    Raises:
        BackendFailed: ``voice_unavailable``: the package is missing, or the voice cannot be loaded.
        ConfigInvalid: ``voice_model_missing``, ``voice_unknown``.
    """
    try:
        from piper import PiperVoice, SynthesisConfig
    except ImportError as error:
        raise BackendFailed(
            "voice_unavailable", f"The voice piper needs a package. Install it with: pip install piper-tts. {_HOW}"
        ) from error
    path = Path(model).expanduser()
    if not model or not path.is_file() or not Path(f"{path}.json").is_file():
        missing = f"there is no {path} with its .json file" if model else "it has no voice yet"
        raise ConfigInvalid("voice_model_missing", f"The voice piper cannot speak: {missing}. {_HOW}")
    try:
        voice = PiperVoice.load(path)
    except Exception as error:
        raise BackendFailed("voice_unavailable", f"The voice {path.name} cannot be loaded. {_HOW}") from error
    speakers = voice.config.speaker_id_map
    if name and name not in speakers:
        there = f"it has {', '.join(speakers)}" if speakers else "it has only one"
        raise ConfigInvalid("voice_unknown", f"The voice {path.name} has no speaker {name!r}; {there}.")
    config = SynthesisConfig(
        speaker_id=speakers.get(name), length_scale=voice.config.length_scale * _USUAL_RATE_WPM / rate_wpm
    )
    return LocalVoice("piper", PiperSynthesiser(voice, config))
