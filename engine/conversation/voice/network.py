"""What a network of a voice conversion is to the conversion, whatever computes it.

Place in the flow: files of a voice conversion -> ``Network`` -> ``so_vits``.

Invariant: any number of threads may call a network at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.errors import WeightsInvalid


class Network(Protocol):
    """A network whose inputs have names and any length.

    Attributes:
        inputs: their names, in order.
    """

    inputs: list[str]

    def shape_of(self, name: str) -> list[int | None]:
        """Shape of an input, None where any length will do."""
        ...

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Runs the network.

        Args:
            inputs: all inputs by name; numbers are turned into the type the network takes.

        Returns:
            Its first output, float32.

        Raises:
            WeightsInvalid: ``weights_unreadable``: it cannot be run on such inputs.
            BackendFailed: ``voice_gpu_failed``: what it runs on failed.
        """
        ...


def unreadable(path: Path) -> WeightsInvalid:
    """What to raise where a network's file is at fault."""
    return WeightsInvalid("weights_unreadable", f"{path.name} in {path.parent.name} cannot be run; export it again.")
