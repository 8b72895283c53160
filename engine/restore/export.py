"""Turns the restorer's network into files of other runtimes, each checked against torch before it is kept.

Place in the flow: folder of weights -> an ONNX or OpenVINO file for the user.

Invariants:
    * files take and give what the network does, (B, 3, S, S) RGB in [-1, 1], any batch size;
    * a file that does not give torch's result is never left behind.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openvino
import torch

from engine.errors import BackendFailed
from engine.restore.checkpoint import load_network
from engine.restore.gfpgan_net import Gfpgan

_MOST_ERROR = 1e-3
"""Of values around one; runtimes add up two hundred layers in orders of their own."""
_ONNX_OPSET = 18


def export_onnx(folder: Path, out: Path) -> None:
    """Writes the whole network, face -> restored, as one ONNX file.

    Args:
        folder: of GFPGAN weights.
        out: file to write.

    Raises:
        ModuleNotFoundError: the package ``onnx``, which nothing else needs, is not installed.
        WeightsInvalid: the folder is damaged.
        BackendFailed: the file does not give torch's result; nothing is written then.
        OSError: the disk is full or not writable.
    """
    importlib.import_module("onnx")
    network = load_network(folder)
    example = _example(network, 1)
    with _kept_when_complete(out) as unfinished:
        torch.onnx.export(
            network, (example,), str(unfinished), dynamo=False, opset_version=_ONNX_OPSET, input_names=["face"],
            output_names=["restored"], dynamic_axes={"face": {0: "batch"}, "restored": {0: "batch"}},
        )  # fmt: skip
        _check(unfinished, network)


def export_openvino(folder: Path, out: Path) -> None:
    """Writes the whole network, face -> restored, as an OpenVINO IR: ``out`` and its ``.bin``.

    Raises:
        WeightsInvalid: the folder is damaged.
        BackendFailed: the file does not give torch's result; nothing is written then.
        OSError: the disk is full or not writable.
    """
    network = load_network(folder)
    example = _example(network, 1)
    with torch.inference_mode():
        model = openvino.convert_model(network, example_input=example)
    model.reshape(openvino.PartialShape([-1, *example.shape[1:]]))
    model.inputs[0].get_tensor().set_names({"face"})
    model.outputs[0].get_tensor().set_names({"restored"})
    with _kept_when_complete(out) as unfinished:
        openvino.save_model(model, unfinished, compress_to_fp16=False)
        _check(unfinished, network)


def _example(network: Gfpgan, batch: int) -> torch.Tensor:
    """(batch, 3, S, S) coarse noise, always the same."""
    size = network.shape.size
    coarse = torch.rand((batch, 3, 8, 8), generator=torch.Generator().manual_seed(1)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)


def _check(path: Path, network: Gfpgan) -> None:
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in (1, 2):
        faces = _example(network, batch)
        with torch.inference_mode():
            wanted = network(faces).numpy()
        error = float(abs(compiled(faces.numpy())[0] - wanted).max()) / max(float(abs(wanted).max()), 1.0)
        if not error <= _MOST_ERROR:
            raise BackendFailed("export_wrong", f"{path.name} would not give torch's result: it is off by {error:.1e}.")


@contextmanager
def _kept_when_complete(out: Path) -> Iterator[Path]:
    """Gives a temporary file and renames it, and what lies beside it, to its place when the block ends well."""
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
        yield Path(folder) / out.name
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, out.with_name(file.name))
