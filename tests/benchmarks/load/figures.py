"""From headers of RTP packets to what a viewer would have seen: pictures, their lateness, freezes, losses.

Place in the flow: crowd_process (columns of headers) -> here -> ramp. Pure functions of arrays;
``test_load_figures.py`` holds each to streams whose answer is known.

Invariants: a picture counts when its last packet is there and none of its packets is missing; a picture that never
came is never left out of a rate, because rates are counted over the time watched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

VIDEO_RATE = 90_000
AUDIO_RATE = 48_000
FRAME_S = 0.04
FREEZE_FRAMES = 30
"""Chromium's mean of the time between pictures goes over so many."""


@dataclass(frozen=True, slots=True)
class Packets:
    """Headers of one RTP stream, in the order of their arrival.

    Attributes:
        sequence: (n,) 16-bit sequence numbers.
        timestamp: (n,) 32-bit time stamps.
        marker: (n,) last packet of its picture.
        times_ns: (n,) arrival.
    """

    sequence: np.ndarray
    timestamp: np.ndarray
    marker: np.ndarray
    times_ns: np.ndarray

    def __len__(self) -> int:
        return len(self.sequence)


@dataclass(frozen=True, slots=True)
class Units:
    """Complete pictures, or packets of sound, in the order of their time stamps.

    Attributes:
        media: (n,) position in the stream, clock units, unwrapped.
        times_ns: (n,) when the last packet came.
        lost: packets that never came.
        reordered: packets that came after a later one.
    """

    media: np.ndarray
    times_ns: np.ndarray
    lost: int
    reordered: int

    def __len__(self) -> int:
        return len(self.media)


def unwrap(values: np.ndarray, bits: int) -> np.ndarray:
    """Counters that run over, made to go on: (n,) int64, each nearest to the one before."""
    values = values.astype(np.int64)
    if not len(values):
        return values
    span = 1 << bits
    steps = (np.diff(values) + span // 2) % span - span // 2
    return np.concatenate([values[:1], values[0] + np.cumsum(steps)])


def units(packets: Packets) -> Units:
    """Puts packets together to pictures; with every marker set, each packet is one unit."""
    sequence = unwrap(packets.sequence, 16)
    if not len(sequence):
        return Units(sequence, sequence, 0, 0)
    reordered = int((sequence < np.maximum.accumulate(sequence)).sum())
    order = np.unique(sequence, return_index=True)[1]
    sequence = sequence[order]
    media = unwrap(packets.timestamp[order], 32)
    marker, times = packets.marker[order].astype(bool), packets.times_ns[order]
    lost = int(sequence[-1] - sequence[0] + 1 - len(sequence))
    begins = np.concatenate([[0], np.flatnonzero(np.diff(media)) + 1])
    ends = np.concatenate([begins[1:], [len(media)]])
    gaps = np.concatenate([[0], np.cumsum(np.diff(sequence) != 1)])
    # Whole: no gap inside, none before (the missing packet may have been its first), and its last packet is the last.
    before = gaps[np.maximum(begins - 1, 0)]
    whole = (gaps[ends - 1] == before) & marker[ends - 1]
    arrived = np.maximum.reduceat(times, begins)
    return Units(media[begins][whole], arrived[whole], lost, reordered)


def between(watched: Units, start_ns: int, end_ns: int) -> Units:
    """The units that came within a time; losses stay those of the whole."""
    inside = (watched.times_ns >= start_ns) & (watched.times_ns < end_ns)
    return Units(watched.media[inside], watched.times_ns[inside], watched.lost, watched.reordered)


def transit_ms(watched: Units, rate: int) -> np.ndarray:
    """(n,) arrival less position in the stream, milliseconds: lateness plus a constant of the stream."""
    return watched.times_ns / 1e6 - watched.media * (1000 / rate)


def freezes(times_ns: np.ndarray, start_ns: int, end_ns: int) -> tuple[int, float]:
    """How often and how long the picture stood still, by Chromium's definition, beginning and end included.

    A freeze is a time between pictures of at least max(3 δ, δ + 150 ms), δ the mean of the thirty before it.

    Returns:
        Their number, and the longest time without a new picture in milliseconds.
    """
    edges_ms = np.concatenate([[start_ns], np.sort(times_ns), [end_ns]]) / 1e6
    gaps = np.diff(edges_ms)
    usual = np.concatenate([np.full(FREEZE_FRAMES, FRAME_S * 1000), np.minimum(gaps, 1000)])
    sums = np.concatenate([[0.0], np.cumsum(usual)])
    mean = (sums[FREEZE_FRAMES:-1] - sums[: -FREEZE_FRAMES - 1]) / FREEZE_FRAMES
    frozen = gaps >= np.maximum(3 * mean, mean + 150)
    return int(frozen.sum()), float(gaps.max())


def late_ms(whole: Units, watched: Units, rate: int) -> np.ndarray:
    """(n,) lateness of the watched units against the earliest of all that are known, milliseconds."""
    if not len(whole):
        return np.zeros(0)
    return transit_ms(watched, rate) - transit_ms(whole, rate).min()


def age_ms(watched: Units, due: tuple[float, int] | None, rate: int) -> float | None:
    """Median time from when the server was to send a unit, by its sender report, to its arrival, milliseconds.

    Args:
        watched: the units; their time stamps began as the stream's own.
        due: (Unix seconds, RTP time stamp) of a sender report, on this machine's clock; None when none came.
        rate: clock units a second.
    """
    if due is None or not len(watched):
        return None
    at_s, stamp = due
    ahead = (watched.media - stamp + (1 << 31)) % (1 << 32) - (1 << 31)
    unix_s = watched.times_ns / 1e9 + (time.time() - time.monotonic())
    return round(float(np.median(unix_s - (at_s + ahead / rate))) * 1000, 1)
