"""Runs the restorer on torch: bf16 on a GPU under CUDA graphs, bf16 or float32 on a CPU.

Place in the flow: folder of weights -> ``TorchEnhancer`` -> ``GfpganRestorer``; ``BorderedGfpgan`` is also what
OpenVINO is given.

Invariants:
    * bytes in BGR become RGB in [-1, 1] and back inside the network that runs, in one place for all runtimes;
    * fp16 is not offered: activations of this decoder leave its range, and it draws flat colour.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import BackendFailed
from engine.restore.checkpoint import load_network
from engine.restore.gfpgan_net import Gfpgan
from engine.restore.window import Window

GRAPH_BATCHES = (1, 2, 4, 8)
"""Sizes that are recorded on a GPU; others are filled up to the next one."""


class BorderedGfpgan(nn.Module):
    """The network between pictures: (B, S, S, 3) BGR bytes -> (B, h, w, 3) BGR bytes of one window."""

    def __init__(self, network: Gfpgan, window: Window) -> None:
        super().__init__()
        self.network = network
        self.window = window

    def forward(self, faces: Tensor) -> Tensor:
        rgb = faces.permute(0, 3, 1, 2).flip(1).float() / 127.5 - 1.0
        restored = self.network(rgb, self.window).float().clamp(-1.0, 1.0)
        return ((restored + 1.0) * 127.5).round().flip(1).permute(0, 2, 3, 1).to(torch.uint8)


def has_gpu() -> bool:
    """Whether torch can compute on a GPU of this machine."""
    return torch.cuda.is_available()


def _quick_dtype(device: torch.device) -> torch.dtype:
    """The type this device computes quickest in among those that are good enough."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


class TorchEnhancer:
    """A network on torch.

    Args:
        network: float32, for evaluation; it is taken over.
        device: "cpu" or "cuda".
        precision: "bf16", "f32", or "auto" for the quickest that the device has instructions for.
    """

    def __init__(self, network: Gfpgan, device: str = "cpu", precision: str = "auto") -> None:
        self._device = torch.device(device)
        dtypes = {"bf16": torch.bfloat16, "f32": torch.float32}
        dtype = _quick_dtype(self._device) if precision == "auto" else dtypes[precision]
        self._network = network.to(self._device).reduce(dtype)
        self._graphs: dict[tuple[int, Window], _Graph] = {}
        self._lock = threading.Lock()

    @staticmethod
    def load(folder: Path, device: str = "cpu", precision: str = "auto") -> TorchEnhancer:
        """Loads a folder of weights.

        Raises:
            WeightsInvalid: as ``load_network``.
        """
        return TorchEnhancer(load_network(folder), device, precision)

    @property
    def size(self) -> int:
        """Side of the aligned face, pixels."""
        return self._network.shape.size

    @property
    def batch(self) -> int:
        """How many faces at a time it is quickest with."""
        return GRAPH_BATCHES[-1] if self._device.type == "cuda" else 1

    def enhance(self, faces: np.ndarray, window: Window) -> np.ndarray:
        """See ``Enhancer.enhance``."""
        step = self.batch
        parts = [self._enhance(faces[start : start + step], window) for start in range(0, len(faces), step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def warmup(self, batch_sizes: Sequence[int], windows: Sequence[Window]) -> None:
        """Computes every batch size once for every window."""
        for window in windows:
            for count in batch_sizes:
                self.enhance(np.zeros((count, self.size, self.size, 3), np.uint8), window)

    def _enhance(self, faces: np.ndarray, window: Window) -> np.ndarray:
        batch = torch.from_numpy(np.ascontiguousarray(faces))
        try:
            with torch.inference_mode():
                if self._device.type == "cuda":
                    return self._on_gpu(batch, window)
                return BorderedGfpgan(self._network, window)(batch).contiguous().numpy()
        except RuntimeError as error:
            raise BackendFailed(
                "restore_failed", "The face restorer failed; is there enough memory? Start with --restorer none."
            ) from error

    def _on_gpu(self, batch: Tensor, window: Window) -> np.ndarray:
        count = next(size for size in GRAPH_BATCHES if size >= len(batch))
        # A graph has one set of buffers, so one thread at a time; the GPU is busy meanwhile anyway.
        with self._lock:
            graph = self._graphs.get((count, window))
            if graph is None:
                graph = self._graphs[count, window] = _Graph(BorderedGfpgan(self._network, window), count, self.size)
            return graph.run(batch)


class _Graph:
    """One batch size and window, recorded on the GPU with buffers of its own."""

    def __init__(self, network: BorderedGfpgan, count: int, size: int) -> None:
        self._input = torch.zeros((count, size, size, 3), dtype=torch.uint8, device="cuda")
        self._pinned = torch.zeros((count, size, size, 3), dtype=torch.uint8, pin_memory=True)
        # Libraries choose their algorithms in the first runs, which must not be recorded.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                network(self._input)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = network(self._input).contiguous()

    def run(self, batch: Tensor) -> np.ndarray:
        self._pinned[: len(batch)].copy_(batch)
        self._input.copy_(self._pinned, non_blocking=True)
        self._graph.replay()
        return self._output[: len(batch)].cpu().numpy()
