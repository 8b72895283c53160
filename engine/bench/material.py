"""What a lip-sync network is measured and calibrated with: faces, and windows of speech.

Place in the flow: gather.py -> ``Material`` -> worker processes, int8 calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Material:
    """Faces and sounds, row by row.

    Attributes:
        faces: (N, 6, S, S) float32, what a Wav2Lip network sees; (0, ...) for the built-in model.
        mels: (N, 80, columns) float32, what the model hears.
        avatar: folder of the avatar the built-in model speaks with; empty for Wav2Lip.
    """

    faces: np.ndarray
    mels: np.ndarray
    avatar: str = ""

    def save(self, path: Path) -> None:
        """Writes an ``.npz`` file."""
        np.savez(path, faces=self.faces, mels=self.mels, avatar=self.avatar)

    @classmethod
    def load(cls, path: Path) -> Material:
        """Reads what ``save`` wrote."""
        with np.load(path) as file:
            return cls(file["faces"], file["mels"], str(file["avatar"]))

    def some(self, count: int) -> Material:
        """``count`` rows spread evenly over all."""
        rows = np.linspace(0, len(self.mels) - 1, min(count, len(self.mels))).astype(int)
        return Material(self.faces[rows] if len(self.faces) else self.faces, self.mels[rows], self.avatar)
