"""Restorer networks with weights from a seed, so that a test needs no checkpoint and no 350 MB file."""

from __future__ import annotations

import math

import torch

from engine.restore.gfpgan_net import Gfpgan, GfpganShape

SMALL = GfpganShape.of(128, narrow=1 / 16)
"""The same code path as the official network at a thousandth of its cost."""


def seeded_state(shape: GfpganShape, seed: int) -> dict[str, torch.Tensor]:
    """A state of official names whose activations neither fade nor explode.

    Names are filled in alphabetical order from one generator, so that any network with these names gets the same.
    """
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Gfpgan(shape).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name in sorted(shapes):
        values = torch.randn(shapes[name], generator=generator)
        if name.endswith("modulation.bias"):
            values = 1 + 0.1 * values
        elif name.endswith("modulation.weight"):
            values = values * (0.5 / math.sqrt(shapes[name][1]))
        elif name.endswith("bias"):
            values = 0.1 * values
        elif name.endswith("weight") and len(shapes[name]) == 1:
            values = torch.full_like(values, 0.1)
        elif "condition_" in name and name.endswith("2.weight"):
            values = values * (2.0 / math.sqrt(values[0].numel()))
        elif name.endswith("modulated_conv.weight"):
            to_rgb = "to_rgb" in name
            values = values * ((0.15 if to_rgb else 1.0) / math.sqrt(values[0, 0].numel()))
        elif "final_linear.weight" in name:
            values = values * (4.0 / math.sqrt(values[0].numel()))
        elif name.endswith("weight") and "constant_input" not in name:
            # Residual blocks add two paths, so each gets half of what would keep the variance.
            values = values * math.sqrt((0.5 if "skip" in name else 1.0) / values[0].numel())
        if "condition_scale" in name and name.endswith("2.bias"):
            values = 1 + values
        state[name] = values
    return state


def seeded_network(shape: GfpganShape = SMALL, seed: int = 7) -> Gfpgan:
    """A network on ``seeded_state``, for evaluation."""
    with torch.device("meta"):
        network = Gfpgan(shape)
    network.load_state_dict(seeded_state(shape, seed), assign=True)
    return network.eval().requires_grad_(False)


def seeded_faces(size: int, count: int = 1, seed: int = 3) -> torch.Tensor:
    """(count, 3, size, size) smooth pictures in [-1, 1]: low frequencies dominate, as in faces."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(count, 3, size, size)
    side = 4
    while side <= size:
        noise = torch.randn(count, 3, side, side, generator=generator) / side
        picture += torch.nn.functional.interpolate(noise, size=(size, size), mode="bilinear", align_corners=False)
        side *= 2
    return (picture / picture.abs().max()).contiguous()
