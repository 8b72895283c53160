"""Kokoro's voices: one network of 82 million parameters, for a fast CPU. Needs the package kokoro-onnx and its files.

Place in the flow: sentence -> KokoroSynthesiser -> LocalVoice.

Invariant: the package is imported when a voice is made, so nothing pays for it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.audio.pcm import to_int16
from engine.conversation.tts.local_voice import LocalVoice
from engine.errors import BackendFailed, ConfigInvalid

DEFAULT_VOICE = "af_heart"
_USUAL_RATE_WPM = 165
_SLOWEST, _FASTEST = 0.5, 2.0
_HOW = (
    "Get kokoro-v1.0.onnx and voices-v1.0.bin from the releases of the project kokoro-onnx, put them into one folder, "
    "and set voice_model (VISAVIS_VOICE_MODEL) to the path of the .onnx file."
)
_LANGUAGES = dict(
    a="en-us", b="en-gb", e="es", f="fr-fr", h="hi", i="it", j="ja", p="pt-br", z="cmn"
)  # fmt: skip
"""First letter of a voice's name -> the language it speaks."""


class KokoroSynthesiser:
    """Kokoro with one of its voices.

    Args:
        kokoro: a ``kokoro_onnx.Kokoro``.
        voice: name of the voice.
        speed: 1 is its own pace.
    """

    def __init__(self, kokoro: Any, voice: str, speed: float = 1.0) -> None:
        self._kokoro = kokoro
        self._voice, self._speed = voice, speed
        self._language = _LANGUAGES.get(voice[:1], "en-us")

    def parts(self, sentence: str) -> Iterator[tuple[np.ndarray, int]]:
        """See ``Synthesiser.parts``; a sentence is one part."""
        samples, rate = self._kokoro.create(sentence, voice=self._voice, speed=self._speed, lang=self._language)
        yield to_int16(np.asarray(samples, np.float32)), int(rate)


def load_kokoro(model: str, name: str = "", rate_wpm: int = _USUAL_RATE_WPM) -> LocalVoice:
    """Loads the network; takes seconds, so call it off the event loop.

    Args:
        model: path of its .onnx file; the voices (.bin) lie beside it.
        name: of the voice; empty for ``DEFAULT_VOICE``.
        rate_wpm: pace; 165 leaves it to the voice.

    Raises:
        BackendFailed: ``voice_unavailable``: the package is missing, or the network cannot be loaded.
        ConfigInvalid: ``voice_model_missing``, ``voice_unknown``.
    """
    try:
        from kokoro_onnx import Kokoro
    except ImportError as error:
        raise BackendFailed(
            "voice_unavailable", f"The voice kokoro needs a package. Install it with: pip install kokoro-onnx. {_HOW}"
        ) from error
    path = Path(model).expanduser()
    voices = sorted(path.parent.glob("voices*.bin"))
    if not model or not path.is_file() or not voices:
        missing = f"there is no {path} with a voices .bin file" if model else "it has no network yet"
        raise ConfigInvalid("voice_model_missing", f"The voice kokoro cannot speak: {missing}. {_HOW}")
    try:
        kokoro = Kokoro(str(path), str(voices[-1]))
        names = sorted(kokoro.get_voices())
    except Exception as error:
        raise BackendFailed("voice_unavailable", f"The network {path.name} cannot be loaded. {_HOW}") from error
    voice = name or DEFAULT_VOICE
    if voice not in names:
        raise ConfigInvalid("voice_unknown", f"Kokoro has no voice {voice!r}; it has {', '.join(names)}.")
    speed = min(max(rate_wpm / _USUAL_RATE_WPM, _SLOWEST), _FASTEST)
    return LocalVoice("kokoro", KokoroSynthesiser(kokoro, voice, speed))
