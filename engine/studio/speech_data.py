"""Synthesised speech with known gestures: hours of clips from many voices, written as shards for the audio network.

Place in the flow: invented text -> espeak-ng and flite voices -> sound + gestures -> shards -> ``audio_train``.

Run as ``python -m engine.studio.speech_data OUT --hours 4``. espeak-ng comes with the product; flite is used when it
is installed (its voices are built from recordings, so they sound more like people).

Invariants:
    * a clip's sound is 16 kHz mono int16 and its gestures cover it from start to end;
    * held-out shards share no voice with training shards and draw their nouns and verbs from other lists.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from engine.conversation.tts.espeak import shared_espeak
from engine.studio.mouth import VISEMES
from engine.studio.phones import Gesture, gestures_from_arpabet, gestures_from_espeak
from engine.studio.speech_text import sentence
from engine.types import ANALYSIS_RATE

VISEME_NAMES: tuple[str, ...] = tuple(VISEMES)
"""Visemes by their number in the shards."""

_NOVELTY = ("Tweaky", "UniRobot", "Demonic", "AnxiousAndy", "anikaRobot", "croak", "fast", "robosoft", "whisperf")
_HELD_OUT_VARIANTS = frozenset("f4 m5 Alicia Gene Henrique steph klatt3 Michael".split())
_LANGUAGES = {
    "en-us": 0.34, "en": 0.12, "en-gb-x-rp": 0.06, "en-gb-scotland": 0.05, "en-us-nyc": 0.06, "en-029": 0.03,
    "de": 0.05, "fr": 0.05, "es": 0.05, "it": 0.04, "nl": 0.03, "pl": 0.02, "tr": 0.02, "fi": 0.02, "cs": 0.02,
    "ro": 0.01, "id": 0.01, "hu": 0.02,
}  # fmt: skip
_HELD_OUT_LANGUAGES = {"en-us": 0.5, "en": 0.3, "sv": 0.1, "pt-br": 0.1}
_FLITE_VOICES = ("slt", "rms", "kal16")
_HELD_OUT_FLITE_VOICES = ("awb",)
_FLITE_SHARE = 0.35
_CLIPS_PER_SHARD = 200


@dataclass(frozen=True, slots=True)
class SpeechClip:
    """A sound and what the mouth does in it.

    Attributes:
        samples: (N,) int16 mono, 16 kHz.
        gestures: in order; times in seconds of this sound.
        voice: who speaks, for the record.
        text: what is said.
    """

    samples: np.ndarray
    gestures: list[Gesture]
    voice: str
    text: str

    @property
    def duration_s(self) -> float:
        """Length of the sound, seconds."""
        return len(self.samples) / ANALYSIS_RATE


def make_clip(rng: np.random.Generator, held_out: bool = False) -> SpeechClip:
    """A new clip of a random voice and text, with a little silence around it."""
    text = sentence(rng, held_out)
    if shutil.which("flite") and rng.random() < _FLITE_SHARE:
        voice = str(rng.choice(_HELD_OUT_FLITE_VOICES if held_out else _FLITE_VOICES))
        samples, gestures = _flite(text, voice, float(rng.uniform(0.8, 1.3)))
        voice = "flite:" + voice
    else:
        voice = _espeak_voice(rng, held_out)
        samples, gestures = _espeak(text, voice, rng)
    return _with_silence(SpeechClip(samples, gestures, voice, text), rng)


def _espeak_voice(rng: np.random.Generator, held_out: bool) -> str:
    languages = _HELD_OUT_LANGUAGES if held_out else _LANGUAGES
    shares = np.array(list(languages.values()))
    language = str(rng.choice(list(languages), p=shares / shares.sum()))
    usable = [name for name in shared_espeak().variants() if not name.startswith(_NOVELTY)]
    variants = [name for name in usable if (name in _HELD_OUT_VARIANTS) == held_out]
    return f"{language}+{rng.choice(variants)}"


def _espeak(text: str, voice: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Gesture]]:
    rate, pitch, pitch_range = int(rng.uniform(110, 230)), int(rng.uniform(15, 85)), int(rng.uniform(20, 90))
    made = shared_espeak().synthesise(text, voice, rate, pitch, pitch_range)
    phonemes = [(p.name, p.start_ms / 1000, p.end_ms / 1000) for p in made.phonemes]
    samples = soxr.resample(made.samples.astype(np.float32) / 32768, made.sample_rate, ANALYSIS_RATE)
    return _int16(samples), gestures_from_espeak(phonemes)


def _flite(text: str, voice: str, stretch: float) -> tuple[np.ndarray, list[Gesture]]:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.2f}", "-psdur"]
        done = subprocess.run([*command, "-t", text, "-o", file.name], capture_output=True, text=True, check=True)
        with wave.open(file.name) as sound:
            rate, samples = sound.getframerate(), np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    if rate != ANALYSIS_RATE:
        samples = _int16(soxr.resample(samples.astype(np.float32) / 32768, rate, ANALYSIS_RATE))
    phones, start_s = [], 0.0
    for item in done.stdout.split():
        name, _, end = item.rpartition(":")
        phones.append((name, start_s, float(end)))
        start_s = float(end)
    return samples, gestures_from_arpabet(phones)


def _with_silence(clip: SpeechClip, rng: np.random.Generator) -> SpeechClip:
    before_s, after_s = (float(rng.uniform(0.05, 0.5)) for _ in range(2))
    before, after = (int(seconds * ANALYSIS_RATE) for seconds in (before_s, after_s))
    moved = [Gesture(g.viseme, g.start_s + before_s, g.end_s + before_s, g.strength) for g in clip.gestures]
    end_s = before_s + clip.duration_s
    first_s = moved[0].start_s if moved else end_s
    last_s = moved[-1].end_s if moved else end_s
    gestures = [Gesture("sil", 0.0, first_s), *moved, Gesture("sil", last_s, end_s + after_s)]
    return SpeechClip(np.pad(clip.samples, (before, after)), gestures, clip.voice, clip.text)


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def write_shard(path: Path, clips: Sequence[SpeechClip]) -> None:
    """Writes clips as one compressed file without pickles."""
    counts = [len(clip.gestures) for clip in clips]
    gestures = [g for clip in clips for g in clip.gestures]
    np.savez_compressed(
        path,
        samples=np.concatenate([clip.samples for clip in clips]),
        sample_ends=np.cumsum([len(clip.samples) for clip in clips]),
        visemes=np.array([VISEME_NAMES.index(g.viseme) for g in gestures], np.uint8),
        spans=np.array([(g.start_s, g.end_s, g.strength) for g in gestures], np.float32).reshape(-1, 3),
        gesture_ends=np.cumsum(counts),
        about=np.array(json.dumps([{"voice": clip.voice, "text": clip.text} for clip in clips])),
    )


def read_shard(path: Path) -> Iterator[SpeechClip]:
    """Reads back what ``write_shard`` wrote."""
    with np.load(path, allow_pickle=False) as shard:
        data = {key: shard[key] for key in shard.files}
    sample_start = gesture_start = 0
    about = json.loads(str(data["about"]))
    for sample_end, gesture_end, facts in zip(data["sample_ends"], data["gesture_ends"], about, strict=True):
        rows = slice(gesture_start, gesture_end)
        gestures = [
            Gesture(VISEME_NAMES[viseme], float(start_s), float(end_s), float(strength))
            for viseme, (start_s, end_s, strength) in zip(data["visemes"][rows], data["spans"][rows], strict=True)
        ]
        yield SpeechClip(data["samples"][sample_start:sample_end], gestures, facts["voice"], facts["text"])
        sample_start, gesture_start = sample_end, gesture_end


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes ``train_NNN.npz`` and ``held_out_NNN.npz`` until there are so many hours."""
    parser = argparse.ArgumentParser(description="Synthesise speech with known mouth gestures.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--hours", type=float, default=4.0, help="hours of training speech")
    parser.add_argument("--held-out-minutes", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, seconds, held_out in (
        ("held_out", 60 * options.held_out_minutes, True),
        ("train", 3600 * options.hours, False),
    ):
        made_s, number = 0.0, 0
        while made_s < seconds:
            rng = np.random.default_rng((options.seed, number, held_out))
            clips = [make_clip(rng, held_out) for _ in range(_CLIPS_PER_SHARD if not held_out else 50)]
            write_shard(options.out / f"{name}_{options.seed:02d}_{number:03d}.npz", clips)
            made_s, number = made_s + sum(clip.duration_s for clip in clips), number + 1
            print(f"{name}: {made_s / 60:.1f} of {seconds / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
