"""The machine-readable frame: a strip of blocks that spells its number, and the beats on which it flashes and beeps.

Place in the flow: frame number -> probe_server.py (writes it) -> WebRTC -> page -> here (reads it).

Invariants: the page's calibration.js and pattern.js write the same strip and the same beats.
"""

from __future__ import annotations

import numpy as np

from engine.types import FRAME_SAMPLES, PLAYOUT_RATE
from tests.benchmarks.recording import Region

CELLS = 32
"""Blocks across the picture: one white, one black, then the bits of the frame number, lowest first."""
BITS = CELLS - 2
STRIP_SHARE = 1 / 16
"""Height of the strip, as a share of the picture's height."""

FLASH_SHARE = 1 / 8
"""Side of the square that flashes, likewise."""

BEEP_HZ = 1000
BEEP_LEVEL = 0.5
CYCLE_FRAMES = 127
BEATS = frozenset({0, 26, 51, 82, 101})

STRIP_REGION = Region(x=0, y=STRIP_SHARE / 4, width=1, height=STRIP_SHARE / 2, columns=CELLS * 4, rows=1)
"""Where the page looks: the middle of the strip, four grey values to a block."""


def is_beat(number: int) -> bool:
    """Whether a frame flashes and beeps; unevenly spaced, so that whole seconds of skew cannot hide."""
    return number % CYCLE_FRAMES in BEATS


def stamp(image: np.ndarray, number: int) -> np.ndarray:
    """A copy of a picture with its number on it, and on a beat a white square below the strip.

    The square is small on purpose: a whole white picture is a scene cut, which costs the encoder and the network more
    than the pictures that are sent otherwise, and comes late for it.

    Args:
        image: (H, W, 3) uint8; W is at least ``CELLS``.
        number: what to write, modulo 2 ** ``BITS``.
    """
    height, width = image.shape[:2]
    marked = image.copy()
    bits = [1, 0, *((number >> bit) & 1 for bit in range(BITS))]
    top, side = int(height * STRIP_SHARE), int(height * FLASH_SHARE)
    marked[top : top + side, :side] = 255 * is_beat(number)
    edges = np.linspace(0, width, CELLS + 1).round().astype(int)
    for bit, first, end in zip(bits, edges[:-1], edges[1:], strict=True):
        marked[:top, first:end] = 255 * bit
    return marked


def beep() -> np.ndarray:
    """A frame's worth of tone: (1920,) int16."""
    tone = np.sin(2 * np.pi * BEEP_HZ / PLAYOUT_RATE * np.arange(FRAME_SAMPLES))
    return (BEEP_LEVEL * 32767 * tone).astype(np.int16)


def read_numbers(grids: np.ndarray) -> np.ndarray:
    """Frame numbers out of what the page saw.

    Args:
        grids: (n, 1, CELLS * 4) uint8, from ``STRIP_REGION``.

    Returns:
        (n,) int64; -1 where the strip could not be read beyond doubt.
    """
    # The two middle values of each block: the outer ones mix with the neighbour.
    cells = grids.reshape(len(grids), CELLS, 4)[:, :, 1:3].mean(2)
    white, black = cells[:, :1], cells[:, 1:2]
    place = (cells[:, 2:] - black) / np.maximum(white - black, 1)
    doubtful = ((place > 0.3) & (place < 0.7)).any(1) | (white - black < 60)[:, 0]
    numbers = ((place > 0.5) * (1 << np.arange(BITS, dtype=np.int64))).sum(1)
    return np.where(doubtful, -1, numbers)
