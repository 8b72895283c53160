"""The ways to compute a lip-sync network that are held against each other, and what they are held against.

Place in the flow: what this machine can do -> ``Candidate``s -> race.py.

Invariants:
    * the first candidate is the baseline: the network in torch, f32, all rows of one picture after the other, as in the
      tutorials everybody begins with;
    * a processor without bf16 is not asked for it: it would only be slower there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Runtime = Literal["torch", "openvino", "builtin", "torch-gpu", "graphs-gpu"]
Rows = Literal["all", "pasted"]

SMALL_PX = 128
"""Largest side of a picture of which many at once are cheap enough to be tried on a CPU."""
_GPU_BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute.

    Attributes:
        runtime: what computes; ``builtin`` is the built-in model, which has one runtime, ``graphs-gpu`` the product's
            own way on a GPU and ``torch-gpu`` the tutorials'.
        rows: rows of the picture that are computed.
        precision: ``f32``, ``f16``, ``bf16`` or ``int8``.
        batch: pictures at once.
        side_by_side: on several cores, one single-threaded stream for each, as sessions are served; otherwise one
            loop with as many threads as cores.
    """

    runtime: Runtime
    rows: Rows
    precision: str
    batch: int = 1
    side_by_side: bool = False

    @property
    def label(self) -> str:
        """In words, unique among candidates."""
        where = {
            "torch": "torch", "openvino": "OpenVINO", "builtin": "built-in", "torch-gpu": "torch, GPU",
            "graphs-gpu": "CUDA graphs",
        }[self.runtime]  # fmt: skip
        how = "streams" if self.side_by_side else "loop"
        return f"{where} {self.precision} {self.rows} rows, batch {self.batch}, {how}"

    @property
    def on_gpu(self) -> bool:
        """Whether cores do not matter to it."""
        return self.runtime.endswith("-gpu")


BASELINE = Candidate("torch", "all", "f32")
GPU_BASELINE = Candidate("torch-gpu", "all", "f32")


def served(precision: str) -> Candidate:
    """How the product runs a Wav2Lip network on a CPU."""
    return Candidate("openvino", "pasted", precision, side_by_side=True)


def on_cpu(size: int, bf16: bool, int8: bool) -> list[Candidate]:
    """All ways for a Wav2Lip network on a CPU, the baseline first.

    Args:
        size: side of its picture, pixels.
        bf16: the processor computes in it.
        int8: there is an int8 form of the network.
    """
    many = 16 if size <= SMALL_PX else 2
    found = [BASELINE, Candidate("torch", "all", "f32", side_by_side=True), Candidate("torch", "all", "f32", many)]
    if bf16:
        found.append(Candidate("torch", "all", "bf16"))
    precisions = ["f32", *(["bf16"] if bf16 else [])]
    found += [Candidate("openvino", "all", precision, side_by_side=True) for precision in precisions]
    return found + [served(precision) for precision in (*precisions, *(["int8"] if int8 else []))]


def on_gpu() -> list[Candidate]:
    """All ways on a GPU: the tutorials', one picture and many at once, and the product's."""
    most = _GPU_BATCHES[-1]
    ours = [Candidate("graphs-gpu", "pasted", "f16", batch) for batch in _GPU_BATCHES]
    return [GPU_BASELINE, Candidate("torch-gpu", "all", "f32", most), *ours]


def of_builtin(bf16: bool) -> list[Candidate]:
    """The built-in model's two precisions."""
    return [Candidate("builtin", "pasted", precision, side_by_side=True) for precision in ("f32", "bf16")[: 1 + bf16]]
