"""Runs an ONNX network on the CPU, by OpenVINO.

Place in the flow: files of a voice conversion -> ``OnnxNetwork``, a ``Network`` -> ``so_vits``.

Invariant: every calling thread has an infer request of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov

from engine.conversation.voice.network import unreadable


class OnnxNetwork:
    """A compiled network; see ``Network``."""

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
            raise unreadable(path) from error
        self.inputs = [port.get_any_name() for port in self._compiled.inputs]
        self._local = threading.local()

    def shape_of(self, name: str) -> list[int | None]:
        """See ``Network.shape_of``."""
        shape = self._compiled.input(name).get_partial_shape()
        return [None if size.is_dynamic else size.get_length() for size in shape]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """See ``Network.__call__``."""
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
            raise unreadable(self._path) from error
