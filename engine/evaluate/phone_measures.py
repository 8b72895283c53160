"""Measures of clips whose phones are known: opening, closures, open vowels, rounded and wide vowels, pauses.

Place in the flow: clips with gestures + a way to track the mouth -> ``judge_clips`` -> numbers.

Invariant: the truth is what ``engine.studio.coarticulation`` makes of the gestures at the middle of each frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from engine.evaluate.measures import (
    SHUT_OPENING,
    closure_rate,
    false_shut_rate,
    opening,
    shape_at,
    sync,
)
from engine.studio.coarticulation import frame_times_s, mouth_track
from engine.studio.phones import Gesture
from engine.studio.speech_data import SpeechClip

Track = Callable[[np.ndarray], np.ndarray]
"""(N,) float32 sound at 16 kHz -> (frames, 10) mouths at 25 fps."""

ROUNDED = 0.5
"""mouthPucker + mouthFunnel of an oo or w that is seen as round; fully reached it is 1.3."""
WIDE = 0.35
"""mouthStretch of an ee that is seen as wide; fully reached it is 0.9."""
_OPEN_VOWELS = ("aa", "AE", "E", "O")
_MIN_VOWEL_S = 0.06
_MIN_WIDE_S = 0.08
_PAUSE_FRAMES = 7


def spans(gestures: Sequence[Gesture], *visemes: str, longer_than_s: float = 0.0) -> list[tuple[float, float]]:
    """(start, end) of the gestures of some visemes, seconds."""
    return [(g.start_s, g.end_s) for g in gestures if g.viseme in visemes and g.end_s - g.start_s > longer_than_s]


def judge_clips(clips: Sequence[SpeechClip], track: Track) -> dict[str, float]:
    """How well predicted mouths fit clips with known gestures.

    Returns:
        ``r`` and ``lag_frames`` of the opening; the shares of p/b/m with ``closed`` lips, of open vowels wrongly
        shut (``false_shut``), of oo/w ``rounded``, of ee ``wide``, of frames deep in pauses shut (``pause_shut``).
    """
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    closed: list[float] = []
    false_shut: list[float] = []
    rounded: list[float] = []
    wide: list[float] = []
    paused: list[bool] = []
    for clip in clips:
        mouth = track(clip.samples.astype(np.float32) / 32768)
        true = opening(mouth_track(clip.gestures, frame_times_s(clip.duration_s)))
        predicted = opening(mouth)
        pairs.append((predicted, true))
        closed.extend(closure_rate(mouth, [span]) for span in spans(clip.gestures, "PP"))
        vowels = spans(clip.gestures, *_OPEN_VOWELS, longer_than_s=_MIN_VOWEL_S)
        false_shut.extend(false_shut_rate(mouth, [span]) for span in vowels)
        rounded.extend(shape_at(mouth, spans(clip.gestures, "U"), ("mouthPucker", "mouthFunnel")))
        wide.extend(shape_at(mouth, spans(clip.gestures, "I", longer_than_s=_MIN_WIDE_S), ("mouthStretch",)))
        deep = np.convolve(true < 0.02, np.ones(_PAUSE_FRAMES), "same") > _PAUSE_FRAMES - 0.5
        count = min(len(deep), len(predicted))
        paused.extend(predicted[:count][deep[:count]] < SHUT_OPENING)
    result = sync(pairs)
    return {
        "r": result.correlation,
        "lag_frames": result.lag_frames,
        "closed": _mean(closed),
        "false_shut": _mean(false_shut),
        "rounded": _mean(np.array(rounded) > ROUNDED),
        "wide": _mean(np.array(wide) > WIDE),
        "pause_shut": _mean(paused),
    }


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.nanmean(np.asarray(values, np.float64))) if len(values) else float("nan")
