"""pocketsphinx's decoder, called in the library itself through ctypes, so that decoding never holds Python's lock.

Place in the flow: int16 sound at 16 kHz -> ``Sphinx`` -> ``Hypothesis``.

The package's own Python class keeps the lock while it decodes, which would stop pictures and sound for as long; its
extension module exports the C interface (``pocketsphinx.h`` of version 5), and ctypes lets go of the lock.

Invariants:
    * one thread at a time uses a ``Sphinx``;
    * a decoder costs about 95 MB and 0.3 s to load; ``close`` gives the memory back.
"""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_long, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from engine.errors import BackendFailed

INSTALL_HINT = "Install it with 'pip install pocketsphinx==5.1.1', or choose another recogniser (asr)."
FRAMES_PER_S = 100
CEPSTRA = 13
_LOG_BASE = 1.0001  # of pocketsphinx's logarithms
_LATTICE_SCALE = 1 << 10  # the lattice, which tells the words once an utterance ended, keeps finer scores

# The median over recordings of eleven talkers with different microphones.
DEFAULT_MEAN = np.array([56.0, 4.2, 2.6, 7.2, -3.0, -0.3, -10.4, -3.7, -1.9, -1.0, 0.4, 2.5, 4.3], np.float32)

_INTEGERS = {
    "samprate": 16_000,
    # The best that does not fall behind where sound is hard to understand; see tests/benchmarks/conversation_asr.py.
    # Without limits noise costs ten times as much as clear speech, and the search of the lattice up to seconds.
    "maxhmmpf": 6000,
    "maxwpf": 10,
}
_SWITCHES = {
    "fwdflat": 0,  # a second pass that could begin only when the speaker has ended, and takes half a second
    "bestpath": 1,
}


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The best words so far.

    Attributes:
        text: lower-case words.
        fit: mean acoustic score of a frame inside words: 0 where nothing fits better, negative otherwise.
        posterior: mean probability of a word among its alternatives; None before the utterance has ended.
        frames: frames (10 ms each) inside words.
    """

    text: str
    fit: float
    posterior: float | None
    frames: int


def is_installed() -> bool:
    """Whether the package is there; loads nothing."""
    return importlib.util.find_spec("pocketsphinx") is not None


@cache
def _library() -> tuple[ctypes.CDLL, Path]:
    """The library with its signatures, and the folder of its English model.

    Raises:
        BackendFailed: ``asr_missing``.
    """
    package = importlib.util.find_spec("pocketsphinx")
    module = importlib.util.find_spec("pocketsphinx._pocketsphinx") if package else None
    if module is None or module.origin is None:
        raise BackendFailed("asr_missing", f"The built-in recogniser, pocketsphinx, is not installed. {INSTALL_HINT}")
    try:
        library = ctypes.CDLL(module.origin)
        for name, result, arguments in _SIGNATURES:
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise BackendFailed(
            "asr_missing", f"The pocketsphinx that is installed cannot be used here ({error}). {INSTALL_HINT}"
        ) from error
    library.err_set_loglevel_str(b"FATAL")
    return library, Path(module.origin).parent / "model" / "en-us"


_SIGNATURES: tuple[tuple[str, object, list[object]], ...] = (
    ("err_set_loglevel_str", c_char_p, [c_char_p]),
    ("ps_config_init", c_void_p, [c_void_p]),
    ("ps_config_set_str", c_void_p, [c_void_p, c_char_p, c_char_p]),
    ("ps_config_set_int", c_void_p, [c_void_p, c_char_p, c_long]),
    ("ps_config_set_bool", c_void_p, [c_void_p, c_char_p, c_int]),
    ("ps_config_free", c_int, [c_void_p]),
    ("ps_init", c_void_p, [c_void_p]),
    ("ps_free", c_int, [c_void_p]),
    ("ps_start_utt", c_int, [c_void_p]),
    ("ps_process_raw", c_int, [c_void_p, c_void_p, c_size_t, c_int, c_int]),
    ("ps_end_utt", c_int, [c_void_p]),
    ("ps_get_hyp", c_char_p, [c_void_p, POINTER(c_int32)]),
    ("ps_set_cmn", c_int, [c_void_p, c_char_p]),
    ("fe_init_auto_r", c_void_p, [c_void_p]),
    ("fe_start_utt", c_int, [c_void_p]),
    ("fe_process_frames", c_int, [c_void_p, POINTER(c_void_p), POINTER(c_size_t), POINTER(c_void_p), POINTER(c_int32)]),
    ("fe_free", c_int, [c_void_p]),
    ("ps_seg_iter", c_void_p, [c_void_p]),
    ("ps_seg_next", c_void_p, [c_void_p]),
    ("ps_seg_word", c_char_p, [c_void_p]),
    ("ps_seg_frames", None, [c_void_p, POINTER(c_int), POINTER(c_int)]),
    ("ps_seg_prob", c_int32, [c_void_p, POINTER(c_int32), POINTER(c_int32), POINTER(c_int32)]),
)


class Sphinx:
    """One decoder with the English model that comes with the package."""

    def __init__(self) -> None:
        """Loads the model; 0.3 s, so call it off the event loop.

        Raises:
            BackendFailed: ``asr_missing``; ``asr_failed`` when the model cannot be loaded.
        """
        self._library, model = _library()
        self._ended = False
        library = self._library
        config = library.ps_config_init(None)
        paths = {"hmm": "en-us", "lm": "en-us.lm.bin", "dict": "cmudict-en-us.dict"}
        for name, file in paths.items():
            library.ps_config_set_str(config, name.encode(), str(model / file).encode())
        library.ps_config_set_str(config, b"loglevel", b"FATAL")
        for name, number in _INTEGERS.items():
            library.ps_config_set_int(config, name.encode(), number)
        for name, switch in _SWITCHES.items():
            library.ps_config_set_bool(config, name.encode(), switch)
        self._decoder = library.ps_init(config)  # which completes the options with those of the model
        self._front_end = library.fe_init_auto_r(config) if self._decoder else None
        library.ps_config_free(config)
        if not self._front_end:
            raise BackendFailed("asr_failed", f"pocketsphinx cannot load its model from {model}. {INSTALL_HINT}")

    def begin(self) -> None:
        """Starts an utterance."""
        self._check(self._library.ps_start_utt(self._decoder))
        self._ended = False

    def hear(self, samples: np.ndarray) -> None:
        """Decodes (n,) int16 samples of the utterance; takes some 0.2 times their length."""
        samples = np.ascontiguousarray(samples, np.int16)
        self._check(self._library.ps_process_raw(self._decoder, samples.ctypes.data, samples.size, 0, 0))

    def end(self) -> None:
        """Ends the utterance; ``hypothesis`` stays until the next begins."""
        self._check(self._library.ps_end_utt(self._decoder))
        self._ended = True

    def hypothesis(self) -> Hypothesis:
        """The best words so far."""
        library = self._library
        text = library.ps_get_hyp(self._decoder, None)
        first, last, score = c_int(), c_int(), c_int32()
        posteriors, total, frames = [], 0.0, 0
        segment = library.ps_seg_iter(self._decoder) if text else None
        while segment:
            if library.ps_seg_word(segment)[:1] not in (b"<", b"["):  # silence and noises
                library.ps_seg_frames(segment, byref(first), byref(last))
                posteriors.append(_LOG_BASE ** library.ps_seg_prob(segment, byref(score), None, None))
                total += score.value
                frames += last.value - first.value + 1
            segment = library.ps_seg_next(segment)
        fit = total / frames / (_LATTICE_SCALE if self._ended else 1) if frames else 0.0
        posterior = sum(posteriors) / max(1, len(posteriors)) if self._ended else None
        return Hypothesis(text.decode() if text else "", fit, posterior, frames)

    def spectral_mean(self, samples: np.ndarray) -> np.ndarray:
        """The mean cepstrum, (13,) float32, of (n,) int16 samples, as ``use_mean`` takes it; about 1 ms a second."""
        samples = np.ascontiguousarray(samples, np.int16)
        cepstra = np.zeros((samples.size // (16_000 // FRAMES_PER_S) + 2, CEPSTRA), np.float32)
        rows = (c_void_p * len(cepstra))(*(row.ctypes.data for row in cepstra))
        sound, left, frames = c_void_p(samples.ctypes.data), c_size_t(samples.size), c_int32(len(cepstra))
        self._check(self._library.fe_start_utt(self._front_end))
        self._check(
            self._library.fe_process_frames(self._front_end, byref(sound), byref(left), rows, byref(frames))
        )
        heard = cepstra[: frames.value]
        heard = heard[heard[:, 0] > 0]  # digital silence has no colour
        return heard.mean(axis=0) if len(heard) else DEFAULT_MEAN

    def use_mean(self, mean: np.ndarray) -> None:
        """What is subtracted from the cepstra of the next utterance: the colour of microphone, room and talker."""
        self._check(self._library.ps_set_cmn(self._decoder, ",".join(f"{value:.4f}" for value in mean).encode()))

    def close(self) -> None:
        """Frees the model. Idempotent."""
        if self._decoder:
            self._library.fe_free(self._front_end)
            self._library.ps_free(self._decoder)
            self._decoder = self._front_end = None

    @staticmethod
    def _check(status: int) -> None:
        if status < 0:
            raise BackendFailed("asr_failed", "The built-in recogniser failed on this sound.")
