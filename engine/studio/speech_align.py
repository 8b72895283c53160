"""Recorded speech with a transcript -> clips with gestures, by forced alignment.

Place in the flow: recordings + transcripts -> pocketsphinx -> gestures -> ``recorded_*`` shards -> ``audio_train``.

Run as ``python -m engine.studio.speech_align LIST.tsv OUT.npz``; a line of the list: sound file, tab, what is said.
Needs ``pip install pocketsphinx`` (its English model comes in the wheel); nothing else of the project does.

Invariant: a clip whose words the aligner cannot place is left out, not guessed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
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
ALIGNER_OFFSET_S = 0.006
"""Added to the aligner's times: it places the phones of flite voices, whose times are known, so much early."""


class Aligner:
    """Places the phones of a known text in a sound."""

    def __init__(self) -> None:
        """Loads the aligner's English model.

        Raises:
            ImportError: pocketsphinx is not installed.
        """
        import pocketsphinx

        pocketsphinx.set_loglevel("FATAL")
        self._decoder = pocketsphinx.Decoder(samprate=ANALYSIS_RATE, lm=None, loglevel="FATAL")

    def phones(self, samples: np.ndarray, text: str) -> list[tuple[str, float, float]] | None:
        """ARPAbet phones with times.

        Args:
            samples: (N,) int16 mono at 16 kHz.
            text: what is said, in English.

        Returns:
            (phone, start_s, end_s) in order, or None when the text does not fit.
        """
        words = [word.strip("'") for word in re.findall(r"[a-z']+", text.lower())]
        if not words or any(self._decoder.lookup_word(word) is None for word in words):
            return None
        try:
            self._decoder.set_align_text(" ".join(words))
            self._pass(samples)
            self._decoder.set_alignment()
            self._pass(samples)
            alignment = self._decoder.get_alignment()
        except RuntimeError:
            return None
        found: list[tuple[str, float, float]] = []
        if alignment is None:
            return None
        for word in alignment:
            for phone in word:
                start_s = phone.start / _FRAMES_PER_S + ALIGNER_OFFSET_S
                found.append((phone.name.lower(), start_s, start_s + phone.duration / _FRAMES_PER_S))
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
    options = parser.parse_args(arguments)
    aligner, clips = Aligner(), []
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
