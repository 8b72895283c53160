"""``python -m tests.benchmarks.conversation_asr``: how well and how fast recorded talkers are understood.

Place in the flow: recordings beside the repository -> recogniser, fed as fast as they were spoken or faster -> JSON.

Invariants:
    * each recording is one turn of a new session, so nothing learned from one helps with another;
    * words are compared without case and punctuation, and nothing is forgiven: "mr" is "mister" on both sides;
    * only English recordings whose whole text is known count.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.audio.decode import decode_audio
from engine.audio.pcm import Decimator
from engine.conversation.asr.base import Recogniser, Transcript
from engine.conversation.asr.pocketsphinx import PocketsphinxRecogniser
from engine.types import ANALYSIS_RATE
from tests.benchmarks.serving import REPOSITORY

BLOCK = 512
TURN_S = 12.0
"""Negatives are heard in turns of this length."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of speech, (n,) float32 at 16 kHz, and its words; none for what is no speech."""

    name: str
    sound: np.ndarray
    words: list[str]


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    text = re.sub(r"\bmr\b\.?", "mister", text.lower().replace("’", "'"))
    return re.findall(r"[a-z']+", text)


def word_errors(said: list[str], heard: list[str]) -> int:
    """Least number of words to put in, leave out or replace (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        above, row = row, [i]
        for j, other in enumerate(heard, 1):
            row.append(min(row[-1] + 1, above[j] + 1, above[j - 1] + (word != other)))
    return row[-1]


def load(path: Path) -> np.ndarray:
    """(n,) float32 at 16 kHz."""
    decimator = Decimator()
    return np.concatenate([decimator.push(decode_audio(path, 600)), decimator.flush()])


def recordings(data: Path) -> Iterator[Recording]:
    """English recordings with their words, and those without speech."""
    text = ""
    with (data / "MANIFEST.tsv").open(encoding="utf-8") as manifest:
        for row in csv.DictReader(manifest, delimiter="\t"):
            file = row["file"]
            if file.startswith("speech/negatives/"):
                yield Recording(Path(file).name, load(data / file), [])
            elif file.startswith("speech/en_") and row["transcript"]:
                text = text if row["transcript"].startswith("(same") else row["transcript"]
                yield Recording(Path(file).name, load(data / file), words_of(text))


async def hear(recogniser: Recogniser, sound: np.ndarray, speed: float) -> tuple[Transcript, float, float | None]:
    """Speaks to a recogniser.

    Args:
        recogniser: the recogniser.
        sound: (n,) float32 at 16 kHz.
        speed: 1 speaks as people do; 0 gives everything at once.

    Returns:
        The transcript, seconds that ``finish`` took, and when the first partial words came, seconds of sound.
    """
    listening = recogniser.listen()
    started_s, first_s = time.monotonic(), None
    for at in range(0, len(sound), BLOCK):
        listening.push(sound[at : at + BLOCK])
        if speed:
            due_s = started_s + (at + BLOCK) / ANALYSIS_RATE / speed
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if first_s is None and await listening.partial():
                first_s = (at + BLOCK) / ANALYSIS_RATE
    ended_s = time.monotonic()
    transcript = await listening.finish()
    return transcript, time.monotonic() - ended_s, first_s


async def measure(data: Path, speed: float) -> dict[str, Any]:
    """All figures."""
    turns, invented, negative_s = [], {}, 0.0
    for recording in recordings(data):
        step = len(recording.sound) if recording.words else int(TURN_S * ANALYSIS_RATE)
        for at in range(0, len(recording.sound), step):
            sound = recording.sound[at : at + step]
            recogniser = PocketsphinxRecogniser()
            cpu_s = time.process_time()
            transcript, finish_s, first_s = await hear(recogniser, sound, speed)
            cpu_s = time.process_time() - cpu_s
            await recogniser.aclose()
            if not recording.words:
                negative_s += len(sound) / ANALYSIS_RATE
                if transcript.text:
                    invented.setdefault(recording.name, []).append(transcript.text)
                continue
            turn = {
                "file": recording.name,
                "words": len(recording.words),
                "errors": word_errors(recording.words, words_of(transcript.text)),
                "finish_ms": round(1000 * finish_s),
                "first_partial_ms": None if first_s is None else round(1000 * first_s),
                "real_time_factor": round(cpu_s * ANALYSIS_RATE / len(sound), 3),
                "confidence": transcript.confidence,
                "text": transcript.text,
            }
            errors = f"{turn['errors']:3}/{turn['words']:<3}"
            print(f"{turn['file']:40} {errors} finish {turn['finish_ms']:4} ms", file=sys.stderr)
            turns.append(turn)
    if not turns:
        raise SystemExit(f"There is no recording with a text in {data}.")
    finishes = sorted(turn["finish_ms"] for turn in turns)
    return {
        "recogniser": "pocketsphinx",
        "speed": speed,
        "cpus": os.cpu_count(),
        "word_error_rate": round(sum(turn["errors"] for turn in turns) / sum(turn["words"] for turn in turns), 3),
        "finish_ms": {
            "p50": statistics.median(finishes),
            "p95": finishes[min(len(finishes) - 1, int(0.95 * len(finishes)))],
        },
        "real_time_factor": round(statistics.mean(turn["real_time_factor"] for turn in turns), 3),
        "words_for_noise": {"seconds": round(negative_s), "turns": invented},
        "turns": turns,
    }


def main() -> int:
    """Prints the figures as JSON on standard output."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    how = "1 as spoken, 0 all at once (then finish_ms means nothing)"
    parser.add_argument("--speed", type=float, default=1.0, help=how)
    arguments = parser.parse_args()
    if not (arguments.data / "MANIFEST.tsv").is_file():
        print(f"There are no recordings in {arguments.data}.", file=sys.stderr)
        return 1
    print(json.dumps(asyncio.run(measure(arguments.data, arguments.speed)), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
