"""Runs an ONNX network whose inputs have names and any length, from any number of threads.

Place in the flow: files of a voice conversion -> ``OnnxNetwork`` -> ``so_vits``.

Invariant: every calling thread has an infer request of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov

from engine.errors import WeightsInvalid


class OnnxNetwork:
    """A compiled network.

    Attributes:
        inputs: their names, in order.
    """

    def __init__(self, path: Path) -> None:
        """Compiles a network for the CPU.

        Raises:
            WeightsInvalid: ``weights_unreadable``.
        """
        self._path = path
        # A voice is one sound after the other: all cores work for one call.
        settings = {
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": os.cpu_count() or 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._compiled = ov.Core().compile_model(path, "CPU", settings)
        except RuntimeError as error:
            raise self._unreadable() from error
        self.inputs = [port.get_any_name() for port in self._compiled.inputs]
        self._local = threading.local()

    def shape_of(self, name: str) -> list[int | None]:
        """Shape of an input, None where any length will do."""
        shape = self._compiled.input(name).get_partial_shape()
        return [None if size.is_dynamic else size.get_length() for size in shape]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Runs the network.

        Args:
            inputs: all inputs by name; numbers are turned into the type the network takes.

        Returns:
            Its first output.

        Raises:
            WeightsInvalid: ``weights_unreadable``: it cannot be run on such inputs.
        """
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        typed = {
            port.get_any_name(): np.ascontiguousarray(inputs[port.get_any_name()], port.get_element_type().to_dtype())
            for port in self._compiled.inputs
        }
        try:
            return np.array(request.infer(typed)[0], np.float32)
        except RuntimeError as error:
            raise self._unreadable() from error

    def _unreadable(self) -> WeightsInvalid:
        return WeightsInvalid(
            "weights_unreadable", f"{self._path.name} in {self._path.parent.name} cannot be run; export it again."
        )
