"""Gestures as smooth mouth movement: dominance functions, with lips that really shut where the sound needs it.

Place in the flow: gestures -> ``mouth_track`` -> targets of the audio network; also drives rendered training clips.

Method: every gesture pulls the mouth towards its viseme with a weight that falls off around its time; the mouth is
the weighted mean of all pulls (M. M. Cohen, D. W. Massaro, "Modeling coarticulation in synthetic visual speech",
1993). On top, lips close fully for p, b, m and the lower lip meets the teeth for f, v, however short they are.

Invariants:
    * values are in [0, 1];
    * at the video frame nearest to the middle of every closure the closure is complete.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.studio.mouth import viseme_vector
from engine.studio.phones import Gesture
from engine.types import FPS, MOUTH_SHAPES

LIP_LEAD_S = 0.015
"""Lips run ahead of the sound they make; in videos of nine talkers by 5 ms at the most, in the literature by 30 ms."""

_DOMINANCE: dict[str, tuple[float, float]] = {
    "sil": (0.9, 0.075),
    "PP": (1.0, 0.040),
    "FF": (1.1, 0.045),
    "TH": (1.4, 0.050),
    "DD": (0.65, 0.045),
    "L": (0.65, 0.045),
    "kk": (0.35, 0.045),
    "CH": (1.7, 0.080),
    "SS": (0.9, 0.055),
    "RR": (1.0, 0.080),
    "aa": (1.8, 0.070),
    "AE": (1.8, 0.070),
    "E": (1.6, 0.070),
    "I": (1.4, 0.070),
    "O": (1.8, 0.080),
    "U": (2.0, 0.090),
    "ax": (0.6, 0.055),
    "hh": (0.15, 0.050),
}
"""Viseme -> (weight, reach in seconds): sounds that need a shape insist on it; h, k and schwa give way.

Adjusted so that the opening correlates best with that measured in videos of a talker (GRID s1)."""

_HARD = ("PP", "FF")
_CLOSED_MARGIN_S = 0.004
_CLOSING_S = 0.018
_VOWELS = frozenset(("aa", "AE", "E", "I", "O", "U", "ax"))
_JAW = MOUTH_SHAPES.index("jawOpen")


def mouth_track(
    gestures: Sequence[Gesture], times_s: np.ndarray, lead_s: float = LIP_LEAD_S, gain: float = 1.0
) -> np.ndarray:
    """The mouth at given times.

    Args:
        gestures: what is said.
        times_s: (N,) rising times of the sound's clock, seconds; for video the middles of the frames.
        lead_s: how far the lips are ahead of the sound.
        gain: liveliness of this talker, about 0.8 to 1.2.

    Returns:
        (N, len(MOUTH_SHAPES)) float32 in [0, 1].
    """
    times = np.asarray(times_s, np.float64)
    pull = np.zeros((len(times), len(MOUTH_SHAPES)))
    weight = np.full((len(times), 1), 1e-3)  # far from all sound the rest face remains
    for gesture in gestures:
        alpha, reach_s = _DOMINANCE[gesture.viseme]
        middle = (gesture.start_s + gesture.end_s) / 2 - lead_s
        half = max(0.02, (gesture.end_s - gesture.start_s) / 2)
        core = 0.9 * half if gesture.viseme == "sil" else 0.5 * half
        low, high = np.searchsorted(times, (middle - core - 4 * reach_s, middle + core + 4 * reach_s))
        distance = np.maximum(0.0, np.abs(times[low:high] - middle) - core)
        dominance = (alpha * np.exp(-((distance / reach_s) ** 1.3)))[:, None]
        target = viseme_vector(gesture.viseme).astype(np.float64)
        if gesture.viseme in _VOWELS:
            target[_JAW] *= gesture.strength
        pull[low:high] += dominance * target
        weight[low:high] += dominance
    mouth = gain * pull / weight
    for gesture in gestures:
        if gesture.viseme in _HARD:
            shut = closure_weight(gesture, times, lead_s)[:, None]
            mouth = mouth * (1 - shut) + shut * viseme_vector(gesture.viseme)
    return np.clip(mouth, 0.0, 1.0).astype(np.float32)


def closure_weight(gesture: Gesture, times_s: np.ndarray, lead_s: float = LIP_LEAD_S) -> np.ndarray:
    """How fully a gesture's closure holds at given times: 1 while it lasts, for at least one time.

    Returns:
        (N,) float64 in [0, 1].
    """
    middle = (gesture.start_s + gesture.end_s) / 2 - lead_s / 2  # closed lips cannot lead the vowel before by much
    half = max(0.012, (gesture.end_s - gesture.start_s) / 2 - _CLOSED_MARGIN_S)
    distance = np.maximum(0.0, np.abs(times_s - middle) - half)
    shut = np.exp(-((distance / _CLOSING_S) ** 2))
    if len(times_s) and times_s[0] <= middle <= times_s[-1]:
        shut[int(np.argmin(np.abs(times_s - middle)))] = 1.0
    return shut


def frame_times_s(duration_s: float) -> np.ndarray:
    """Middles of the video frames of a sound, seconds; as many frames as the sound needs."""
    return (np.arange(int(np.ceil(duration_s * FPS - 1e-9))) + 0.5) / FPS
