"""What runs a restorer's network: aligned faces in, the wanted part of the restored faces out.

Place in the flow: ``GfpganRestorer`` -> Enhancer (torch or OpenVINO) -> ``GfpganRestorer``.

Invariants:
    * pictures are BGR bytes on both sides; the network's RGB in [-1, 1] is nobody else's business;
    * ``enhance`` may be called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engine.restore.window import Window


class Enhancer(Protocol):
    """A loaded network."""

    @property
    def size(self) -> int:
        """Side of the aligned face, pixels."""
        ...

    @property
    def batch(self) -> int:
        """How many faces at a time it is quickest with."""
        ...

    def enhance(self, faces: np.ndarray, window: Window) -> np.ndarray:
        """Restores faces.

        Args:
            faces: (B, size, size, 3) uint8 BGR, aligned.
            window: which rectangle of each is wanted.

        Returns:
            (B, window.height, window.width, 3) uint8 BGR.

        Raises:
            BackendFailed: the device failed.
        """
        ...

    def warmup(self, batch_sizes: Sequence[int], windows: Sequence[Window]) -> None:
        """Makes the first real call as fast as every other one."""
        ...
