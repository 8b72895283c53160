"""Runs an ONNX network by onnxruntime: on an NVIDIA GPU, or on the CPU to be compared with.

Place in the flow: files of a voice conversion -> ``OrtNetwork``, a ``Network`` -> ``so_vits``; ``runtimes`` chooses it.

Invariants:
    * a network that was opened for the GPU is on it: onnxruntime's own ways back to the CPU are silent, and are off;
    * the package is imported only here, and only where a GPU is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, InvalidGraph, InvalidProtobuf

from engine.conversation.voice.network import unreadable
from engine.errors import BackendFailed, VisavisError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

PROBE = bytes.fromhex(
    "08083a460a0f0a01780a01781201792204436f6e761201705a170a017812120a100801120c0a0208010a0208010a02080162170a017912120a"
    "100801120c0a0208010a0208010a02080142040a00100d"
)
"""The smallest ONNX network that needs all of CUDA a voice needs, cuDNN included: y (1, 1, 1) = x convolved with x."""

_TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32,
}  # fmt: skip
_OF_CUDA = {
    # The usual search tries every algorithm anew for each length of sound, for seconds.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The usual 10 bits of TF32 are not what the CPU computes with.
    "use_tf32": "0",
    # The usual arena doubles with each longer sound, and a face's networks may be on the same GPU.
    "arena_extend_strategy": "kSameAsRequested",
}
_ERROR, _FATAL, _WARNING = 3, 4, 2


class OrtNetwork:
    """A network that onnxruntime opened; see ``Network``.

    Args:
        path: its file.
        provider: ``CUDA``, or ``CPU``.

    Raises:
        WeightsInvalid: ``weights_unreadable``.
        BackendFailed: ``voice_gpu_failed``: it cannot be put on the GPU.
    """

    def __init__(self, path: Path, provider: str = CUDA) -> None:
        self._path = path
        self._provider = provider
        try:
            self._session = _opened(str(path), provider)
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise self._failed(error) from error
        if self._session.get_providers()[0] != provider:
            raise _gpu_failed("onnxruntime left it to the CPU")
        self._ports = {port.name: port for port in self._session.get_inputs()}
        if any(port.type not in _TYPES for port in self._ports.values()):
            raise unreadable(path)
        self.inputs = list(self._ports)
        self._first = [self._session.get_outputs()[0].name]

    def shape_of(self, name: str) -> list[int | None]:
        """See ``Network.shape_of``."""
        return [size if isinstance(size, int) else None for size in self._ports[name].shape]

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """See ``Network.__call__``."""
        typed = {
            name: np.ascontiguousarray(inputs[name], _TYPES[port.type]) for name, port in self._ports.items()
        }
        try:
            return np.asarray(self._session.run(self._first, typed)[0], np.float32)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> VisavisError:
        if self._provider == CPU or isinstance(error, (InvalidArgument, InvalidGraph, InvalidProtobuf)):
            return unreadable(self._path)
        return _gpu_failed(_first_line(error))


def cuda_problem() -> str:
    """Why this onnxruntime computes nothing on a GPU, as the rest of a sentence; empty where it just did."""
    if CUDA not in ort.get_available_providers():
        return "the onnxruntime that is installed was built without CUDA"
    told = io.StringIO()
    # That the libraries are there says nothing of the driver and the GPU, so one sum is done; all that fails on the
    # way is in the answer, not on the console.
    ort.set_default_logger_severity(_FATAL)
    try:
        with redirect_stdout(told):
            ort.preload_dlls()
        session = _opened(PROBE, CUDA)
        if session.get_providers()[0] == CUDA:
            session.run(None, {"x": np.ones((1, 1, 1), np.float32)})
            return ""
    except Exception as error:
        return f"CUDA does not start: {_first_line(error)}"
    finally:
        ort.set_default_logger_severity(_WARNING)
    return f"CUDA does not start: {_first_line(told.getvalue()) or 'there is no driver, or no GPU it can use'}"


def _opened(network: str | bytes, provider: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = _ERROR
    # Between two calls its threads would keep cores busy that draw faces.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    asked: list[Any] = [provider] if provider == CPU else [(provider, _OF_CUDA), CPU]
    return ort.InferenceSession(network, options, providers=asked, enable_fallback=0)


def _gpu_failed(reason: str) -> BackendFailed:
    return BackendFailed(
        "voice_gpu_failed",
        f"The GPU failed at a voice ({reason}); with voice_device set to auto or cpu the CPU goes on.",
    )


def _first_line(told: Exception | str) -> str:
    """What was said first, without full stop."""
    lines = str(told).strip().splitlines() or [type(told).__name__ if isinstance(told, Exception) else ""]
    return lines[0][:300].rstrip(". ")
