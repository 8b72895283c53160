"""Turns a Wav2Lip network into files of other runtimes, and proves each file against torch before it is kept.

Place in the flow: weights folder -> ``openvino/`` beside it (what the live path runs) | an ONNX or OpenVINO file for
the user.

Invariants:
    * every file takes any batch size;
    * a file that does not give torch's result is never left behind.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from torch import nn

from engine.audio.mel import MEL_BANDS
from engine.errors import BackendFailed
from engine.lipsync.wav2lip.checkpoint import load_network
from engine.lipsync.wav2lip.folder import DERIVED_FOLDER, FACE_FILE, SPEAK_FILE, derived_folder
from engine.lipsync.wav2lip.lower_half import FaceFeatures, LowerHalf, Pixels
from engine.lipsync.wav2lip.networks import Wav2Lip
from engine.lipsync.wav2lip.variants import MEL_COLUMNS

_BATCH = 2
_MOST_ERROR = 1e-4
_ONNX_OPSET = 18


def examples(network: Wav2Lip, batch: int = _BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    """A mel window and a face input of random numbers, always the same."""
    generator = torch.Generator().manual_seed(1)
    size = network.variant.size
    mel = torch.rand((batch, 1, MEL_BANDS, MEL_COLUMNS), generator=generator) * 8 - 4
    face = torch.rand((batch, 6, size, size), generator=generator)
    face[:, :3, size // 2 :] = 0
    return mel, face


def export_onnx(folder: Path, out: Path) -> None:
    """Writes the whole network, (mel, face) -> picture, as one ONNX file.

    Args:
        folder: a folder of Wav2Lip weights.
        out: file to write.

    Raises:
        ModuleNotFoundError: the package ``onnx``, which nothing else needs, is not installed.
        WeightsInvalid: the folder is damaged.
        BackendFailed: the file does not give torch's result; nothing is written then.
    """
    importlib.import_module("onnx")
    _, network = load_network(folder)
    inputs = examples(network)
    names = ["mel", "face", "picture"]
    with _kept_when_right(out) as unfinished:
        torch.onnx.export(
            network, inputs, str(unfinished), dynamo=False, opset_version=_ONNX_OPSET, input_names=names[:2],
            output_names=names[2:], dynamic_axes={name: {0: "batch"} for name in names},
        )  # fmt: skip
        _compare(unfinished, network, inputs)


def export_openvino(folder: Path, out: Path) -> None:
    """Writes the whole network, (mel, face) -> picture, as an OpenVINO IR: ``out`` and its ``.bin``.

    Raises:
        WeightsInvalid: the folder is damaged.
        BackendFailed: the file does not give torch's result; nothing is written then.
    """
    _, network = load_network(folder)
    inputs = examples(network)
    with _kept_when_right(out) as unfinished:
        ov.save_model(_converted(network, inputs, ("mel", "face")), unfinished, compress_to_fp16=False)
        _compare(unfinished, network, inputs)


def derive(folder: Path) -> Path:
    """The files the live path runs; made on first use, which takes some seconds.

    Args:
        folder: a folder of Wav2Lip weights.

    Returns:
        Folder with ``FACE_FILE`` and ``SPEAK_FILE``.

    Raises:
        WeightsInvalid: the folder is damaged.
        BackendFailed: the files cannot be written, or do not give torch's result.
    """
    if (found := derived_folder(folder)) is not None:
        return found
    _, network = load_network(folder)
    half = LowerHalf(network)
    mel, face = examples(network)
    faces = FaceFeatures(network, half.feature_rows)
    with torch.inference_mode():
        features = tuple(feature.half() for feature in faces(face))
    unfinished = Path(tempfile.mkdtemp(prefix=".openvino-", dir=folder))
    try:
        # Half precision is how features wait in memory; both networks compute in their own precision.
        ov.save_model(_converted(_Half(faces), (face,), ("face",)), unfinished / FACE_FILE, compress_to_fp16=False)
        names = ("mel", *(f"feature_{k}" for k in range(len(features))))
        speak = _converted(Pixels(half), (mel, *features), names)
        ov.save_model(speak, unfinished / SPEAK_FILE, compress_to_fp16=False)
        _compare_pixels(unfinished, network, half.first_row, (mel, face))
        try:
            unfinished.replace(folder / DERIVED_FOLDER)
        except OSError:
            # Somebody else was faster; what they made is as good.
            if derived_folder(folder) is None:
                raise
    except OSError as error:
        raise BackendFailed("weights_unwritable", f"The folder {folder} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder / DERIVED_FOLDER


class _Half(nn.Module):
    def __init__(self, faces: FaceFeatures) -> None:
        super().__init__()
        self.faces = faces

    def forward(self, face: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(feature.half() for feature in self.faces(face))


def _converted(module: nn.Module, inputs: Sequence[torch.Tensor], names: Sequence[str]) -> ov.Model:
    with torch.inference_mode():
        model = ov.convert_model(module.eval(), example_input=tuple(inputs))
    model.reshape({
        port: ov.PartialShape([-1, *tensor.shape[1:]]) for port, tensor in zip(model.inputs, inputs, strict=True)
    })
    for port, name in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    return model


@contextmanager
def _kept_when_right(out: Path) -> Iterator[Path]:
    """Gives a temporary file and renames it, and its ``.bin``, to ``out`` when the block ends well."""
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
            yield Path(folder) / out.name
            for file in sorted(Path(folder).iterdir()):
                os.replace(file, out.with_name(file.name))
    except OSError as error:
        raise BackendFailed("export_unwritable", f"{out} cannot be written: {error}.") from error


def _exact(path: Path) -> Callable[..., list[np.ndarray]]:
    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        results = compiled(list(inputs))
        return [results[i] for i in range(len(compiled.outputs))]

    return run


def _compare(path: Path, network: Wav2Lip, inputs: Sequence[torch.Tensor]) -> None:
    run = _exact(path)
    for batch in (1, _BATCH):
        some = [tensor[:batch] for tensor in inputs]
        with torch.inference_mode():
            wanted = network(*some).numpy()
        error = float(np.abs(run(*(tensor.numpy() for tensor in some))[0] - wanted).max())
        if not error <= _MOST_ERROR:
            raise BackendFailed("export_wrong", f"{path.name} would not give torch's result: it is off by {error:.1e}.")


def _compare_pixels(folder: Path, network: Wav2Lip, first_row: int, inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    mel, face = inputs
    with torch.inference_mode():
        picture = (network(mel, face)[:, :, first_row:].clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    if network.variant.colour == "rgb":
        picture = picture[..., ::-1]
    features = [np.array(feature) for feature in _exact(folder / FACE_FILE)(face.numpy())]
    drawn = _exact(folder / SPEAK_FILE)(mel.numpy(), *features)[0]
    # Features wait in half precision, so a pixel may round to its neighbour.
    error = float(np.abs(drawn - picture).max())
    if not error <= 1.5:
        raise BackendFailed("export_wrong", f"The converted network is off by {error:.1f} grey levels; it is not used.")
