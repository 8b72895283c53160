"""``python -m tests.benchmarks.conversation_vad``: how often listening starts for nothing, how much speech it misses.

Place in the flow: recordings of speech and of anything else -> decimated as in a session -> SileroVad -> TurnTaker ->
JSON on standard output.

Invariants:
    * what counts as speech is decided by loudness alone, in recordings quiet enough for it, never by what is measured;
    * noise that is mixed in is the same on every machine, and the truth stays that of the clean recording;
    * no words are given to the turn taker: these are turns by voice alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from engine.audio.decode import decode_audio
from engine.audio.pcm import Decimator
from engine.conversation.turn import TurnTaker
from engine.conversation.vad import BLOCK_S, BLOCK_SAMPLES, SileroVad
from engine.types import ANALYSIS_RATE

REPOSITORY = Path(__file__).resolve().parents[2]
TRUTH_OF = {
    "en_vctk_p287_003_noisy.wav": "en_vctk_p287_003_clean.wav",
    "en_libri_1088-134315-0000_reverb.wav": "en_libri_1088-134315-0000.wav",
}
"""Recordings too noisy to see speech by loudness, and the same without the noise."""
TRUTH_BELOW_PEAK_DB = 25.0
"""A block is speech when it is at most this much below the loud blocks (95th percentile) of its recording."""
SHORTEST_SPEECH_BLOCKS = 3
"""What is loud for less than this, 96 ms, is a click."""
LEAD_S = 1.024
"""Silence before each recording: a session listens before anybody speaks, and the network needs 0.3 s to settle."""
TAIL_S = 2.0
"""Silence after each recording, so that its last turn ends."""
RAISED_DB = 12.0
"""Negatives are heard as recorded, and raised by this, clipped where it is too much, as automatic gain may do."""
NOISES_DB = (20.0, 10.0, 5.0, 0.0)
"""Signal-to-noise ratios of pink noise mixed into the speech."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of one sound.

    Attributes:
        turns_s: beginning and end of every turn, seconds of the sound.
        start_delays_s: from each beginning to when it was told.
        probabilities: of every block.
        ms_per_block: computing time.
    """

    turns_s: list[tuple[float, float]]
    start_delays_s: list[float]
    probabilities: np.ndarray
    ms_per_block: float


@dataclass(frozen=True, slots=True)
class SpeechFigures:
    """One recording of speech, or all of them.

    Attributes:
        speech_s: loud enough to be speech.
        missed_percent: share of it outside every turn.
        missed_blocks_percent: share of its blocks whose probability is below the threshold of voice.
        late_ms: median from the first speech to the beginning of the first turn; negative: the turn begins before.
        unheard: recordings without any turn.
    """

    speech_s: float
    missed_percent: float
    missed_blocks_percent: float
    late_ms: float | None
    unheard: int


def analysis_sound(path: Path, gain_db: float = 0.0) -> np.ndarray:
    """(N,) float32 at 16 kHz, decimated as in a session, with silence before and after it.

    Raises:
        AudioInvalid: no sound that can be decoded.
    """
    decimator = Decimator()
    sound = decode_audio(path, 300)
    lead, tail = np.zeros(round(LEAD_S * ANALYSIS_RATE)), np.zeros(round(TAIL_S * ANALYSIS_RATE))
    whole = np.concatenate([decimator.push(sound), decimator.flush()]) * 10 ** (gain_db / 20)
    return np.concatenate([lead, whole, tail]).clip(-1, 1).astype(np.float32)


def hear(sound: np.ndarray) -> Heard:
    """Lets a fresh session listen to a sound while nobody speaks to it."""
    ear, taker = SileroVad(), TurnTaker()
    ear.load()
    started_s = time.perf_counter()
    probabilities = ear.push(sound)
    took_s = time.perf_counter() - started_s
    events = [e for i, p in enumerate(probabilities) for e in taker.heard(p, (i + 1) * BLOCK_S)]
    starts = [event for event in events if event.kind == "speech_started"]
    ends = [event.since_s for event in events if event.kind == "end_of_turn"]
    # Noise may keep the last turn open.
    ends += [len(sound) / ANALYSIS_RATE] * (len(starts) - len(ends))
    return Heard(
        turns_s=[(start.since_s, end_s) for start, end_s in zip(starts, ends, strict=True)],
        start_delays_s=[start.at_s - start.since_s for start in starts],
        probabilities=np.array(probabilities),
        ms_per_block=1000 * took_s / len(probabilities),
    )


def speech_blocks(sound: np.ndarray) -> np.ndarray:
    """(blocks,) bool: which blocks of a clean recording are loud enough to be speech."""
    blocks = sound[: len(sound) // BLOCK_SAMPLES * BLOCK_SAMPLES].reshape(-1, BLOCK_SAMPLES).astype(np.float64)
    level_db = 10 * np.log10(np.mean(blocks**2, axis=1) + 1e-12)
    recorded = level_db[round(LEAD_S / BLOCK_S) : -round(TAIL_S / BLOCK_S)]
    loud = level_db >= np.percentile(recorded, 95) - TRUTH_BELOW_PEAK_DB
    runs = np.split(loud, np.flatnonzero(np.diff(loud)) + 1)
    return np.concatenate([run & (len(run) >= SHORTEST_SPEECH_BLOCKS) for run in runs])


def pink_noise(samples: int) -> np.ndarray:
    """(samples,) float64 noise of 1/f power, root mean square 1; always the same."""
    spectrum = np.fft.rfft(np.random.default_rng(5).normal(size=samples))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, samples)
    return noise / np.sqrt(np.mean(noise**2))


def noisy(sound: np.ndarray, truth: np.ndarray, ratio_db: float) -> np.ndarray:
    """A sound with pink noise so much below its speech."""
    blocks = sound[: len(truth) * BLOCK_SAMPLES].reshape(-1, BLOCK_SAMPLES)[truth]
    level = np.sqrt(np.mean(blocks.astype(np.float64) ** 2)) * 10 ** (-ratio_db / 20)
    return (sound + level * pink_noise(len(sound))).clip(-1, 1).astype(np.float32)


def figures(pairs: list[tuple[Heard, np.ndarray]]) -> SpeechFigures:
    """How much of what is speech was heard.

    Args:
        pairs: what was heard, and (blocks,) bool which blocks are speech.
    """
    speech = missed = missed_blocks = unheard = 0
    late_ms = []
    for heard, truth in pairs:
        middles_s = (np.arange(len(truth)) + 0.5) * BLOCK_S
        inside = np.zeros(len(truth), bool)
        for start_s, end_s in heard.turns_s:
            inside |= (middles_s >= start_s) & (middles_s <= end_s)
        speech += int(truth.sum())
        missed += int((truth & ~inside).sum())
        missed_blocks += int((truth & (heard.probabilities < TurnTaker().options.voice_on)).sum())
        unheard += not heard.turns_s
        if heard.turns_s:
            late_ms.append(1000 * (heard.turns_s[0][0] - float(np.argmax(truth)) * BLOCK_S))
    return SpeechFigures(
        speech_s=round(speech * BLOCK_S, 1),
        missed_percent=round(100 * missed / speech, 2),
        missed_blocks_percent=round(100 * missed_blocks / speech, 2),
        late_ms=round(median(late_ms)) if late_ms else None,
        unheard=unheard,
    )


def measure(speech_dir: Path) -> dict[str, object]:
    """All figures.

    Args:
        speech_dir: recordings of speech, with others in its folder ``negatives``.
    """
    costs: list[float] = []
    negatives = {gain_db: _negatives(speech_dir / "negatives", gain_db) for gain_db in (0.0, RAISED_DB)}
    clean, files, delays_s = [], {}, []
    for path in sounds(speech_dir):
        truth = speech_blocks(analysis_sound(path.with_name(TRUTH_OF.get(path.name, path.name))))
        heard = hear(analysis_sound(path))
        pair = (heard, truth[: len(heard.probabilities)])
        costs.append(heard.ms_per_block)
        delays_s += heard.start_delays_s
        files[path.name] = {**asdict(figures([pair])), "turns": len(heard.turns_s)}
        clean.append((path, pair))
    everything = figures([pair for _, pair in clean])
    return {
        "false_starts_per_minute": negatives[0.0]["false_starts_per_minute"],
        "missed_speech": round(everything.missed_percent / 100, 4),
        "speech": asdict(everything),
        "told_after_ms": round(1000 * median(delays_s)),
        "speech_in_pink_noise": {
            f"{ratio_db:.0f} dB": asdict(
                figures([(hear(noisy(analysis_sound(path), pair[1], ratio_db)), pair[1]) for path, pair in clean])
            )
            for ratio_db in NOISES_DB
        },
        "ms_per_block": round(median(costs), 3),
        "files": files,
        "negatives": negatives[0.0],
        f"negatives_raised_{RAISED_DB:.0f}_db": negatives[RAISED_DB],
    }


def _negatives(directory: Path, gain_db: float) -> dict[str, object]:
    """What came of sounds without speech: turns begun, per minute of them."""
    files, starts, minutes = {}, 0, 0.0
    for path in sounds(directory):
        sound = analysis_sound(path, gain_db)
        heard = hear(sound)
        starts += len(heard.turns_s)
        minutes += (len(sound) / ANALYSIS_RATE - LEAD_S - TAIL_S) / 60
        highest = round(float(heard.probabilities.max()), 3)
        files[path.name] = {"false_starts": len(heard.turns_s), "highest_probability": highest}
    return {"false_starts_per_minute": round(starts / minutes, 3), "minutes": round(minutes, 2), "files": files}


def sounds(directory: Path) -> Iterator[Path]:
    """The files of a folder, in order."""
    yield from sorted(path for path in directory.iterdir() if path.is_file())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.conversation_vad", description=__doc__)
    beside = Path(os.environ.get("VISAVIS_SHARED", REPOSITORY.parent / "shared"))
    parser.add_argument("--speech", type=Path, default=beside / "data" / "speech", help="folder of recordings")
    directory = parser.parse_args().speech
    if not (directory / "negatives").is_dir():
        parser.error(f"{directory} holds no recordings: name a folder with speech and a folder 'negatives' in it")
    print(json.dumps(measure(directory), indent=2))


if __name__ == "__main__":
    main()
