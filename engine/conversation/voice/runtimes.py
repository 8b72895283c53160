"""Chooses what computes the networks of a voice conversion, and loads the conversion for it.

Place in the flow: folder of weights + option ``voice_device`` -> ``load_voice`` -> ``SoVits``.

Invariants:
    * what was asked for is what is used: only ``auto`` chooses, and it says in the log why it did not choose the GPU;
    * onnxruntime is an optional package: nothing but a GPU needs it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from engine.conversation.voice.base import Device
from engine.conversation.voice.network import Network
from engine.conversation.voice.onnx_network import OnnxNetwork
from engine.conversation.voice.so_vits import SoVits
from engine.errors import BackendFailed, ConfigInvalid

INSTALL_HINT = (
    'It needs an NVIDIA GPU with a driver for CUDA 13, and: pip install "onnxruntime-gpu[cuda,cudnn]" (where the '
    "package onnxruntime is installed, pip uninstall onnxruntime onnxruntime-gpu first: both have the same files)."
)

_log = logging.getLogger(__name__)


def check_device(device: Device) -> None:
    """Tries what was asked for; with ``gpu`` that takes a second or two, so call it off the event loop.

    Raises:
        ConfigInvalid: ``voice_gpu_missing``: ``gpu`` where there is none that can be used.
    """
    problem = gpu_problem() if device == "gpu" else ""
    if problem:
        raise ConfigInvalid(
            "voice_gpu_missing", f"voice_device is gpu, but {problem}. {INSTALL_HINT} Otherwise set it to auto."
        )


def load_voice(folder: Path, device: Device) -> SoVits:
    """Loads a conversion; takes seconds.

    Args:
        folder: of its weights.
        device: ``cpu``; ``gpu``; or ``auto``: the GPU where one can be used, and the CPU otherwise, or from the
            moment the GPU fails.

    Raises:
        ConfigInvalid: ``voice_gpu_missing``.
        WeightsInvalid: the folder is damaged.
        BackendFailed: ``voice_gpu_failed``, with ``gpu`` alone.
    """
    check_device(device)
    problem = gpu_problem() if device == "auto" else ""
    if device == "cpu" or problem:
        _log.info("%s runs on the CPU%s", folder.name, problem and f": {problem}")
        return SoVits.load(folder, OnnxNetwork)
    from engine.conversation.voice.ort_network import OrtNetwork

    _log.info("%s runs on the GPU", folder.name)
    if device == "gpu":
        return SoVits.load(folder, OrtNetwork)
    return SoVits.load(folder, lambda path: Replaced(path, OrtNetwork))


def gpu_problem() -> str:
    """Why networks cannot be computed on a GPU here, as the rest of a sentence; empty where they can."""
    try:
        from engine.conversation.voice.ort_network import cuda_problem
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            return "onnxruntime-gpu is not installed"
        return f"onnxruntime cannot be imported ({error})"
    return cuda_problem()


class Replaced:
    """A ``Network`` on the GPU whose place one on the CPU takes when the GPU fails, at once and for good.

    Args:
        path: file of the network.
        open_first: opens it on the GPU.
    """

    def __init__(self, path: Path, open_first: Callable[[Path], Network]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._network: Network
        try:
            self._network = open_first(path)
        except BackendFailed as error:
            self._network = self._on_cpu(error)
        self.inputs = self._network.inputs

    def shape_of(self, name: str) -> list[int | None]:
        """See ``Network.shape_of``."""
        return self._network.shape_of(name)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """See ``Network.__call__``; the sound at which the GPU failed is computed again."""
        network = self._network
        try:
            return network(inputs)
        except BackendFailed as error:
            with self._lock:
                if self._network is network:
                    self._network = self._on_cpu(error)
            return self._network(inputs)

    def _on_cpu(self, error: BackendFailed) -> Network:
        _log.warning("%s in %s goes on on the CPU: %s", self._path.name, self._path.parent.name, error.message)
        return OnnxNetwork(self._path)
