"""Chooses how a Wav2Lip network is computed on this machine, and opens it.

Place in the flow: weights folder + precision asked for -> variant and ``Speaker``.

Invariants:
    * the CPU path never imports torch once the files of its runtime were made;
    * what was asked for is what is used: only ``auto`` chooses.
"""

from __future__ import annotations

import logging
from pathlib import Path

from engine.errors import BackendFailed
from engine.lipsync.openvino_runtime import has_bf16
from engine.lipsync.wav2lip.advice import advised_precision
from engine.lipsync.wav2lip.folder import derived_folder, int8_file, read_variant
from engine.lipsync.wav2lip.speaker import OpenVinoSpeaker, Speaker
from engine.lipsync.wav2lip.variants import Variant

_NVIDIA = Path("/proc/driver/nvidia/version")

_log = logging.getLogger(__name__)


def open_speaker(folder: Path, threads: int, precision: str) -> tuple[Variant, Speaker]:
    """Opens the weights in a folder.

    Args:
        folder: what ``python -m engine weights add`` made.
        threads: threads of one picture on a CPU.
        precision: ``f32``, ``bf16``, ``int8`` on the CPU, or ``auto``: a GPU where there is one, else what was fastest
            in ``python -m engine bench`` on this machine, else bf16 where the processor has it.

    Raises:
        WeightsInvalid: the folder is damaged.
        BackendFailed: the network cannot be loaded, or there is no int8 form of it.
    """
    variant = read_variant(folder)
    if precision == "auto":
        device = _gpu()
        if device is not None:
            return variant, _on_gpu(folder, device)
        precision = advised_precision(folder) or ("bf16" if has_bf16() else "f32")
        _log.info("%s runs in %s", folder.name, precision)
    derived = derived_folder(folder) or _converted(folder)
    if precision == "f32":
        return variant, OpenVinoSpeaker(derived, None, threads, "f32")
    if precision == "bf16":
        return variant, OpenVinoSpeaker(derived, None, threads, "bf16")
    quantised = int8_file(folder)
    if quantised is None:
        raise BackendFailed(
            "int8_missing", f"There is no int8 form of {folder.name!r} yet; `python -m engine bench --lipsync "
            f"{folder.name}` makes one where it is good enough."
        )
    return variant, OpenVinoSpeaker(derived, quantised, threads, "bf16" if has_bf16() else "f32")


def _converted(folder: Path) -> Path:
    from engine.lipsync.wav2lip.export import derive

    _log.info("converting %s for this machine, once; some seconds", folder.name)
    return derive(folder)


def _gpu() -> str | None:
    """A CUDA device that torch can use, or None; torch is only asked where a driver is loaded."""
    if not _NVIDIA.exists():
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def _on_gpu(folder: Path, device: str) -> Speaker:
    from engine.lipsync.wav2lip.checkpoint import load_network
    from engine.lipsync.wav2lip.torch_runtime import TorchSpeaker

    return TorchSpeaker(load_network(folder)[1], device)
