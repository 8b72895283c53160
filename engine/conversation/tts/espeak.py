"""The built-in voice: espeak-ng from its wheel, through ctypes, on one thread of its own.

Place in the flow: text -> sentences -> espeak-ng -> SpeechPiece; the studio also takes the phonemes and their times.

Invariants:
    * the library is global state, so there is one ``Espeak`` per process and only its own thread enters the library;
    * text is plain: neither SSML nor phoneme notation in it is interpreted;
    * a cancelled sentence stops inside the library, and the next call finds it ready.
"""

from __future__ import annotations

import asyncio
import ctypes
import difflib
import os
import tempfile
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from engine.conversation.tts.base import SpeechPiece, Word
from engine.conversation.tts.scripts import language_of
from engine.conversation.tts.sentences import clean_text, pause_after_ms, split_sentences
from engine.errors import BackendFailed, ConfigInvalid

DEFAULT_VOICE = "en-us+f3"
DEFAULT_RATE_WPM = 165
RATE_RANGE_WPM = (80, 450)
DEFAULT_PITCH = 50

_SYNCHRONOUS = 2
_INIT_OPTIONS = 0x0001 | 0x8000  # phoneme events; report errors instead of ending the process
_UTF8 = 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_PITCH_RANGE = 1, 3, 4
_EVENT_END_OF_LIST, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_MAX_DATA_PATH_BYTES = 120  # the library keeps paths below its data folder in buffers of 160 bytes
_PEAK = 0.7  # loudest sample of a piece; -3 dB of headroom for the resampler behind it
_MAX_GAIN = 3.0
_ALIASES = {"en-gb": "en", "zh": "cmn"}  # names that people use and the library does not know


@dataclass(frozen=True, slots=True)
class Phoneme:
    """One phoneme as espeak-ng names it (``@``, ``eI``, ``tS`` …; ``_`` is a pause) and its time in the piece."""

    name: str
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What the library makes of a text.

    Attributes:
        samples: (N,) int16 mono.
        sample_rate: Hz.
        words: words with times.
        phonemes: phonemes without gaps from the first to the end of the sound.
    """

    samples: np.ndarray
    sample_rate: int
    words: list[Word]
    phonemes: list[Phoneme]


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of espeak-ng's speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(slots=True)
class _Collected:
    """What the callback gathers during one call."""

    stop: threading.Event
    sound: list[np.ndarray] = field(default_factory=list)
    words: list[tuple[int, int, int]] = field(default_factory=list)  # (ms, position from 1, length), in characters
    phonemes: list[tuple[int, str]] = field(default_factory=list)


class Espeak:
    """The library, entered only from its own thread. Use ``shared_espeak``: two instances would share one state."""

    def __init__(self) -> None:
        """Loads the library and its data.

        Raises:
            BackendFailed: the wheel is missing or its library does not run here.
        """
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak")
        self._collected = _Collected(threading.Event())
        self._callback = _Callback(self._collect)
        self._selected = ""
        try:
            self._thread.submit(self._load).result()
        except BackendFailed:
            self._thread.shutdown(wait=False)
            raise

    def _load(self) -> None:
        try:
            import espeakng_loader

            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
            self._data = Path(espeakng_loader.get_data_path())
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendFailed(
                "voice_unavailable",
                f"The built-in voice cannot be loaded ({error}). Install it with: pip install espeakng-loader",
            ) from error
        data = str(self._data)
        if len(os.fsencode(data)) > _MAX_DATA_PATH_BYTES:
            self._short_path = tempfile.TemporaryDirectory(prefix="espeak-")
            data = os.path.join(self._short_path.name, "espeak-ng-data")
            os.symlink(self._data, data)
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data), _INIT_OPTIONS)
        if self._rate <= 0:
            raise BackendFailed(
                "voice_unavailable",
                f"The built-in voice cannot read its data in {self._data}. Reinstall it with: "
                "pip install --force-reinstall espeakng-loader",
            )
        self._library.espeak_SetSynthCallback(self._callback)

    def check_voice(self, voice: str) -> None:
        """Finds out whether a voice exists.

        Args:
            voice: a language (``en-us``), or a language and a variant (``en-us+f3``).

        Raises:
            ConfigInvalid: there is none of that name; the message lists what there is.
        """
        language, _, variant = voice.partition("+")
        variants = self.variants()
        if variant and variant not in variants:
            near = difflib.get_close_matches(variant, variants, 3) or ["f1", "f3", "m1", "m3"]
            raise ConfigInvalid(
                "voice_unknown",
                f"The voice {voice!r} has no variant {variant!r}. Variants near it: {', '.join(near)}. "
                f"All of them: {', '.join(variants)}.",
            )
        if not language or not voice.isprintable() or not self._thread.submit(self._select, voice).result():
            languages = self.languages()
            near = difflib.get_close_matches(language, languages, 4) or ["en-us", "de", "fr", "es"]
            raise ConfigInvalid(
                "voice_unknown",
                f"There is no voice {voice!r}. A voice is a language, optionally with a variant: en-us+f3, de+m3, "
                f"fr. Languages near it: {', '.join(near)}. All of them: {', '.join(languages)}.",
            )

    def variants(self) -> list[str]:
        """Names of the voice variants (``f3``, ``m1``, ``Annie`` …), usable with every language."""
        return sorted(path.name for path in (self._data / "voices" / "!v").iterdir())

    def languages(self) -> list[str]:
        """Codes of the languages that can be spoken."""
        files = (path for path in (self._data / "lang").rglob("*") if path.is_file())
        return sorted({path.name.lower() for path in files} | set(_ALIASES))

    def synthesise(
        self,
        text: str,
        voice: str = DEFAULT_VOICE,
        rate_wpm: int = DEFAULT_RATE_WPM,
        pitch: int = DEFAULT_PITCH,
        pitch_range: int = 50,
        stop: threading.Event | None = None,
    ) -> Synthesis:
        """Speaks a text and waits for the whole sound; call it from any thread but the event loop's.

        Args:
            text: plain text.
            voice: as in ``check_voice``.
            rate_wpm: words a minute.
            pitch: 0 to 100.
            pitch_range: liveliness of the melody, 0 to 100.
            stop: ends the work early when set; the result then holds what there was.

        Raises:
            BackendFailed: the library refused.
        """
        return self._thread.submit(self._synthesise, text, voice, rate_wpm, pitch, pitch_range, stop).result()

    async def asynthesise(self, text: str, voice: str, rate_wpm: int, pitch: int, pitch_range: int) -> Synthesis:
        """``synthesise`` without blocking the event loop; a cancelled call stops the library."""
        stop = threading.Event()
        future = self._thread.submit(self._synthesise, text, voice, rate_wpm, pitch, pitch_range, stop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _select(self, voice: str) -> bool:
        if voice != self._selected:
            self._selected = ""
            language, plus, variant = voice.partition("+")
            known = _ALIASES.get(language, language) + plus + variant
            if self._library.espeak_SetVoiceByName(known.encode()) != 0:
                return False
            self._selected = voice
        return True

    def _synthesise(
        self, text: str, voice: str, rate_wpm: int, pitch: int, pitch_range: int, stop: threading.Event | None
    ) -> Synthesis:
        text = clean_text(text)
        collected = self._collected = _Collected(stop or threading.Event())
        if text and not collected.stop.is_set():
            if not self._select(voice):
                raise BackendFailed("voice_failed", f"The built-in voice cannot speak as {voice!r}.")
            for parameter, value in (
                (_PARAMETER_RATE, rate_wpm),
                (_PARAMETER_PITCH, pitch),
                (_PARAMETER_PITCH_RANGE, pitch_range),
            ):
                self._library.espeak_SetParameter(parameter, value, 0)
            encoded = text.encode()
            failed = self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
            if failed and not collected.stop.is_set():
                raise BackendFailed("voice_failed", f"The built-in voice failed on this text (status {failed}).")
        samples = np.concatenate(collected.sound) if collected.sound else np.zeros(0, np.int16)
        duration_ms = 1000 * len(samples) / self._rate
        return Synthesis(
            samples=samples,
            sample_rate=self._rate,
            words=_words(text, collected, duration_ms),
            phonemes=_phonemes(collected, duration_ms),
        )

    def _collect(self, wave: ctypes._Pointer, count: int, events: ctypes._Pointer) -> int:
        """The library's callback; a return value of 1 makes it stop."""
        collected = self._collected
        if wave and count > 0:
            collected.sound.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_WORD:
                collected.words.append((event.audio_position_ms, event.text_position, event.length))
            elif event.type == _EVENT_PHONEME:
                name = event.id.string.decode("utf-8", "replace")
                collected.phonemes.append((event.audio_position_ms, name or "_"))
            index += 1
        return int(collected.stop.is_set())


def _phonemes(collected: _Collected, duration_ms: float) -> list[Phoneme]:
    ends = [start for start, _ in collected.phonemes[1:]] + [duration_ms]
    return [
        Phoneme(name, start, end)
        for (start, name), end in zip(collected.phonemes, ends, strict=True)
        if end > start
    ]


def _words(text: str, collected: _Collected, duration_ms: float) -> list[Word]:
    """Word events as words; a word ends where the pause behind it or the next word starts.

    Several events on the same letters (``3.14`` is read as four words, Japanese has no blanks) are one word, and
    letters without an event of their own (the second word of "I am") belong to the word before.
    """
    spans: list[list[int]] = []  # [start ms, first character, end character]
    for start_ms, position, length in collected.words:
        first, end = position - 1, position - 1 + length
        if spans and first < spans[-1][2]:
            spans[-1][2] = max(spans[-1][2], end)
        elif text[first:end].strip():
            spans.append([start_ms, first, end])
    pauses = [start for start, name in collected.phonemes if name.startswith("_")]
    words: list[Word] = []
    for index, (start_ms, first, end) in enumerate(spans):
        following, after = spans[index + 1][:2] if index + 1 < len(spans) else (duration_ms, len(text))
        end_ms = min([following, *(pause for pause in pauses if start_ms < pause < following)])
        while after > end and not text[after - 1].isalnum():
            after -= 1
        words.append(Word(text[first : max(end, after)].strip(), int(start_ms), int(max(start_ms, end_ms))))
    return words


@cache
def shared_espeak() -> Espeak:
    """The process's one library, loaded at the first call."""
    return Espeak()


class EspeakVoice:
    """The built-in voice of a session."""

    def __init__(self, name: str = "", rate_wpm: int = DEFAULT_RATE_WPM, pitch: int = DEFAULT_PITCH) -> None:
        """Makes a voice; loads the library on first use in the process (about 20 ms).

        Args:
            name: a language, optionally with a variant (``en-us+f3``); empty for ``DEFAULT_VOICE``.
            rate_wpm: words a minute, 80 to 450.
            pitch: 0 to 100.

        Raises:
            ConfigInvalid: an unknown voice, or a rate or pitch out of range.
            BackendFailed: the library cannot be loaded.
        """
        low, high = RATE_RANGE_WPM
        if not low <= rate_wpm <= high:
            raise ConfigInvalid("voice_rate", f"The voice's rate is {rate_wpm}; use {low} to {high} words a minute.")
        if not 0 <= pitch <= 100:
            raise ConfigInvalid("voice_pitch", f"The voice's pitch is {pitch}; use 0 to 100.")
        self._espeak = shared_espeak()
        self._voice, self._rate_wpm, self._pitch = name or DEFAULT_VOICE, rate_wpm, pitch
        self._espeak.check_voice(self._voice)

    async def speak(self, text: str) -> AsyncIterator[SpeechPiece]:
        """Speaks a text sentence by sentence; see ``Voice.speak``.

        A sentence in a script that the voice's language does not write is spoken in a language that does.
        """
        sentences = split_sentences(text)
        for index, sentence in enumerate(sentences):
            language, plus, variant = self._voice.partition("+")
            voice = language_of(sentence, language) + plus + variant
            made = await self._espeak.asynthesise(sentence, voice, self._rate_wpm, self._pitch, 55)
            if all(phoneme.name.startswith("_") for phoneme in made.phonemes):
                continue  # nothing in it that is spoken
            pause_ms = pause_after_ms(sentence) if index + 1 < len(sentences) else 0
            samples = np.pad(_level(made.samples), (0, made.sample_rate * pause_ms // 1000))
            yield SpeechPiece(samples, made.sample_rate, sentence, made.words)

    async def aclose(self) -> None:
        """Nothing is held: the library belongs to the process."""


def _level(samples: np.ndarray) -> np.ndarray:
    """Brings a piece's loudest sample to ``_PEAK``, so that sentences and variants sound equally loud."""
    peak = int(np.abs(samples.astype(np.int32)).max())
    if peak == 0:
        return samples
    return np.round(samples * min(_MAX_GAIN, _PEAK * 32767 / peak)).astype(np.int16)
