"""From recordings to figures: when a sound began or ended, when lips moved, how far sound and picture are apart.

Place in the flow: Sound, Picture -> figures of live.json. Pure functions of arrays; ``test_analysis.py`` holds each to
recordings whose answer is known.

Invariants: whatever did not happen in time counts with the whole time that was waited for it, never as missing, so that
a failure cannot improve a percentile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.recording import BLOCK_MS, Picture, Sound

FREEZE_GAP_MS = 190.0
"""A frame that comes this long after the one before it is a freeze: 40 ms + 150 ms, as in WebRTC's ``freezeCount``."""


MOVING_FRAMES = 3
"""So many frames in a row away from rest are a movement; it began with the first of them."""


class Unmeasurable(Exception):
    """A figure could not be taken; the message says why."""


def percentiles(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """p50 and p95 of a sample, rounded to a tenth."""
    return {name: round(float(np.percentile(values, q)), 1) for name, q in (("p50", 50), ("p95", 95))}


def onsets(sound: Sound, threshold: float, quiet_ms: float) -> np.ndarray:
    """Where sound begins after silence.

    Args:
        sound: the recording.
        threshold: block level that counts as sound, full scale 1.
        quiet_ms: how long it must have been below the threshold before.

    Returns:
        (k,) start of the first loud block of each sound, milliseconds.
    """
    loud = sound.times_ms[sound.levels >= threshold]
    if not len(loud):
        return loud
    gap = np.diff(loud, prepend=-np.inf)
    begins = loud[gap > quiet_ms + BLOCK_MS]
    # The recording itself must have begun long enough before for the silence to be known.
    return begins[begins - sound.times_ms[0] >= quiet_ms]


def silent_after(sound: Sound, since_ms: float, until_ms: float, threshold: float) -> float:
    """How long after a moment the last sound ended, within a watched time; 0 when none came, milliseconds.

    The last sound decides, not the first pause: a gap between two words is no silence.
    """
    watched = (sound.times_ms >= since_ms) & (sound.times_ms < until_ms) & (sound.levels >= threshold)
    return float(sound.times_ms[watched].max() + BLOCK_MS - since_ms) if watched.any() else 0.0


@dataclass(frozen=True, slots=True)
class LipOnsets:
    """When the mouth answered each sound.

    Attributes:
        delays_ms: (k,) from the sound's onset to the first moved frame; the whole window where it never moved.
        frames: (k,) which frame that was; -1 where it never moved.
        missed: how many never moved within the window.
        threshold: distance to the resting mouth that counts as movement, grey levels.
        moved: (k,) median distance during each answer over the threshold: how clear the movement was.
        false_alarms: share of resting frames that would have counted as movement.
    """

    delays_ms: np.ndarray
    frames: np.ndarray
    missed: int
    threshold: float
    moved: np.ndarray
    false_alarms: float


def lip_onsets(
    picture: Picture, sounds_ms: np.ndarray, busy_ms: float, window_ms: float, neighbour_ms: float = 400.0
) -> LipOnsets:
    """Finds the first frame in which the mouth has left every resting position it was seen in.

    A living portrait sways and breathes, so a frame is compared with all frames of rest and the nearest one counts: the
    one of the same idle phase. How near a resting frame comes to other resting frames, its own neighbours in time left
    out, is the noise, and the threshold lies above it.

    Args:
        picture: frames with the mouth's region in their grids.
        sounds_ms: (k,) when each sound began at the microphone.
        busy_ms: how long after a sound's onset the mouth may still be moving or easing shut.
        window_ms: within this time of the onset the mouth must have answered.
        neighbour_ms: frames nearer in time than this are no independent witnesses of rest.

    Raises:
        Unmeasurable: too few resting frames to know the noise.
    """
    grids = picture.pixels.reshape(len(picture), -1).astype(np.float32)
    at = picture.display_ms
    last = np.searchsorted(sounds_ms, at, "right") - 1
    since = np.where(last >= 0, at - sounds_ms[np.maximum(last, 0)], np.inf)
    resting = since > busy_ms
    if resting.sum() < 100:
        raise Unmeasurable(f"only {int(resting.sum())} frames of a resting mouth: too few to tell movement from idling")
    distance = _distance_to_rest(grids, at, resting, neighbour_ms)
    noise = distance[resting]
    spread = np.median(np.abs(noise - np.median(noise)))
    threshold = float(max(np.percentile(noise, 99.5), np.median(noise) + 6 * spread))
    beyond = distance > threshold
    # Several frames in a row: a mouth that speaks stays away from rest, a badly coded picture does not.
    moving = np.convolve(beyond, np.ones(MOVING_FRAMES))[MOVING_FRAMES - 1 :] == MOVING_FRAMES
    delays, frames, moved = [], [], []
    for sound_ms in sounds_ms:
        answer = np.flatnonzero(moving & (at >= sound_ms) & (at < sound_ms + window_ms))
        during = (at >= sound_ms) & (at < sound_ms + busy_ms)
        moved.append(float(np.percentile(distance[during], 75)) / threshold if during.any() else 0.0)
        frames.append(answer[0] if len(answer) else -1)
        delays.append(at[answer[0]] - sound_ms if len(answer) else window_ms)
    return LipOnsets(
        delays_ms=np.array(delays),
        frames=np.array(frames),
        missed=frames.count(-1),
        threshold=threshold,
        moved=np.array(moved),
        false_alarms=float(moving[resting].mean()),
    )


def answers(heard_ms: np.ndarray, asked_ms: np.ndarray, window_ms: float) -> np.ndarray:
    """Time from each question (k,) to the first thing heard after it; the whole window where that is longer."""
    first = np.searchsorted(heard_ms, asked_ms)
    return np.minimum(np.append(heard_ms, np.inf)[first] - asked_ms, window_ms)


def _distance_to_rest(grids: np.ndarray, at: np.ndarray, resting: np.ndarray, neighbour_ms: float) -> np.ndarray:
    """(n,) root mean square grey difference of each frame (n, d) to the nearest resting one that is no neighbour."""
    rest, rest_at = grids[resting], at[resting]
    norms = np.einsum("nd,nd->n", rest, rest)
    nearest = np.empty(len(grids))
    for first in range(0, len(grids), 256):
        part = slice(first, first + 256)
        squared = np.einsum("nd,nd->n", grids[part], grids[part])[:, None] + norms - 2 * grids[part] @ rest.T
        squared[np.abs(at[part, None] - rest_at) < neighbour_ms] = np.inf
        nearest[part] = np.sqrt(np.maximum(squared.min(1), 0) / grids.shape[1])
    return nearest


def freezes_seen(picture: Picture, until_ms: float) -> int:
    """How often the picture stood still for longer than ``FREEZE_GAP_MS``, up to the end of the watched time.

    Gaps in which the page itself missed frames do not count; a stream that just ends does.
    """
    shown = np.append(picture.display_ms, until_ms)
    missed_by_page = np.append(np.diff(picture.count) > 1, False)
    return int(((np.diff(shown) > FREEZE_GAP_MS) & ~missed_by_page).sum())


@dataclass(frozen=True, slots=True)
class Skew:
    """How much later the sound of a beat was heard than its flash was seen.

    Attributes:
        at_ms: (k,) when each flash was shown.
        skew_ms: (k,) positive when the sound is late.
        flashes: beats that were seen, heard or not.
    """

    at_ms: np.ndarray
    skew_ms: np.ndarray
    flashes: int

    @property
    def median_ms(self) -> float:
        """The middle of all beats."""
        return float(np.median(self.skew_ms))

    def drift_ms(self, span_ms: float) -> float:
        """Median of the last span less median of the first one."""
        first = self.skew_ms[self.at_ms <= self.at_ms[0] + span_ms]
        last = self.skew_ms[self.at_ms >= self.at_ms[-1] - span_ms]
        return float(np.median(last) - np.median(first))


SKEW_LIMIT_MS = 4000.0


def skew(flashes_ms: np.ndarray, beeps_ms: np.ndarray, tolerance_ms: float = 200.0) -> Skew:
    """Pairs flashes with beeps and measures the distance.

    Beats are unevenly spaced, so only one shift makes them fit; the shift with the most pairs is taken, the smallest
    among equals. Whole seconds of skew are therefore found as such.

    Raises:
        Unmeasurable: fewer than five beats could be paired.
    """
    if len(flashes_ms) < 5 or len(beeps_ms) < 5:
        raise Unmeasurable(f"{len(flashes_ms)} flashes and {len(beeps_ms)} beeps are too few")
    differences = (beeps_ms[None] - flashes_ms[:, None]).ravel()
    candidates = differences[np.abs(differences) <= SKEW_LIMIT_MS]
    if not len(candidates):
        raise Unmeasurable("no beep came within four seconds of a flash")
    support = (np.abs(candidates[:, None] - candidates) <= tolerance_ms / 2).sum(1)
    best = support >= support.max() - 0.15 * len(flashes_ms)
    shift = candidates[best][np.argmin(np.abs(candidates[best]))]
    nearest = np.abs(beeps_ms[None] - flashes_ms[:, None] - shift).argmin(1)
    apart = beeps_ms[nearest] - flashes_ms
    paired = np.abs(apart - shift) <= tolerance_ms
    if paired.sum() < 5:
        raise Unmeasurable(f"only {int(paired.sum())} beats could be paired")
    return Skew(flashes_ms[paired], apart[paired], len(flashes_ms))
