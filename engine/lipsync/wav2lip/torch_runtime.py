"""Wav2Lip on a GPU: half precision, channels last, fixed batch sizes as CUDA graphs, copies beside the computing.

Place in the flow: weights folder -> ``TorchSpeaker`` -> strips, several sessions' pictures at once.

Invariants:
    * a batch is padded to the next fixed size, so the GPU runs recorded graphs only and never waits for the CPU to
      launch a kernel;
    * features of pictures stay on the device;
    * on the device ``cpu`` it computes in f32, slowly and exactly: that is how its logic is tested without a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.audio.mel import MEL_BANDS
from engine.lipsync.wav2lip.lower_half import FaceFeatures, LowerHalf, Pixels
from engine.lipsync.wav2lip.networks import Wav2Lip
from engine.lipsync.wav2lip.speaker import Features
from engine.lipsync.wav2lip.variants import MEL_COLUMNS

BATCH_SIZES = (1, 2, 4, 8, 16, 32)


def batches_of(count: int) -> list[int]:
    """Fixed batch sizes that hold ``count`` jobs: whole largest ones, then the smallest that holds the rest."""
    whole, rest = divmod(count, BATCH_SIZES[-1])
    return [BATCH_SIZES[-1]] * whole + [next(size for size in BATCH_SIZES if size >= rest)] * (rest > 0)


@dataclass
class _Graph:
    """One recorded batch size: buffers that stay where they are, and how to run."""

    mel: torch.Tensor
    features: list[torch.Tensor]
    pixels: torch.Tensor
    graph: Any

    def run(self) -> None:
        self.graph.replay()


class TorchSpeaker:
    """See ``speaker.Speaker``."""

    batches = True

    def __init__(self, network: Wav2Lip, device: str) -> None:
        """Moves the network to a device.

        Args:
            network: in evaluation mode; the speaker keeps it.
            device: ``cuda``, ``cuda:1``, or ``cpu``.
        """
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._dtype = torch.float16 if self._cuda else torch.float32
        lower = LowerHalf(network)
        self._faces = self._placed(FaceFeatures(network, lower.feature_rows))
        self._pixels = self._placed(Pixels(lower, float_features=False))
        self._size = network.variant.size
        self._lock = threading.Lock()
        self._graphs: dict[int, _Graph] = {}
        # Copies and recorded graphs share one stream of their own; the default one belongs to other libraries.
        self._stream = torch.cuda.Stream(self._device) if self._cuda else None

    def encode_face(self, face: np.ndarray) -> Features:
        """See ``Speaker``: tensors on the device."""
        with self._lock, torch.inference_mode(), self._on_stream():
            placed = self._to_device(torch.from_numpy(face)).contiguous(memory_format=torch.channels_last)
            features = tuple(feature[0].clone() for feature in self._faces(placed))
            self._wait()
        return features

    def speak(self, mels: np.ndarray, faces: Sequence[Features]) -> np.ndarray:
        """See ``Speaker``; one thread computes at a time, since there is one device."""
        strips, start = [], 0
        with self._lock, torch.inference_mode(), self._on_stream():
            for size in batches_of(len(faces)):
                part = slice(start, start + size)
                strips.append(self._run(size, torch.from_numpy(mels[part]), faces[part]))
                start += size
            self._wait()
            return np.concatenate([strip.numpy() for strip in strips])

    def warmup(self, mel: np.ndarray, face: Features, batch_sizes: Sequence[int]) -> None:
        """Records the graphs of the given sizes and runs them once."""
        for count in batch_sizes:
            self.speak(np.repeat(mel, count, 0), [face] * count)

    def _placed(self, module: torch.nn.Module) -> torch.nn.Module:
        return module.to(self._device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _on_stream(self) -> Any:
        return torch.cuda.stream(self._stream) if self._cuda else torch.inference_mode()

    def _wait(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        # Pinned memory lets the copy run while the device computes what was asked before.
        return (tensor.pin_memory() if self._cuda else tensor).to(self._device, self._dtype, non_blocking=True)

    def _run(self, size: int, mels: torch.Tensor, faces: Sequence[Features]) -> torch.Tensor:
        """(n, rows, S, 3) uint8 on the host, valid after the next ``_wait``; n jobs in a batch of ``size``."""
        count = len(faces)
        if not self._cuda:
            features = [torch.stack([face[k] for face in faces]) for k in range(len(faces[0]))]
            return self._pixels(self._to_device(mels), *features)
        graph = self._graphs.get(size) or self._record(size, faces[0])
        graph.mel[:count].copy_(self._to_device(mels), non_blocking=True)
        for k, buffer in enumerate(graph.features):
            torch.stack([face[k] for face in faces], out=buffer[:count])
        graph.run()
        host = torch.empty((count, *graph.pixels.shape[1:]), dtype=torch.uint8, pin_memory=True)
        return host.copy_(graph.pixels[:count], non_blocking=True)

    def _record(self, size: int, face: Features) -> _Graph:
        mel = torch.zeros((size, 1, MEL_BANDS, MEL_COLUMNS), device=self._device, dtype=self._dtype)
        features = [
            torch.zeros((size, *feature.shape), device=self._device, dtype=self._dtype) for feature in face
        ]
        for _ in range(3):
            self._pixels(mel, *features)  # chooses algorithms; those must not be chosen while recording
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            pixels = self._pixels(mel, *features)
        self._graphs[size] = _Graph(mel, features, pixels, graph)
        return self._graphs[size]
