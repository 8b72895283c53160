"""A Whisper network through faster-whisper: sound of up to half a minute in, words out.

Place in the flow: float sound at 16 kHz -> ``WhisperNetwork`` -> ``Guess`` -> the thread of ``asr.whisper``.

The network was trained on 30 s at a time, filled up with silence, but hears less just as well, and its encoder, which
is most of the work, takes time in proportion: so it is given the sound and a margin, and more only where it stumbles.
Measured with base on 11 recordings: 6 to 7 % of 318 words are wrong either way, and 3 s of sound take a quarter of the
time, 11 s two fifths.

Invariants:
    * the package is imported when a network is looked for, so nothing pays for it otherwise;
    * nothing is downloaded: what is not on the disk is an error that says how to get it;
    * a decoding ends after as many tokens as anybody can say in the time, so that no noise keeps it busy.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import usable_cores
from engine.errors import BackendFailed, ConfigInvalid
from engine.types import ANALYSIS_RATE

DEFAULT_MODEL = "base"
MAX_WINDOW_S = 28.0
"""Longest sound of one decoding; what is longer has to be cut."""

INSTALL_HINT = "Install it with: pip install faster-whisper."

_TRAINED_S = 30
_FRAMES_PER_S = 100
_MARGIN_S, _LEAST_WINDOW_S = 3.0, 8.0  # with less it is lost now and then, and repeats itself
_TOKENS_PER_S, _SPARE_TOKENS, _MOST_TOKENS = 8, 16, 220  # the network itself ends at 224

# Below the first a text is doubted and tried again with more silence behind it; below the second it is no words:
# whales and wind come that far, not people. Repetitions are what the network says when it is lost; they compress well.
_DOUBTED_LOG_PROBABILITY, _WORST_LOG_PROBABILITY = -1.0, -1.15
_MOST_COMPRESSION = 2.4
_NO_SPEECH = 0.6

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guess:
    """What a sound may mean.

    Attributes:
        text: the words; empty when there are none.
        log_probability: mean over its tokens; 0 is sure.
        tokens: how many there are.
        language: two-letter code of what is spoken.
    """

    text: str
    log_probability: float
    tokens: int
    language: str


def find_network(model: str) -> Path:
    """The folder of a network on this machine; loads nothing.

    Args:
        model: a folder, or the name of a size such as ``small`` that was downloaded; empty for ``DEFAULT_MODEL``.

    Raises:
        BackendFailed: ``asr_missing``: the package is not installed.
        ConfigInvalid: ``asr_model_missing``, with the command that gets it.
    """
    if importlib.util.find_spec("faster_whisper") is None:
        raise BackendFailed("asr_missing", f"The recogniser whisper needs a package. {INSTALL_HINT}")
    name = model or DEFAULT_MODEL
    folder = Path(name).expanduser()
    if folder.is_dir():
        needed = [file for file in ("model.bin", "config.json", "tokenizer.json") if not (folder / file).is_file()]
        if needed:
            raise ConfigInvalid(
                "asr_model_missing",
                f"asr_model names the folder {folder}, which lacks {' and '.join(needed)}. It has to hold a Whisper "
                "network in the form of CTranslate2.",
            )
        return folder
    from faster_whisper import available_models, download_model

    how = f"Get it with: python -c \"from faster_whisper import download_model; download_model('{name}')\""
    if name not in available_models():
        raise ConfigInvalid(
            "asr_model_missing",
            f"asr_model is neither a folder nor the name of a Whisper network: {', '.join(available_models())}.",
        )
    try:
        found = Path(download_model(name, local_files_only=True))
    except Exception as error:  # whichever the hub's library has for "not here"
        raise ConfigInvalid("asr_model_missing", f"The Whisper network {name} is not here yet. {how}") from error
    if not (found / "tokenizer.json").is_file() or not (found / "model.bin").is_file():
        raise ConfigInvalid("asr_model_missing", f"The Whisper network {name} is here only in part. {how}")
    return found


class WhisperNetwork:
    """A loaded network. One thread at a time uses it; it lets go of Python's lock while it works.

    Args:
        folder: as ``find_network`` gave it.

    Raises:
        BackendFailed: ``asr_unreadable``: it cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        from faster_whisper import WhisperModel

        threads = max(1, min(4, usable_cores() - 1))
        try:
            self._model: Any = WhisperModel(str(folder), compute_type=_compute_type(), cpu_threads=threads)
        except Exception as error:
            raise BackendFailed(
                "asr_unreadable", f"The Whisper network {folder.name} cannot be loaded; download it again."
            ) from error

    def check_language(self, language: str) -> None:
        """Whether the network knows a language; empty is any.

        Raises:
            BackendFailed: ``asr_language``.
        """
        known = self._model.supported_languages
        if language and language not in known:
            which = "English only" if len(known) == 1 else f"{len(known)} languages"
            raise BackendFailed(
                "asr_language",
                f"This Whisper network knows {which}, not {language!r}. Choose another by asr_model, or set language.",
            )

    def guess(self, sound: np.ndarray, language: str, *, thorough: bool) -> Guess:
        """Words of a sound.

        Args:
            sound: (n,) float32 at 16 kHz, at most ``MAX_WINDOW_S``.
            language: of what is spoken; empty lets the network find out.
            thorough: whether a doubtful text is worth another decoding, several times as long.
        """
        seconds = len(sound) / ANALYSIS_RATE
        window_s = min(_TRAINED_S, math.ceil(max(seconds + _MARGIN_S, _LEAST_WINDOW_S)))
        features = self._model.feature_extractor(sound)
        guess, usable = self._decode(features, window_s, seconds, language)
        if not usable and thorough and window_s < _TRAINED_S:
            guess, usable = self._decode(features, min(_TRAINED_S, 2 * window_s), seconds, language)
        return guess if usable or guess.log_probability > _WORST_LOG_PROBABILITY else _nothing(guess.language)

    def _decode(self, features: np.ndarray, window_s: int, seconds: float, language: str) -> tuple[Guess, bool]:
        """One decoding, and whether it reads like speech."""
        from faster_whisper.tokenizer import Tokenizer

        heard = self._model.encode(_fitted(features, window_s * _FRAMES_PER_S))
        multilingual = self._model.model.is_multilingual
        if not language:
            language = self._model.model.detect_language(heard)[0][0][0].strip("<|>") if multilingual else "en"
        tokenizer = Tokenizer(self._model.hf_tokenizer, multilingual, task="transcribe", language=language)
        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        result = self._model.model.generate(
            heard,
            [prompt],
            beam_size=1,  # more are no better on short turns of clear speech, and slower
            max_length=len(prompt) + min(_MOST_TOKENS, int(seconds * _TOKENS_PER_S) + _SPARE_TOKENS),
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        tokens = result.sequences_ids[0]
        mean = result.scores[0] * len(tokens) / (len(tokens) + 1)
        text = " ".join(tokenizer.decode(tokens).split())
        if not any(char.isalnum() for char in text) or (result.no_speech_prob > _NO_SPEECH and mean < -0.5):
            return _nothing(language), True
        raw = text.encode()
        repeated = len(raw) / len(zlib.compress(raw)) > _MOST_COMPRESSION
        guess = Guess(text, -math.inf if repeated else mean, len(tokens), language)
        return guess, mean > _DOUBTED_LOG_PROBABILITY and not repeated


def _nothing(language: str) -> Guess:
    return Guess("", 0.0, 0, language)


def _fitted(features: np.ndarray, frames: int) -> np.ndarray:
    """(bands, n) -> (bands, frames), cut or filled with the silence that ends every sound's features."""
    fitted = np.zeros((features.shape[0], frames), np.float32)
    kept = min(frames, features.shape[1])
    fitted[:, :kept] = features[:, :kept]
    return fitted


def _compute_type() -> str:
    """Arithmetic: 8 bits on CPUs, 16 on graphics cards, which are used where there are any."""
    import ctranslate2

    return "float16" if ctranslate2.get_cuda_device_count() else "int8"
