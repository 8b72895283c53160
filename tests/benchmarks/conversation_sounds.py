"""What the person of a measured conversation says: sentences of real talkers, cut out of recordings by their pauses.

Place in the flow: recordings beside the repository -> wav files that the measuring page plays into its microphone.

Invariants: the same recordings give the same files; every sentence is as loud as the others, keeps the natural end of
its last word, and is known to the sample: when its speech begins and when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.audio.decode import decode_audio
from engine.types import PLAYOUT_RATE
from tests.benchmarks.analysis import Unmeasurable
from tests.benchmarks.sounds import shared_folder, write_wav

LEVEL = 0.1
"""Root mean square of what is said, full scale 1: -20 dBFS."""
LEAD_S = 0.1
"""Kept of the recording before the first word."""
_FADE_S = 0.01


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of a recording.

    Attributes:
        name: of its wav file.
        file: the recording.
        start_s: where its speech begins: the first 10 ms within 25 dB of the recording's loud ones.
        end_s: where its speech ends, likewise.
        tail_s: kept of the recording after that.
    """

    name: str
    file: str
    start_s: float
    end_s: float
    tail_s: float = 0.15


PRESIDENT = (
    Utterance("future", "derived_en_gwbush_30s.wav", 6.04, 9.85),
    Utterance("polls", "derived_en_gwbush_30s.wav", 10.15, 12.28),
    Utterance("parties", "derived_en_gwbush_30s.wav", 13.75, 17.54),
    Utterance("democracy", "derived_en_gwbush_30s.wav", 17.80, 21.43),
    Utterance("independents", "derived_en_gwbush_30s.wav", 21.80, 25.52),
    Utterance("ground", "derived_en_gwbush_30s.wav", 25.77, 28.38),
)
READER = (
    Utterance("concerned", "en_ljspeech_LJ001-0001.wav", 0.87, 3.96),
    Utterance("exhibition", "en_ljspeech_LJ001-0001.wav", 4.45, 9.53),
    Utterance("netherlands", "en_ljspeech_LJ001-0003.wav", 5.06, 7.83),
)
TALKERS = (PRESIDENT, READER)
"""Sentences of one talker each, as a session has one: the built-in recogniser finds words in all of them, and none has
a pause that could end a turn."""

MURMUR = Utterance("murmur", "derived_en_gwbush_30s.wav", 0.0, 0.17, tail_s=0.03)
"""A listener's short sound, in which there is no word yet: a back-channel by its length."""
COUGH = Utterance("cough", "fr_picovoice.wav", 1.0, 1.4, tail_s=0.03)
"""A voice in which the built-in recogniser finds no word, just long enough to silence the avatar."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """An utterance as a sound.

    Attributes:
        samples: (n,) int16 mono at 48 kHz.
        speech_start_ms: when its speech begins; ``speech_end_ms``: ends.
    """

    samples: np.ndarray
    speech_start_ms: float
    speech_end_ms: float


def cut(utterance: Utterance) -> Spoken:
    """Cuts one utterance out of its recording.

    Raises:
        Unmeasurable: the recording is not there.
    """
    path = shared_folder() / "data" / "speech" / utterance.file
    if not path.is_file():
        raise Unmeasurable(f"needs recordings of people, and {utterance.file} is not in {path.parent}")
    recording = decode_audio(path, 60.0).astype(np.float32)
    first = max(0, round((utterance.start_s - LEAD_S) * PLAYOUT_RATE))
    sound = recording[first : round((utterance.end_s + utterance.tail_s) * PLAYOUT_RATE)]
    start_ms = 1000 * (utterance.start_s - first / PLAYOUT_RATE)
    end_ms = start_ms + 1000 * (utterance.end_s - utterance.start_s)
    speech = sound[int(start_ms * PLAYOUT_RATE / 1000) : int(end_ms * PLAYOUT_RATE / 1000)]
    sound = sound * (LEVEL * 32767 / max(1.0, float(np.sqrt((speech**2).mean()))))
    fade = round(_FADE_S * PLAYOUT_RATE)
    sound[:fade] *= np.linspace(0, 1, fade)
    sound[-fade:] *= np.linspace(1, 0, fade)
    return Spoken(np.clip(sound, -32767, 32767).astype(np.int16), start_ms, end_ms)


def write_all(folder: Path) -> dict[str, Spoken]:
    """Writes every utterance as ``<name>.wav``; returns them by name. Raises Unmeasurable as ``cut``."""
    spoken = {utterance.name: cut(utterance) for utterance in (*PRESIDENT, *READER, MURMUR, COUGH)}
    for name, sound in spoken.items():
        write_wav(folder / f"{name}.wav", sound.samples)
    return spoken
