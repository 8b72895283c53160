"""Trained weights of the audio network -> the files the product loads, with a check that they compute the same.

Place in the flow: ``audio.safetensors`` -> OpenVINO IR ``audio.xml`` + ``audio.bin`` beside ``engine.lipsync.builtin``.

Run as ``python -m engine.studio.audio_export RUN/audio.safetensors engine/lipsync/builtin``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from safetensors.torch import load_file
from torch import nn

from engine.audio.mel import MEL_BANDS
from engine.studio.audio_net import WINDOW, AudioNet

MAX_DIFFERENCE = 2e-3
"""Largest difference between the exported and the trained network that is let through (weights are stored in fp16)."""


def load_weights(path: Path) -> AudioNet:
    """The trained network in evaluation mode."""
    network = AudioNet()
    network.load_state_dict(load_file(path))
    return network.eval()


def count_macs(network: AudioNet) -> int:
    """Multiplications of one window."""
    macs = 0

    def count(layer: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal macs
        macs += output[0].numel() * layer.weight[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        network(torch.zeros(1, 1, MEL_BANDS, WINDOW.columns))
    for hook in hooks:
        hook.remove()
    return macs


def export(weights: Path, folder: Path) -> dict[str, float]:
    """Writes ``audio.xml``, ``audio.bin`` and ``audio.safetensors``.

    Args:
        weights: what ``audio_train`` kept.
        folder: where the product looks for them.

    Returns:
        Parameters, multiplications a window, CPU milliseconds a window on one thread, and the largest difference.

    Raises:
        ValueError: the exported network computes something else.
    """
    network = load_weights(weights)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    example = torch.randn(1, 1, MEL_BANDS, WINDOW.columns)
    model = ov.convert_model(network, example_input=example, input=[("mel", ov.PartialShape([-1, 1, MEL_BANDS, 32]))])
    model.inputs[0].get_tensor().set_names({"mel"})
    model.outputs[0].get_tensor().set_names({"mouth"})
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, folder / "audio.xml", compress_to_fp16=True)
    if weights.resolve() != (folder / "audio.safetensors").resolve():
        shutil.copyfile(weights, folder / "audio.safetensors")

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(folder / "audio.xml", "CPU", settings)
    mel = np.random.default_rng(0).uniform(-4, 4, (64, 1, MEL_BANDS, WINDOW.columns)).astype(np.float32)
    with torch.no_grad():
        true = network(torch.from_numpy(mel)).numpy()
    difference = float(np.abs(compiled(mel)[0] - true).max())
    if difference > MAX_DIFFERENCE:
        raise ValueError(f"the exported network differs by {difference:.4f} from the trained one")
    request = compiled.create_infer_request()
    request.infer([mel[:1]])
    durations_ms = []
    for _ in range(300):
        started_ns = time.thread_time_ns()
        request.infer([mel[:1]])
        durations_ms.append((time.thread_time_ns() - started_ns) / 1e6)
    return {
        "parameters": sum(value.numel() for value in network.parameters()),
        "macs": count_macs(network),
        "cpu_ms": round(float(np.median(durations_ms)), 3),
        "difference": round(difference, 6),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Exports and prints what the network costs."""
    parser = argparse.ArgumentParser(description="Export the audio network for the product.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    print(json.dumps(export(options.weights, options.folder)))


if __name__ == "__main__":
    main()
