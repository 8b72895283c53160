"""Looks at what models can compute on: processors, and GPUs where there are any.

Place in the flow: ``examine`` -> findings of the group ``machine``.

Invariant: torch is only loaded where a driver for a GPU is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from server.doctor.report import Finding

_GROUP = "machine"
_NVIDIA = Path("/proc/driver/nvidia/version")
"""Is there where the driver of an NVIDIA GPU is loaded."""
_GB = 1 << 30


def devices() -> Iterator[Finding]:
    """What models can compute on."""
    try:
        import openvino

        core = openvino.Core()
        names = {name: str(core.get_property(name, "FULL_DEVICE_NAME")) for name in core.available_devices}
    except (ImportError, RuntimeError) as error:
        told = f"OpenVINO, which runs the built-in model, does not start ({type(error).__name__})."
        yield Finding("openvino", _GROUP, "problem", told, "python -m pip install --force-reinstall openvino")
    else:
        told = ", ".join(name.strip() for name in names.values())
        yield Finding("openvino", _GROUP, "ok", f"OpenVINO computes on {told}.")
    yield _cuda()


def _cuda() -> Finding:
    if not _NVIDIA.exists():
        return Finding("gpu", _GROUP, "ok", "There is no NVIDIA GPU; the built-in model needs none.")
    try:
        import torch

        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except (ImportError, RuntimeError) as error:
        found = []
        reason = f"torch does not start ({type(error).__name__})"
    else:
        reason = "torch finds none"
    if not found:
        change = "Install a build of torch for CUDA that fits the driver: https://pytorch.org/get-started/locally/"
        return Finding("gpu", _GROUP, "warning", f"A driver for NVIDIA GPUs is loaded, but {reason}.", change)
    told = ", ".join(f"{device.name} ({device.total_memory / _GB:.0f} GB)" for device in found)
    return Finding("gpu", _GROUP, "ok", f"Added weights are computed on {told}.", "", {"gpus": len(found)})
