"""What is put into the microphone: a minute of speech, and bursts of vowels with silence between them.

Place in the flow: recordings of speech, or the built-in voice where there are none -> wav files -> Chromium's
microphone.

Invariants: the same sources give the same files; silence in them is digital silence, so an onset is beyond doubt.
"""

from __future__ import annotations

import os
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.audio.decode import decode_audio
from engine.types import PLAYOUT_RATE

REPOSITORY = Path(__file__).resolve().parents[2]
SPEECH_FILES = (
    "en_ljspeech_LJ001-0001.wav",
    "en_jfk_inaugural.flac",
    "en_libri_1088-134315-0000.wav",
    "en_arctic_a0024.wav",
    "en_ljspeech_LJ001-0003.wav",
    "en_libri_quilter.wav",
    "en_vctk_p287_003_clean.wav",
    "en_libri_116-288045-0000.flac",
)
SPEECH_LEVEL = 0.1
"""Root mean square of the speech, full scale 1: -20 dBFS."""
PAUSE_S = 0.3

BURST_LEVEL = 0.2
BURST_S = 0.3
BURST_GAP_S = (1.15, 1.65)
"""Silence after a burst; drawn at random, so that bursts meet the 40 ms frames in every phase."""
LEAD_S = 14.0
"""Silence before the first burst, in which the resting face is learnt; longer than an idle loop."""
TAIL_S = 1.5
ATTACK_S = 0.003
RELEASE_S = 0.03

_TEXTS = (
    "A living portrait answers while you are still thinking about the question.",
    "Far above the harbour, a father and his daughter are watching all the large dark ships.",
    "My mother bought a pound of plums, a box of pears and half a dozen apples at the market.",
    "What we call the beginning is often the end, and to make an end is to make a beginning.",
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Speech to choose from.

    Attributes:
        clips: (n,) int16 mono 48 kHz each.
        real: recordings of people, not the built-in voice.
    """

    clips: list[np.ndarray]
    real: bool


def shared_folder() -> Path:
    """Where recordings are kept beside the repository; may not exist."""
    return Path(os.environ.get("VISAVIS_SHARED") or REPOSITORY.parent / "shared")


def load_sources() -> Sources:
    """Recordings of people where there are some, the built-in voice otherwise."""
    folder = shared_folder() / "data" / "speech"
    clips = [decode_audio(folder / name, 60.0) for name in SPEECH_FILES if (folder / name).is_file()]
    if clips:
        return Sources(clips, real=True)
    return Sources(list(_synthesised()), real=False)


def _synthesised() -> Iterator[np.ndarray]:
    from engine.audio.pcm import to_playout
    from engine.conversation.tts.espeak import Espeak

    voice = Espeak()
    for text in _TEXTS:
        spoken = voice.synthesise(text)
        yield to_playout(spoken.samples, spoken.sample_rate)


def speech(sources: Sources, seconds: float) -> np.ndarray:
    """Speech with short pauses, of exactly this length, repeated as needed; (N,) int16."""
    pause = np.zeros(int(PAUSE_S * PLAYOUT_RATE), np.int16)
    pieces: list[np.ndarray] = []
    wanted, have = int(seconds * PLAYOUT_RATE), 0
    while have < wanted:
        for clip in sources.clips:
            pieces += [_at_level(clip, SPEECH_LEVEL), pause]
            have += len(clip) + len(pause)
    return np.concatenate(pieces)[:wanted]


def bursts(sources: Sources, count: int, seed: int = 1) -> np.ndarray:
    """Open vowels of 300 ms cut out of speech, each beginning at full strength, silence around each; (N,) int16."""
    random = np.random.default_rng(seed)
    vowels = _open_vowels(sources, count)
    pieces = [np.zeros(int(LEAD_S * PLAYOUT_RATE), np.int16)]
    for index in range(count):
        vowel = _at_level(vowels[index % len(vowels)], BURST_LEVEL).astype(np.float32)
        vowel[: int(ATTACK_S * PLAYOUT_RATE)] *= np.linspace(0, 1, int(ATTACK_S * PLAYOUT_RATE))
        vowel[-int(RELEASE_S * PLAYOUT_RATE) :] *= np.linspace(1, 0, int(RELEASE_S * PLAYOUT_RATE))
        gap = np.zeros(int(random.uniform(*BURST_GAP_S) * PLAYOUT_RATE), np.int16)
        pieces += [vowel.astype(np.int16), gap]
    pieces.append(np.zeros(int(TAIL_S * PLAYOUT_RATE), np.int16))
    return np.concatenate(pieces)


def _open_vowels(sources: Sources, count: int) -> list[np.ndarray]:
    """The stretches of speech that sound most like an open mouth, the best first."""
    length = int(BURST_S * PLAYOUT_RATE)
    step = length // 6
    found: list[tuple[float, np.ndarray]] = []
    for clip in sources.clips:
        sound = clip.astype(np.float32)
        best: dict[int, tuple[float, np.ndarray]] = {}
        for start in range(0, len(sound) - length, step):
            # One stretch in every half second, so that the vowels differ.
            place, stretch = start // (PLAYOUT_RATE // 2), sound[start : start + length]
            score = _openness(stretch)
            if score > best.get(place, (0.0, stretch))[0]:
                best[place] = (score, stretch)
        found += best.values()
    found.sort(key=lambda scored: -scored[0])
    return [stretch for _, stretch in found[:count]]


def _openness(stretch: np.ndarray) -> float:
    """How much a stretch sounds like "ah": steady, loud, with its first formant high. 0 when it has a gap."""
    frames = stretch.reshape(6, -1)
    loudness = np.sqrt((frames**2).mean(1))
    if loudness.min() < 0.3 * loudness.max() or loudness.max() < 300:
        return 0.0
    power = np.abs(np.fft.rfft(stretch * np.hanning(len(stretch)))) ** 2
    hertz = np.fft.rfftfreq(len(stretch), 1 / PLAYOUT_RATE)

    def band(low: float, high: float) -> float:
        return float(power[(hertz >= low) & (hertz < high)].sum())

    return band(550, 1100) / (band(180, 450) + 1.0)


def tone(seconds: float, hertz: float = 220.0) -> np.ndarray:
    """A steady hum, without the pauses of speech: when it ends is beyond doubt; (N,) int16."""
    at = np.arange(int(seconds * PLAYOUT_RATE)) / PLAYOUT_RATE
    return (6000 * np.sin(2 * np.pi * hertz * at)).astype(np.int16)


def _at_level(samples: np.ndarray, level: float) -> np.ndarray:
    sound = samples.astype(np.float32)
    gain = level * 32767 / max(1.0, float(np.sqrt((sound**2).mean())))
    return np.clip(sound * gain, -32767, 32767).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """Writes (N,) int16 mono at 48 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(PLAYOUT_RATE)
        file.writeframes(samples.tobytes())
    return path
