"""Trained picture network -> the files the product loads, with a check that they compute the same.

Place in the flow: checkpoint of ``picture_train`` (or ``picture.safetensors``) -> OpenVINO IR ``picture.xml`` +
``picture.bin`` and ``picture.safetensors`` beside ``engine.lipsync.builtin``.
Command: ``python -m engine.studio.picture_export CHECKPOINT engine/lipsync/builtin`` prints size and speed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from safetensors.torch import load_file, save_file

from engine.lipsync.builtin.crop import CROP_SIZE
from engine.studio.picture_net import PictureNet, count_macs
from engine.studio.picture_train import load_average
from engine.types import MOUTH_SHAPES

MAX_DIFFERENCE = 0.02
"""Largest difference of colours and alpha that is let through; weights are stored in 16 bits."""
_OUTPUTS = ("flow", "alpha", "shade")


def load_weights(path: Path) -> PictureNet:
    """The network of a ``.safetensors`` file or of a training checkpoint."""
    if path.suffix != ".safetensors":
        return load_average(path)
    net = PictureNet()
    net.load_state_dict(load_file(path))
    return net.eval()


def export(net: PictureNet, folder: Path) -> dict[str, float]:
    """Writes ``picture.xml``, ``picture.bin`` and ``picture.safetensors``.

    Args:
        net: trained network in evaluation mode.
        folder: where the product looks for them.

    Returns:
        Parameters, multiply-accumulates, milliseconds per picture on one thread (f32, bf16), largest difference.

    Raises:
        ValueError: the exported network computes something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / "picture.safetensors")
    # Written readable only by their owner, the weights would be closed to a container's unprivileged user.
    (folder / "picture.safetensors").chmod(0o644)
    example = (torch.rand(1, 3, CROP_SIZE, CROP_SIZE), torch.rand(1, len(MOUTH_SHAPES)))
    frozen = torch.jit.freeze(torch.jit.trace(net, example, strict=False))
    shapes = [("reference", ov.PartialShape(example[0].shape)), ("mouth", ov.PartialShape(example[1].shape))]
    model = ov.convert_model(frozen, example_input=example, input=[shape for _, shape in shapes])
    for port, (name, _) in zip(model.inputs, shapes, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, _OUTPUTS, strict=True):
        port.get_tensor().set_names({name})
    ov.save_model(model, folder / "picture.xml", compress_to_fp16=True)
    figures: dict[str, float] = {"parameters": sum(p.numel() for p in net.parameters()), "macs": count_macs(net)}
    inputs = [value.numpy() for value in example]
    with torch.inference_mode():
        true = [value.numpy() for value in net(*example)]
    for precision in ("f32", "bf16"):
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision}
        request = ov.Core().compile_model(folder / "picture.xml", "CPU", settings).create_infer_request()
        results = request.infer(inputs)
        if precision == "f32":
            difference = max(float(np.abs(results[i] - value).max()) for i, value in enumerate(true))
            figures["difference"] = round(difference, 5)
            if difference > MAX_DIFFERENCE:
                raise ValueError(f"the exported network differs by {difference:.4f} from the trained one")
        figures[f"{precision}_ms"] = round(_median_ms(request, inputs), 2)
    return figures


def _median_ms(request: ov.InferRequest, inputs: list[np.ndarray]) -> float:
    durations = []
    for _ in range(60):
        started = time.perf_counter()
        request.infer(inputs)
        durations.append(time.perf_counter() - started)
    return float(np.median(durations)) * 1e3


def main(argv: list[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m engine.studio.picture_export", description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="training checkpoint or picture.safetensors")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(json.dumps(export(load_weights(options.weights), options.folder)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
