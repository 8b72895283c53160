"""Listens with the shipped audio network exactly as the product does, and counts what a network costs.

Place in the flow: playout sound -> RollingWindows -> ``audio.xml`` -> mouth track; used by evaluation only.

Invariant: one mouth per video frame, ``ceil(len(samples) / 1920)`` of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.audio.window import MelWindow, RollingWindows
from engine.types import MOUTH_SHAPES

BUILTIN = Path(__file__).parents[1] / "lipsync" / "builtin"
WINDOW = MelWindow(columns=32, offset=-24)
_TIMED_RUNS = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """What one frame of a network costs.

    Attributes:
        parameters: weights.
        macs: multiplications and additions of one frame.
        cpu_ms: time of one frame on one thread, milliseconds (median).
    """

    parameters: int
    macs: int
    cpu_ms: float


class Hearing:
    """The shipped audio network on one thread."""

    def __init__(self, model: Path = BUILTIN / "audio.xml") -> None:
        """Loads the network.

        Args:
            model: OpenVINO IR with input (B, 1, 80, 32) and output (B, 10).
        """
        import openvino

        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._network = openvino.Core().compile_model(model, "CPU", settings)

    def track(self, samples: np.ndarray) -> np.ndarray:
        """The mouths of a sound.

        Args:
            samples: (N,) int16 mono at 48 kHz.

        Returns:
            (ceil(N / 1920), len(MOUTH_SHAPES)) float32.
        """
        windows = RollingWindows(WINDOW)
        windows.push(samples)
        windows.end()
        mels = []
        while windows.frames_ready:
            mels.append(windows.next()[1])
        if not mels:
            return np.zeros((0, len(MOUTH_SHAPES)), np.float32)
        blocks = [np.stack(mels[start : start + 64])[:, None] for start in range(0, len(mels), 64)]
        return np.concatenate([self._network(block)[0] for block in blocks])


def cost_of(model: Path) -> Cost:
    """Counts and times a network whose only dynamic dimension is the batch."""
    import openvino

    core = openvino.Core()
    network: Any = core.read_model(model)
    network.reshape({port: [1, *list(port.partial_shape)[1:]] for port in network.inputs})
    parameters = macs = 0
    for operation in network.get_ordered_ops():
        kind = operation.get_type_name()
        if kind == "Constant" and operation.get_element_type().is_real():
            parameters += int(np.prod(operation.get_output_shape(0)))
        elif kind in ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"):
            weights, result = operation.get_input_shape(1), operation.get_output_shape(0)
            per_output = {
                "Convolution": np.prod(weights[1:]),
                "GroupConvolution": np.prod(weights[2:]),
                "MatMul": np.prod(weights[-2:]) // result[-1],
            }
            if kind == "ConvolutionBackpropData":
                macs += int(np.prod(operation.get_input_shape(0)) * np.prod(weights[1:]))
            else:
                macs += int(np.prod(result) * per_output[kind])
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    inputs = [np.zeros(tuple(port.shape), np.float32) for port in network.inputs]
    request.infer(inputs)
    durations_ns = []
    for _ in range(_TIMED_RUNS):
        started_ns = time.thread_time_ns()
        request.infer(inputs)
        durations_ns.append(time.thread_time_ns() - started_ns)
    return Cost(parameters, macs, float(np.median(durations_ns)) / 1e6)
