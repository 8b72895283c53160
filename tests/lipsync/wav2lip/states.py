"""Weights for tests that need some: random, but with statistics like trained ones, and files of official layout.

Random convolutions alone let a deep network fade out or explode, and its batch norms see channels that are nothing
like unit normal. ``calibrated_state`` sends pictures and sounds through the network once and lets every batch norm
measure its own input, as training would have.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.lipsync.wav2lip.networks import Wav2Lip, build
from engine.lipsync.wav2lip.variants import VARIANTS, Variant

STATISTICS = ("running_mean", "running_var")


def seeded_state(variant: Variant, seed: int) -> dict[str, Tensor]:
    """Weights that follow from a seed alone, with the same bits on every machine; batch norms untouched (0 and 1).

    Names are drawn in sorted order from one generator; uniform numbers only, as normal ones differ between CPUs.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in sorted(variant.plan.shapes().items()):
        tensor = torch.empty(shape)
        if name.endswith(STATISTICS):
            tensor.fill_(float(name.endswith("running_var")))
        elif name.endswith("act.weight"):
            tensor.uniform_(0.05, 0.3, generator=generator)
        elif name.endswith("conv_block.1.weight"):
            tensor.uniform_(0.7, 1.3, generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.2, 0.2, generator=generator)
        else:
            bound = math.sqrt(3.0 / (tensor[0].numel()))
            tensor.uniform_(-bound, bound, generator=generator)
        state[name] = tensor
    return state


def faces(size: int, count: int, seed: int) -> Tensor:
    """(count, 6, size, size) in [0, 1]: smooth blobs and some grain; the lower half of the first three is zero."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.empty(count, 3, 12, 12).uniform_(0, 1, generator=generator)
    grain = torch.empty(count, 3, size, size).uniform_(-0.1, 0.1, generator=generator)
    picture = nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False) + grain
    picture = picture.clamp(0, 1)
    masked = picture.clone()
    masked[:, :, size // 2 :] = 0
    return torch.cat([masked, picture], 1)


def mels(count: int, seed: int) -> Tensor:
    """(count, 1, 80, 16) in [-4, 4], louder below and uneven in time, as speech is."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.empty(count, 1, 10, 6).uniform_(-3, 3, generator=generator)
    grain = torch.empty(count, 1, 80, 16).uniform_(-0.5, 0.5, generator=generator)
    smooth = nn.functional.interpolate(coarse, (80, 16), mode="bilinear", align_corners=False)
    return (smooth + grain + torch.linspace(1.5, -2.0, 80)[:, None]).clamp(-4, 4)


@torch.inference_mode()
def calibrate(network: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    """Replaces the statistics of all batch norms of a network by those of the given (mel, face) batches."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    network.train()
    for mel, face in batches:
        network(mel, face)
    network.eval()


def calibrated_state(variant: Variant, seed: int, count: int = 8) -> dict[str, Tensor]:
    """``seeded_state`` with the statistics of ``count`` pictures and sounds in its batch norms.

    The statistics are computed, so their last bits depend on the machine.
    """
    network = build(variant, seeded_state(variant, seed))
    calibrate(network, [(mels(count, seed + 1), faces(variant.size, count, seed + 2))])
    return {name: tensor for name, tensor in network.state_dict().items() if name in variant.plan.shapes()}


def statistics_of(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The statistics of all batch norms as two float16 vectors, in the order of sorted names; small enough to keep."""
    return {
        kind: np.concatenate([state[name].numpy() for name in sorted(state) if name.endswith(kind)]).astype(np.float16)
        for kind in STATISTICS
    }


def with_statistics(state: Mapping[str, Tensor], statistics: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """A copy of a state whose batch norms have the given statistics, see ``statistics_of``."""
    found = dict(state)
    for kind in STATISTICS:
        names = [name for name in sorted(state) if name.endswith(kind)]
        ends = list(itertools.accumulate(len(state[name]) for name in names))
        pieces = np.split(statistics[kind].astype(np.float32), ends[:-1])
        found |= {name: torch.from_numpy(piece) for name, piece in zip(names, pieces, strict=True)}
    return found


def damped(state: Mapping[str, Tensor], gain: float) -> dict[str, Tensor]:
    """A copy of a state whose last convolution, the one to three colours, is ``gain`` times as strong."""
    last = next(name for name, tensor in state.items() if tensor.ndim == 4 and tensor.shape[0] == 3)
    return {**state, last: state[last] * gain}


def official_layout(state: Mapping[str, Tensor], prefix: str = "module.") -> dict[str, object]:
    """What the authors' training scripts save: prefixed names, counters of batch norm, optimiser, steps."""
    tensors = {prefix + name: tensor for name, tensor in state.items()}
    for name in state:
        if name.endswith("running_mean"):
            tensors[prefix + name.replace("running_mean", "num_batches_tracked")] = torch.tensor(250_000)
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.5, 0.999), "params": [0, 1]}]}
    return {"state_dict": tensors, "optimizer": optimizer, "global_step": 250_000, "global_epoch": 31}


def random_checkpoint(path: Path, name: str = "wav2lip-96", seed: int = 0, count: int = 8) -> Path:
    """Writes a checkpoint of official layout: random weights, calibrated batch norms.

    Args:
        path: file to write, e.g. ``tmp_path / "wav2lip.pth"``.
        name: of the variant, see ``VARIANTS``.
        seed: other seeds, other weights.
        count: pictures the batch norms see.

    Returns:
        ``path``.
    """
    torch.save(official_layout(calibrated_state(VARIANTS[name], seed, count)), path)
    return path


def network_of(name: str = "wav2lip-96", seed: int = 0) -> Wav2Lip:
    """A network with calibrated random weights, without a file."""
    return build(VARIANTS[name], calibrated_state(VARIANTS[name], seed))
