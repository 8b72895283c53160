"""What the measuring page wrote down, as arrays: the sound it heard and the pictures it saw.

Place in the flow: page/recorders.js -> base64 -> Sound, Picture -> analysis.

Invariants: all times are milliseconds on the page's ``performance.now()`` scale, sound and picture alike.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK_MS = 2.0
"""Length of one loudness value; the page's ``BLOCK_MS``."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Loudness of a track over time.

    Attributes:
        times_ms: (n,) float64 start of each block; a lost piece of sound leaves a gap.
        levels: (n,) float32 root mean square of each block, full scale 1.
    """

    times_ms: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True, slots=True)
class Region:
    """The part of a picture the page looks at, and the grid of grey values it is reduced to.

    Attributes:
        x: left edge, as a fraction of the picture's width; ``y``, ``width``, ``height`` likewise.
        columns: grey values across.
        rows: grey values down.
    """

    x: float
    y: float
    width: float
    height: float
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Picture:
    """Frames as they were presented.

    Attributes:
        display_ms: (n,) when the browser expected each frame to be visible.
        received_ms: (n,) when the frame's last packet had come, NaN where the browser does not tell.
        rtp: (n,) RTP time stamp, 90 kHz, NaN likewise.
        count: (n,) the browser's running number of presented frames: a step of more than one is a frame that the page
            was too slow to look at, not one that was missing.
        pixels: (n, rows, columns) uint8 grey.
    """

    display_ms: np.ndarray
    received_ms: np.ndarray
    rtp: np.ndarray
    count: np.ndarray
    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.display_ms)


def read_sound(taken: Mapping[str, str]) -> Sound:
    """Unpacks what ``Ear.take`` returned."""
    times = np.frombuffer(base64.b64decode(taken["times"]), np.float64)
    levels = np.frombuffer(base64.b64decode(taken["levels"]), np.float32)
    order = np.argsort(times, kind="stable")
    return Sound(times[order], levels[order])


def read_picture(taken: Mapping[str, Any], region: Region) -> Picture:
    """Unpacks what ``Eye.take`` returned."""
    fields = list(taken["fields"])
    table = np.frombuffer(base64.b64decode(taken["frames"]), np.float64).reshape(-1, len(fields))
    pixels = np.frombuffer(base64.b64decode(taken["pixels"]), np.uint8).reshape(-1, region.rows, region.columns)
    column = {name: table[:, at] for at, name in enumerate(fields)}
    return Picture(
        display_ms=column["expectedDisplayTime"],
        received_ms=column["receiveTime"],
        rtp=column["rtpTimestamp"],
        count=column["presentedFrames"],
        pixels=pixels,
    )
