"""Tells which microphone sound is nothing but the avatar's own voice, come back from the loudspeaker.

Place in the flow: frames as they are heard, microphone sound -> ``EchoGuard`` -> ear, which takes echo for silence.

Browsers cancel echoes, but not all do it well, and not every client is a browser. This is the second line: it changes
no sound, it only compares energies in 20 bands, 62 times a second, so resampled, jittered and distorted echoes count:

1. *When.* Both sounds, as levels above their own means, are correlated at delays up to 0.9 s. The delay at which they
   agree clearly is that of network, loudspeaker and room together. Where none does, there is no echo (headphones), and
   nothing is explained.
2. *How loud.* At that delay the level of the echo over that of the avatar is learnt, band by band.
3. *Anything else?* What was played, fading as rooms do, foretells the most an echo can be. Sound that exceeds it by
   10 dB in more than a few bands has somebody else in it, and is not explained, however loud the echo is beside it.

Invariants:
    * pure: time is counted in samples, of both sounds; a gap in the microphone's is noticed, and the delay found anew;
    * while nothing was played for a second, nothing is explained;
    * a bounded memory of 4 s of levels, no sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.types import ANALYSIS_RATE

BLOCK_SAMPLES = 512
"""Sound one answer is about, at 16 kHz; that of one probability of speech."""

_HOP = BLOCK_SAMPLES // 2
_BANDS = 20
_LOWEST_HZ, _HIGHEST_HZ = 150.0, 6500.0
_QUIET_DB = -90.0
# What was played below this does not come back audibly, dB of full scale.
_AUDIBLE_DB = -62.0
_PAST_HOPS = 256
# Delays that are tried, hops; negative ones because the first samples of the microphone may have come late.
_SHORTEST, _LONGEST = -12, 56
_LAGS = np.arange(_SHORTEST, _LONGEST + 1)
# Means and sums of about a second.
_MEAN_SHARE = 0.027
_KEEP = 0.985
_MOST_LEVEL_DB = 15.0
# Keeps the correlation of next to nothing small.
_LEAST_POWER = 500.0 * _BANDS
# Correlations at which an echo is found: later, in the first moments, where it was before; lost; and certain.
_FOUND, _FOUND_SOON, _FOUND_AGAIN, _LOST, _CERTAIN = 0.5, 0.65, 0.4, 0.33, 0.6
# Somebody else's sound happens to resemble what is played; right at the beginning this much counts all the same.
_LIKELY = 0.45
# Hops of sound until an echo can be found at all, until it can easily, and where there was none at first; and hops of
# the avatar's first sound in which it is open whether there is one.
_FIRST_HOPS, _SOON_HOPS, _LATER_HOPS, _UNDECIDED_HOPS = 10, 20, 26, 60
# A voice that begins resembles any other that does, at many delays; an echo is like what was played at one.
_CLEARLY, _NEAR = 0.1, 5
# How fast sound fades in a room, per hop.
_FADE_DB = 2.0
# How gains are learnt: from the hops before the echo was found, then in steps, shares of what they are off; where it
# is doubtful that all of it is echo, in small ones.
_GAIN_HOPS = 40
_GAIN_PERCENTILE = 65
_GAIN_UP, _GAIN_DOWN, _GAIN_STEP_DB = 0.06, 0.03, 12.0
_DOUBTFUL = 0.2
# The noise of the room is the lowest of levels that are a little steadied, and may rise by a decibel a second.
_ABOVE_NOISE_DB = 6.0
_STEADY_SHARE = 0.4
_NOISE_RISE_DB = 0.012
# What is more than an echo: how far above, in which share of the bands, over how many hops; and how long whoever has
# spoken for a moment is taken to go on.
_EXCESS_DB = 10.0
_MOST_EXCEEDED = 0.08
_JUDGED_HOPS = 4
_SPEAKING_BLOCKS, _HELD_BLOCKS = 3, 5


class _Levels:
    """Band levels of one sound and its past: the newest is the last row."""

    def __init__(self) -> None:
        self.hops = 0
        self._rest = np.zeros(BLOCK_SAMPLES - _HOP, np.float32)
        self._mean = np.full(_BANDS, _QUIET_DB, np.float32)
        self._store = np.full((3, 2 * _PAST_HOPS, _BANDS), _QUIET_DB, np.float32)
        self._store[1] = 0
        self._end = _PAST_HOPS

    def push(self, samples: np.ndarray) -> int:
        """Takes (n,) float32 at 16 kHz; returns how many rows it made."""
        sound = np.concatenate([self._rest, np.clip(np.nan_to_num(samples), -1.0, 1.0)])
        count = max(0, (len(sound) - BLOCK_SAMPLES) // _HOP + 1)
        self._rest = sound[count * _HOP :].copy()
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(sound, BLOCK_SAMPLES)[::_HOP][:count] * _WINDOW
            for row in 10 * np.log10(np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ _TO_BANDS + 1e-9):
                self._append(row.astype(np.float32))
        return count

    def _append(self, row: np.ndarray) -> None:
        if self._end == self._store.shape[1]:
            self._store[:, :_PAST_HOPS] = self._store[:, _PAST_HOPS:]
            self._end = _PAST_HOPS
        self._mean += (row - self._mean) * (_MEAN_SHARE if self.hops else 1.0)
        level, relative, fading = self._store
        level[self._end] = row
        relative[self._end] = np.clip(row - self._mean, -_MOST_LEVEL_DB, _MOST_LEVEL_DB) if row.max() > -65 else 0
        fading[self._end] = np.maximum(row, fading[self._end - 1] - _FADE_DB)
        self._end += 1
        self.hops += 1

    def _past(self, kind: int, count: int, before: int) -> np.ndarray:
        end = self._end - before
        return self._store[kind, max(0, end - count) : end]

    def level(self, count: int, before: int = 0) -> np.ndarray:
        """(count, 20) levels, dB, the last of them ``before`` rows before the newest."""
        return self._past(0, count, before)

    def relative(self, count: int, before: int = 0) -> np.ndarray:
        """The same above the mean of the last second, at most 15 dB from it; 0 where there is no sound."""
        return self._past(1, count, before)

    def fading(self, count: int, before: int = 0) -> np.ndarray:
        """The same as it fades in a room, dB."""
        return self._past(2, count, before)


@dataclass(slots=True)
class _Path:
    """How the avatar's voice comes back: so many hops later, and in each band by so much louder, dB."""

    lag: int
    gain: np.ndarray


class EchoGuard:
    """The guard of one microphone against one avatar."""

    def __init__(self) -> None:
        self._played = _Levels()
        self._heard = _Levels()
        self._blocks_rest = 0
        self._skew: int | None = None
        self._noise = np.zeros(_BANDS, np.float32)
        self._steady = np.zeros(_BANDS, np.float32)
        self._products = np.zeros(len(_LAGS))
        self._powers = np.zeros(len(_LAGS))
        self._own_power = 0.0
        self._compared = 0
        self._evidence = 0.0
        self._path: _Path | None = None
        self._lost: _Path | None = None
        self._exceeded: list[float] = []
        self._others = self._held = 0

    @property
    def delay_s(self) -> float | None:
        """How much later than it was played the avatar's voice is heard, seconds; None where it is not heard."""
        return None if self._path is None else self._path.lag * _HOP / ANALYSIS_RATE

    def played(self, samples: np.ndarray) -> None:
        """Takes what people hear of the avatar, silence too: (n,) float32 at 16 kHz, any n."""
        self._played.push(samples)

    def heard(self, samples: np.ndarray) -> list[bool]:
        """Takes microphone sound, (n,) float32 at 16 kHz, any n.

        Returns:
            For each block of 512 samples that is complete by now: whether it is nothing but echo.
        """
        answers = []
        # Block by block, so that levels are still there when they are compared.
        for start in range(0, len(samples), BLOCK_SAMPLES):
            piece = samples[start : start + BLOCK_SAMPLES]
            for age in reversed(range(self._heard.push(piece))):
                self._follow(age)
            self._blocks_rest += len(piece)
            if self._blocks_rest >= BLOCK_SAMPLES:
                self._blocks_rest -= BLOCK_SAMPLES
                answers.append(self._explained())
        return answers

    def forget_heard(self) -> None:
        """The microphone's sound ends here, and goes on later or elsewhere."""
        self._heard = _Levels()
        self._blocks_rest = 0
        self._start_anew()

    def _start_anew(self) -> None:
        self._skew = None
        self._products[:] = self._powers[:] = 0
        self._own_power = self._evidence = 0.0
        self._exceeded.clear()

    def _explained(self) -> bool:
        judged = self._exceeded
        if not judged:
            return False
        other = sum(judged) > _MOST_EXCEEDED * len(judged)
        self._others = self._others + 1 if other else 0
        # Whoever has begun to speak goes on in syllables, and not every one is louder than the echo.
        self._held = _HELD_BLOCKS if self._others >= _SPEAKING_BLOCKS else self._held - 1
        return not other and self._held <= 0

    def _follow(self, age: int) -> None:
        """Takes one hop of the microphone, ``age`` hops before the newest."""
        skew = self._played.hops - (self._heard.hops - age)
        if self._skew is None or abs(skew - self._skew) > -_SHORTEST:
            self._start_anew()
            self._skew = skew
            self._noise = self._heard.level(1, age)[0].copy()
            self._steady = self._noise.copy()
        self._steady += (self._heard.level(1, age)[0] - self._steady) * _STEADY_SHARE
        self._noise = np.minimum(self._noise + _NOISE_RISE_DB, self._steady)
        # Row of the played sound at lag 0, counted back from its newest.
        now = skew - self._skew
        exceeded = self._judge(now, age) if self._compare(now, age) else None
        if exceeded is None:
            self._exceeded.clear()
        else:
            self._exceeded = [*self._exceeded[1 - _JUDGED_HOPS :], exceeded]

    def _compare(self, now: int, age: int) -> bool:
        """Correlates; returns whether anything was played that could be heard now."""
        own = self._heard.relative(1, age)[0]
        # Lags that would need sound that is still to be played have none.
        future = max(0, -(now + _SHORTEST))
        rows = self._played.relative(len(_LAGS) - future, now + _SHORTEST + future)[::-1]
        if not rows.any():
            return False
        self._compared += 1
        # Where the microphone is silent a canceller may be at work, which is no sign of anything.
        if float((self._heard.level(1, age)[0] - self._noise).mean()) < _ABOVE_NOISE_DB:
            return True
        self._products *= _KEEP
        self._powers *= _KEEP
        self._products[future:] += rows @ own
        self._powers[future:] += np.einsum("ij,ij->i", rows, rows)
        self._own_power = self._own_power * _KEEP + float(own @ own)
        self._evidence = self._evidence * _KEEP + 1
        return True

    def _judge(self, now: int, age: int) -> float | None:
        """How much of this hop is more than echo, as a share of its bands; None where there is no echo."""
        scores = self._products / np.sqrt(self._own_power * self._powers + _LEAST_POWER)
        best = int(scores.argmax())
        self._find(int(_LAGS[best]), float(scores[best]), scores, now, age)
        path = self._path
        if path is None:
            undecided = self._evidence >= _FIRST_HOPS and self._compared <= _UNDECIDED_HOPS and self._lost is None
            before = max(0, now + int(_LAGS[best]))
            played = bool((self._played.fading(1, before) > _AUDIBLE_DB).any())
            return 0.0 if undecided and played and scores[best] > _LIKELY else None
        before = now + path.lag
        if before < 1:
            return None
        # An echo may come a hop earlier or later than its delay says.
        played = self._played.fading(3, before - 1).max(axis=0)
        audible = played > _AUDIBLE_DB
        if not audible.any():
            return None
        level = self._heard.level(1, age)[0]
        difference = level - played
        sounding = level > self._noise + _ABOVE_NOISE_DB
        excess = level - np.maximum(played + path.gain, self._noise) > _EXCESS_DB
        exceeded = np.count_nonzero(excess & sounding) / max(1, int(np.count_nonzero(sounding)))
        # Somebody else's sound is little to learn from, and only where it is plainly a louder echo.
        if exceeded <= _MOST_EXCEEDED or scores[best] > _CERTAIN:
            rate = np.where(difference > path.gain, _GAIN_UP, _GAIN_DOWN)
            rate = rate if exceeded <= _MOST_EXCEEDED else rate * _DOUBTFUL
            step = np.clip(difference - path.gain, -_GAIN_STEP_DB, _GAIN_STEP_DB) * rate
            path.gain = np.where(audible, path.gain + step, path.gain)
        return exceeded

    def _find(self, lag: int, score: float, scores: np.ndarray, now: int, age: int) -> None:
        """Finds and loses the way of the echo."""
        if self._path is not None and scores[self._path.lag - _SHORTEST] < _LOST:
            self._lost, self._path = self._path, None
        # Where nothing came back at first, it takes more to believe that something does.
        enough = _FIRST_HOPS if self._compared <= _UNDECIDED_HOPS else _LATER_HOPS
        if self._evidence < enough or (self._path is not None and abs(lag - self._path.lag) <= 1):
            return
        least = _FOUND if self._evidence >= _SOON_HOPS else _FOUND_SOON
        if self._lost is not None and abs(lag - self._lost.lag) <= 2 and score > _FOUND_AGAIN:
            self._path, self._lost = _Path(lag, self._lost.gain), None
        elif score > least and score - _rival(scores, lag) > _CLEARLY and now + lag >= 0:
            self._path = _Path(lag, self._gain(now + lag, age))

    def _gain(self, before: int, age: int) -> np.ndarray:
        """The levels of the last half second over those that were played so long before."""
        played = self._played.fading(_GAIN_HOPS, before)
        heard = self._heard.level(_GAIN_HOPS, age)
        difference = np.where(played > _AUDIBLE_DB, heard - played, np.nan)
        known = ~np.isnan(difference).all(axis=0)
        gain = np.full(_BANDS, np.nanmedian(difference) if known.any() else 0.0, np.float32)
        if known.any():
            gain[known] = np.nanpercentile(difference[:, known], _GAIN_PERCENTILE, axis=0)
        return gain


def _rival(scores: np.ndarray, lag: int) -> float:
    """The best score of a delay that is plainly another."""
    at = lag - _SHORTEST
    return float(np.concatenate([[0.0], scores[: max(0, at - _NEAR)], scores[at + _NEAR + 1 :]]).max())


def _mel(frequency_hz: np.ndarray | float) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(frequency_hz) / 700)


def _to_bands() -> np.ndarray:
    """(257, 20): the power spectrum of a window -> mean powers of bands as wide as those of hearing."""
    lines = _mel(np.fft.rfftfreq(BLOCK_SAMPLES, 1 / ANALYSIS_RATE))
    edges = np.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), _BANDS + 1)
    inside = (lines[:, None] >= edges[:-1]) & (lines[:, None] < edges[1:])
    return (inside / np.maximum(1, inside.sum(axis=0)) / (_WINDOW**2).sum()).astype(np.float32)


_WINDOW = np.hanning(BLOCK_SAMPLES + 1)[:BLOCK_SAMPLES].astype(np.float32)
_TO_BANDS = _to_bands()
