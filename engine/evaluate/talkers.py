"""Real talkers: the sound of their videos, and how far their lips were really apart in each frame.

Place in the flow: videos + ``talkers.json`` -> (sound, measured opening) -> ``measures.sync``.

The openings were measured once, with MediaPipe's face mesh, and are kept beside this module, so that evaluating
needs no face tracker; ``talkers.json`` says how and names the corpus.

Invariant: opening i belongs to the video frame that is shown from 40 i ms on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from engine.audio.pcm import to_playout

_MEASURED = Path(__file__).with_name("talkers.json")


@dataclass(frozen=True, slots=True)
class Talker:
    """One video of one person.

    Attributes:
        name: ``corpus/clip``.
        samples: (N,) int16 mono at 48 kHz.
        opening: (F,) float32, inner lip distance per eye distance.
    """

    name: str
    samples: np.ndarray
    opening: np.ndarray


def load_talkers(faces: Path) -> list[Talker]:
    """The measured talkers whose videos are there.

    Args:
        faces: folder with ``grid/*.mpg`` and ``grid_s1/*.mpg``.
    """
    openings = json.loads(_MEASURED.read_text("utf-8"))["openings"]
    return [
        Talker(name, sound_of(path), np.array(values, np.float32))
        for name, values in openings.items()
        if (path := faces / f"{name}.mpg").exists()
    ]


def sound_of(video: Path) -> np.ndarray:
    """The first sound stream of a video as (N,) int16 mono at 48 kHz, in time with its pictures."""
    with av.open(str(video)) as container:
        blocks = [
            frame.to_ndarray().T if frame.format.is_planar else frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
            for frame in container.decode(audio=0)
        ]
        rate = container.streams.audio[0].rate
    return to_playout(np.concatenate(blocks), rate)
