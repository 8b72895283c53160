"""Recorded speech with a transcript -> clips with gestures, by forced alignment.

Place in the flow: recordings + transcripts -> pocketsphinx -> gestures -> ``recorded_*`` shards -> ``audio_train``.

Run as ``python -m engine.studio.speech_align LIST.tsv OUT.npz``; a line of the list: sound file, tab, what is said.
``--words`` names a file with words that the aligner's dictionary lacks; a line: word, tab, ARPAbet phones.
Needs ``pip install pocketsphinx`` (its English model comes in the wheel); nothing else of the project does.

Invariant: a clip whose words the aligner cannot place is left out, not guessed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.audio.decode import decode_audio
from engine.audio.pcm import Decimator
from engine.evaluate.talkers import sound_of
from engine.studio.phones import Gesture, gestures_from_arpabet
from engine.studio.speech_data import SpeechClip, write_shard
from engine.types import ANALYSIS_RATE

_FRAMES_PER_S = 100
_VIDEOS = (".mpg", ".mp4", ".avi")
_MAX_S = 120
_PADS_S = (0.0, 0.1, 0.3)
_HISS = 6  # loudest value; the aligner knows no digital silence
ALIGNER_OFFSET_S = 0.006
"""Added to the aligner's times: it places the phones of flite voices, whose times are known, so much early."""


class Aligner:
    """Places the phones of a known text in a sound."""

    def __init__(self, words: Mapping[str, str] | None = None) -> None:
        """Loads the aligner's English model.

        Args:
            words: pronunciations of words that its dictionary lacks, ARPAbet without stress: ``{"churl": "CH ER L"}``.

        Raises:
            ImportError: pocketsphinx is not installed.
        """
        import pocketsphinx

        pocketsphinx.set_loglevel("FATAL")
        self._decoder = pocketsphinx.Decoder(samprate=ANALYSIS_RATE, lm=None, loglevel="FATAL")
        for word, phones in (words or {}).items():
            if self._decoder.lookup_word(word) is None:
                self._decoder.add_word(word, phones, True)

    def phones(self, samples: np.ndarray, text: str) -> list[tuple[str, float, float]] | None:
        """ARPAbet phones with times.

        Args:
            samples: (N,) int16 mono at 16 kHz.
            text: what is said, in English.

        Returns:
            (phone, start_s, end_s) in order, or None when the text does not fit.
        """
        spelt = re.findall(r"[a-z']+", text.lower().replace("\u2019", "'"))
        words = [word for word in (part.strip("'") for part in spelt) if word]
        if not words or any(self._decoder.lookup_word(word) is None for word in words):
            return None
        rng = np.random.default_rng(0)
        for pad_s in _PADS_S:  # a recording cut close to the voice may fit only with a pause around it
            before, after = rng.integers(-_HISS, _HISS + 1, (2, int(pad_s * ANALYSIS_RATE)), np.int16)
            if found := self._aligned(np.concatenate([before, samples, after]), " ".join(words), pad_s):
                return found
        return None

    def _aligned(self, samples: np.ndarray, words: str, pad_s: float) -> list[tuple[str, float, float]] | None:
        """Phones of a sound that begins with ``pad_s`` of pause; times without it."""
        try:
            self._decoder.set_align_text(words)
            self._pass(samples)
            self._decoder.set_alignment()
            self._pass(samples)
            alignment = self._decoder.get_alignment()
        except RuntimeError:
            return None
        if alignment is None:
            return None
        end_s = len(samples) / ANALYSIS_RATE - 2 * pad_s
        found: list[tuple[str, float, float]] = []
        for word in alignment:
            for phone in word:
                start_s = phone.start / _FRAMES_PER_S + ALIGNER_OFFSET_S - pad_s
                stop_s = start_s + phone.duration / _FRAMES_PER_S
                if stop_s > 0 and start_s < end_s:
                    found.append((phone.name.lower(), max(0.0, start_s), min(end_s, stop_s)))
        return found or None

    def _pass(self, samples: np.ndarray) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()


def recorded_clip(aligner: Aligner, samples: np.ndarray, text: str, voice: str) -> SpeechClip | None:
    """A clip of recorded speech, or None when it cannot be aligned."""
    phones = aligner.phones(samples, text)
    if phones is None:
        return None
    gestures = gestures_from_arpabet(phones)
    end_s = len(samples) / ANALYSIS_RATE
    gestures = [Gesture("sil", 0.0, gestures[0].start_s), *gestures]
    if gestures[-1].end_s < end_s:
        gestures.append(Gesture("sil", gestures[-1].end_s, end_s))
    return SpeechClip(samples, gestures, voice, text)


def load_int16(path: Path) -> np.ndarray:
    """A sound or video file as (N,) int16 mono at 16 kHz."""
    playout = sound_of(path) if path.suffix in _VIDEOS else decode_audio(path, _MAX_S)
    decimator = Decimator()
    samples = np.concatenate([decimator.push(playout), decimator.flush()])
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def main(arguments: Sequence[str] | None = None) -> None:
    """Aligns the recordings of a list and writes them as one shard."""
    parser = argparse.ArgumentParser(description="Align recorded speech with its transcript.")
    parser.add_argument("list", type=Path, help="lines of: sound file, tab, transcript")
    parser.add_argument("out", type=Path, help="shard to write, e.g. recorded_train_readers.npz")
    parser.add_argument("--words", type=Path, help="lines of: word, tab, ARPAbet phones; what the dictionary lacks")
    options = parser.parse_args(arguments)
    lines = options.words.read_text("utf-8").splitlines() if options.words else []
    aligner, clips = Aligner(dict(line.split("\t", 1) for line in lines if line.strip())), []
    for line in options.list.read_text("utf-8").splitlines():
        name, _, text = line.partition("\t")
        clip = recorded_clip(aligner, load_int16(Path(name)), text, Path(name).stem)
        if clip is None:
            print(f"left out, cannot be aligned: {name}")
        else:
            clips.append(clip)
    write_shard(options.out, clips)
    print(f"{len(clips)} clips, {sum(clip.duration_s for clip in clips) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
