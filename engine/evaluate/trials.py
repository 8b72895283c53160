"""The sounds that avatars are tried with: voices nobody trained on, real talkers, and sounds that are no speech.

Place in the flow: synthesisers, ``talkers.json``, noise -> ``Trial``s -> rendered by every avatar -> ``avatar_report``.

Invariants:
    * the same seed gives the same sounds, so avatars and versions of the model compare;
    * what is synthesised has its phones' times, what real talkers say has the opening measured in their videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.audio.pcm import to_playout
from engine.evaluate.measures import opening
from engine.evaluate.phone_measures import spans
from engine.evaluate.talkers import load_talkers
from engine.types import ANALYSIS_RATE, FPS

REAL_CORPUS = "grid"
"""Talkers none of whom had a part in training or in choosing weights."""

_SEED = 2026
_SILENCE_S = 1.4
_PAUSE_FRAMES = 7


@dataclass(frozen=True)
class Trial:
    """One sound and what is known of the mouth that made it.

    Attributes:
        kind: ``synthetic``, ``real`` or ``silent``.
        voice: who speaks.
        samples: (N,) int16 mono at 48 kHz.
        opening: (F,) true opening at 25 a second, in a unit of its own; zeros for silence.
        closures_s: (start, end) of p, b and m, seconds; known for synthetic voices only.
        quiet: (F,) bool, frames in which nobody speaks for a while.
    """

    kind: str
    voice: str
    samples: np.ndarray
    opening: np.ndarray
    closures_s: Sequence[tuple[float, float]] = ()
    quiet: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


def make_trials(voices: int, silences: int, data: Path | None) -> list[Trial]:
    """All trials.

    Args:
        voices: how many sentences of held-out synthetic voices.
        silences: how many sounds without speech, 1.4 seconds each.
        data: folder with ``faces/grid``; None leaves the real talkers out.
    """
    from engine.studio.audio_augment import silence_like
    from engine.studio.coarticulation import frame_times_s, mouth_track
    from engine.studio.speech_data import make_clip

    rng = np.random.default_rng(_SEED)
    trials = []
    for _ in range(voices):
        clip = make_clip(rng, held_out=True)
        true = opening(mouth_track(clip.gestures, frame_times_s(clip.duration_s)))
        quiet = np.convolve(true < 0.02, np.ones(_PAUSE_FRAMES), "same") > _PAUSE_FRAMES - 0.5
        sound = to_playout(clip.samples, ANALYSIS_RATE)
        trials.append(Trial("synthetic", clip.voice, sound, true, spans(clip.gestures, "PP"), quiet))
    if data is not None:
        for talker in load_talkers(data / "faces"):
            if talker.name.startswith(f"{REAL_CORPUS}/"):
                trials.append(Trial("real", talker.name, talker.samples, talker.opening))
    # Chance of its own: whatever voices there are, the noises stay the same.
    rng = np.random.default_rng((_SEED, 1))
    for index in range(silences):
        sound = to_playout(silence_like(round(_SILENCE_S * ANALYSIS_RATE), rng), ANALYSIS_RATE)
        count = round(_SILENCE_S * FPS)
        trials.append(Trial("silent", f"no speech {index + 1}", sound, np.zeros(count), (), np.ones(count, bool)))
    return trials
