"""Runs the restorer on OpenVINO, the quickest on a CPU: bf16 where the processor has it, one thread a face.

Place in the flow: folder of weights -> ``OpenvinoEnhancer`` -> ``GfpganRestorer``.

Invariants:
    * every window is a network of its own, made when it is first asked for: shapes are fixed, which is quickest;
    * the network is converted in memory; nothing derived lies on the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

from engine.errors import BackendFailed
from engine.restore.checkpoint import load_network
from engine.restore.gfpgan_net import Gfpgan
from engine.restore.torch_runtime import BorderedGfpgan
from engine.restore.window import Window


class OpenvinoEnhancer:
    """A network on OpenVINO.

    Args:
        network: float32, for evaluation.
        precision: "bf16", "f32", or "auto" for bf16 where the processor has instructions for it.
        threads: of each call.
    """

    batch = 1
    """A CPU gains nothing from batches."""

    def __init__(self, network: Gfpgan, precision: str = "auto", threads: int = 1) -> None:
        self._network = network
        self._core = openvino.Core()
        capable = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        kind = "f32" if precision == "f32" or (precision == "auto" and not capable) else "bf16"
        self._config = {
            "INFERENCE_PRECISION_HINT": kind,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._models: dict[Window, Any] = {}
        self._lock = threading.Lock()

    @staticmethod
    def load(folder: Path, precision: str = "auto", threads: int = 1) -> OpenvinoEnhancer:
        """Loads a folder of weights.

        Raises:
            WeightsInvalid: as ``load_network``.
        """
        return OpenvinoEnhancer(load_network(folder), precision, threads)

    @property
    def size(self) -> int:
        """Side of the aligned face, pixels."""
        return self._network.shape.size

    def enhance(self, faces: np.ndarray, window: Window) -> np.ndarray:
        """See ``Enhancer.enhance``."""
        try:
            model = self._model(window)
            request = model.create_infer_request()
            # The result belongs to the request, which ends here, so it is copied.
            return np.concatenate([np.array(request.infer([face[None]])[0]) for face in faces])
        except RuntimeError as error:
            raise BackendFailed(
                "restore_failed", "The face restorer failed; is there enough memory? Start with --restorer none."
            ) from error

    def warmup(self, batch_sizes: Sequence[int], windows: Sequence[Window]) -> None:
        """Converts, compiles and runs every window once; faces go one by one, so batch sizes make no difference."""
        for window in windows if batch_sizes else ():
            self.enhance(np.zeros((1, self.size, self.size, 3), np.uint8), window)

    def _model(self, window: Window) -> Any:
        with self._lock:
            if window not in self._models:
                example = torch.zeros((1, self.size, self.size, 3), dtype=torch.uint8)
                with torch.inference_mode():
                    # Traced here and unchecked: OpenVINO's own tracing would compute three faces.
                    traced = torch.jit.trace(BorderedGfpgan(self._network, window), example, check_trace=False)
                    converted = openvino.convert_model(traced, input=list(example.shape))
                self._models[window] = self._core.compile_model(converted, "CPU", self._config)
            return self._models[window]
