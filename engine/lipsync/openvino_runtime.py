"""Runs an OpenVINO network from any number of threads at once.

Place in the flow: model files of a lip-sync model -> ``Network`` -> its ``predict``.

Invariants:
    * every calling thread has an infer request of its own, so calls never wait for each other's buffers;
    * a small network may have a compiled form for each thread, and is then computed on that very thread: handing it to
      threads of the runtime and back costs more than half again on a busy machine;
    * precision is what was asked for, never what the runtime would choose for the machine.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Literal

import numpy as np
import openvino as ov

from engine.errors import BackendFailed

Precision = Literal["f32", "bf16"]

_MOST_STREAMS = 8


def has_bf16() -> bool:
    """True where the processor computes in bf16 itself; elsewhere it would be slower than f32."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class Network:
    """A compiled network."""

    def __init__(
        self, path: Path, threads: int, precision: Precision, batch: int | None = None, *, own: bool = False
    ) -> None:
        """Compiles a network for the CPU.

        Args:
            path: the ``.xml`` file of an OpenVINO IR.
            threads: threads of one call.
            precision: of the arithmetic; ``bf16`` is about twice as fast where the processor has it. Layers that
                were quantised to int8 stay so.
            batch: pictures of every call, where that is known: shapes are planned once then, which is a little faster.
            own: compile it for each thread that calls it; the first call of a thread takes as long.

        Raises:
            BackendFailed: the files are missing, or the runtime cannot read them.
        """
        streams = 1 if own else min(os.cpu_count() or 1, _MOST_STREAMS)
        settings = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "INFERENCE_PRECISION_HINT": precision,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = ov.Core()
            model = core.read_model(path)
            if batch is not None:
                model.reshape({
                    port: ov.PartialShape([batch, *list(port.get_partial_shape())[1:]]) for port in model.inputs
                })

            def compiled() -> ov.CompiledModel:
                return core.compile_model(model, "CPU", settings)

            shared = compiled()
        except RuntimeError as error:
            raise BackendFailed(
                "model_unreadable", f"The model file {path.name} cannot be loaded; reinstall the project ({error})."
            ) from error
        self._outputs = len(shared.outputs)
        # Whoever calls first takes the one that is there.
        self._spare = [shared]
        self._compiled = compiled if own else lambda: shared
        self._local = threading.local()

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Runs the network; the arrays returned belong to this thread and stay valid until its next call.

        Args:
            inputs: in the order and the types of the network's inputs.
        """
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._open().create_infer_request()
        results = request.infer(list(inputs), share_inputs=True, share_outputs=True)
        return [results[i] for i in range(self._outputs)]

    def _open(self) -> ov.CompiledModel:
        try:
            return self._spare.pop()
        except IndexError:
            return self._compiled()
