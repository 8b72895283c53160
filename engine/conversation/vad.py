"""Hears whether somebody speaks: Silero VAD, run by OpenVINO from the ONNX file inside the silero-vad wheel.

Place in the flow: microphone, decimated to 16 kHz -> ``SileroVad.push`` -> probabilities -> TurnTaker.

Invariants:
    * silero_vad is never imported: only its file is read (MIT; Silero Team, 2020-2026), so torch stays out;
    * the network is compiled once per process and shared; what it remembers belongs to the instance;
    * probabilities do not depend on how the sound was cut into pushes;
    * an instance may be used by one thread at a time.
"""

from __future__ import annotations

import os
import threading
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import BackendFailed
from engine.types import ANALYSIS_RATE

if TYPE_CHECKING:
    import openvino as ov

INSTALL = "python -m pip install --no-deps -r engine/conversation/requirements.txt"
"""Command that brings the network."""

BLOCK_SAMPLES = 512
"""Samples one probability is about; the network knows no other length at 16 kHz."""
BLOCK_S = BLOCK_SAMPLES / ANALYSIS_RATE

_CONTEXT_SAMPLES = 64
_STATE_SHAPE = (2, 1, 128)
_MODEL_FILE = "silero_vad/data/silero_vad_openvino_16k.onnx"
_MOST_STREAMS = 4

_lock = threading.Lock()
_compiled: ov.CompiledModel | None = None


class SileroVad:
    """Tells for every 32 ms of one person's sound how likely it holds speech."""

    def __init__(self) -> None:
        self._request: ov.InferRequest | None = None
        self._buffer = np.zeros(0, np.float32)
        self._state = np.zeros(_STATE_SHAPE, np.float32)
        self.reset()

    def load(self) -> None:
        """Gets the network ready; the first call of a process takes 0.1–1 s, so call it on a thread.

        Raises:
            BackendFailed: ``vad_missing`` when the wheel is not installed, ``vad_unreadable``.
        """
        if self._request is None:
            self._request = _network().create_infer_request()

    def push(self, samples: np.ndarray) -> list[float]:
        """Hears some sound; about 0.5 ms of computing per block.

        Args:
            samples: (n,) float32 mono at 16 kHz in [-1, 1], any n; what is not a number counts as silence.

        Returns:
            The probability of speech, in [0, 1], of each block of 512 samples that is full by now, in order.

        Raises:
            BackendFailed: as ``load``, which the first push does where nobody has.
        """
        self.load()
        assert self._request is not None
        # One number that is none would stay in the network's memory for good.
        clean = np.nan_to_num(np.asarray(samples, np.float32), nan=0.0, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
        buffer = np.concatenate((self._buffer, clean))
        probabilities = []
        start = 0
        while start + _CONTEXT_SAMPLES + BLOCK_SAMPLES <= len(buffer):
            block = buffer[start : start + _CONTEXT_SAMPLES + BLOCK_SAMPLES]
            results = self._request.infer([block[np.newaxis], self._state])
            probabilities.append(float(results[0].item()))
            self._state = results[1]
            start += BLOCK_SAMPLES
        self._buffer = buffer[start:]
        return probabilities

    def reset(self) -> None:
        """Forgets everything heard, as after a pause in which no sound was pushed."""
        # The end of the block before is part of every input; before the first there was silence.
        self._buffer = np.zeros(_CONTEXT_SAMPLES, np.float32)
        self._state = np.zeros(_STATE_SHAPE, np.float32)


def _network() -> ov.CompiledModel:
    """The network of this process, compiled by whoever comes first."""
    global _compiled
    with _lock:
        if _compiled is None:
            path = _model_file()
            # A server without conversations must not wait for it.
            import openvino

            settings = {
                "NUM_STREAMS": min(os.cpu_count() or 1, _MOST_STREAMS),
                "INFERENCE_NUM_THREADS": min(os.cpu_count() or 1, _MOST_STREAMS),
                "INFERENCE_PRECISION_HINT": "f32",
                "ENABLE_CPU_PINNING": False,
            }
            try:
                _compiled = openvino.Core().compile_model(path, "CPU", settings)
            except RuntimeError as error:
                raise BackendFailed(
                    "vad_unreadable", f"{path.name} cannot be read; install it again: {INSTALL} --force-reinstall"
                ) from error
        return _compiled


def _model_file() -> Path:
    """Path of the network inside the installed wheel.

    Raises:
        BackendFailed: ``vad_missing``.
    """
    try:
        path = Path(str(distribution("silero-vad").locate_file(_MODEL_FILE)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise BackendFailed("vad_missing", f"Listening needs the Silero VAD network. Install it: {INSTALL}")
    return path
