"""The one interface between Wav2Lip's model class and the runtimes that compute its network.

Place in the flow: ``model.Wav2LipSync`` -> ``Speaker`` (OpenVINO on a CPU, torch on a GPU) -> strips.

Invariants:
    * both calls may come from several threads at once;
    * features are numbers of one picture and are good for every sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine.lipsync.openvino_runtime import Network, Precision
from engine.lipsync.wav2lip.folder import FACE_FILE, SPEAK_FILE

Features = tuple[Any, ...]
"""What a runtime keeps of a picture: arrays of its own kind."""


class Speaker(Protocol):
    """A runtime with a network loaded."""

    batches: bool
    """True when many jobs at once are cheaper than one after the other."""

    def encode_face(self, face: np.ndarray) -> Features:
        """Features of one face input, (1, 6, S, S) float32 in [0, 1]."""
        ...

    def speak(self, mels: np.ndarray, faces: Sequence[Features]) -> np.ndarray:
        """Strips to (B, 1, 80, 16) float32 mel windows and B faces: (B, rows, S, 3) uint8 BGR."""
        ...

    def warmup(self, mel: np.ndarray, face: Features, batch_sizes: Sequence[int]) -> None:
        """Runs the given batch sizes once."""
        ...


def bytes_of(features: Features) -> int:
    """Memory that features take."""
    return sum(int(feature.nbytes) for feature in features)


class OpenVinoSpeaker:
    """OpenVINO on the CPU: one picture at a time, one request per thread."""

    batches = False

    def __init__(self, folder: Path, speak: Path | None, threads: int, precision: Precision) -> None:
        """Compiles the networks.

        Args:
            folder: what ``export.derive`` returned.
            speak: another form of the speaking network, quantised say; the derived one when None.
            threads: threads of one picture.
            precision: arithmetic of everything that is not quantised.

        Raises:
            BackendFailed: a file is missing or damaged.
        """
        self._face = Network(folder / FACE_FILE, threads, precision, batch=1)
        self._speak = Network(speak or folder / SPEAK_FILE, threads, precision, batch=1)

    def encode_face(self, face: np.ndarray) -> Features:
        """See ``Speaker``: float16 arrays."""
        return tuple(feature.copy() for feature in self._face(face))

    def speak(self, mels: np.ndarray, faces: Sequence[Features]) -> np.ndarray:
        """See ``Speaker``."""
        if len(faces) == 1:
            return self._speak(mels, *faces[0])[0].copy()
        return np.concatenate([self.speak(mels[k : k + 1], [face]) for k, face in enumerate(faces)])

    def warmup(self, mel: np.ndarray, face: Features, batch_sizes: Sequence[int]) -> None:
        """One picture, whatever the sizes: they are drawn one by one."""
        self.speak(mel, [face])
