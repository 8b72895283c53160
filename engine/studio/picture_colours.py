"""Settles the colours of the mouth's inside after training: the affine mix of colour logits that fits the truth best.

Place in the flow: checkpoint of ``picture_train`` -> ``settle`` folds the mix into the last convolution -> export.
Command: ``python -m engine.studio.picture_colours --pairs DIR [--traced DIR] CHECKPOINT OUT``.

Invariants:
    * only the interior's three channels change; flow and alpha keep their bits;
    * the network's shape and cost stay the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.studio.picture_data import Pairs
from engine.studio.picture_net import PictureNet
from engine.studio.picture_train import load_average

_INTERIOR = slice(2, 5)
_SUBPIXELS = 4


def colour_samples(net: PictureNet, sources: Sequence[Pairs], people: int) -> tuple[Tensor, Tensor]:
    """Predicted logits and true colours inside open mouths, (n, 3) each.

    Args:
        net: trained network.
        sources: where the truth comes from; all count the same.
        people: people per source, at most.
    """
    logits, truth = [], []
    with torch.inference_mode():
        for pairs in sources:
            own_logits, own_truth = [], []
            for person in range(min(people, len(pairs))):
                batch = pairs.exact(person, slice(1, None))
                interior = net(batch.reference, batch.mouth).interior.clamp(1e-3, 1 - 1e-3)
                inside = batch.opened[:, 0] > 0.9
                own_logits.append(torch.logit(interior).permute(0, 2, 3, 1)[inside])
                own_truth.append(batch.target.permute(0, 2, 3, 1)[inside])
            chosen = torch.linspace(0, sum(map(len, own_truth)) - 1, 20_000).long()
            logits.append(torch.cat(own_logits)[chosen])
            truth.append(torch.cat(own_truth)[chosen])
    return torch.cat(logits), torch.cat(truth)


def fit_mix(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (3, 3) and offset (3,) on logits with the least squared colour error, bright pixels counting more."""
    matrix = torch.eye(3).requires_grad_()
    offset = torch.zeros(3).requires_grad_()
    weight = 0.1 + truth.mean(1, keepdim=True)
    search = torch.optim.LBFGS([matrix, offset], max_iter=100, line_search_fn="strong_wolfe")

    def error() -> Tensor:
        search.zero_grad()
        loss = ((torch.sigmoid(logits @ matrix.T + offset) - truth).square() * weight).mean()
        loss.backward()
        return loss

    search.step(error)
    return matrix.detach(), offset.detach()


def settle(net: PictureNet, matrix: Tensor, offset: Tensor) -> None:
    """Folds a mix of colour logits into the network's last convolution, in place."""
    with torch.no_grad():
        weight = net.leave.weight.unflatten(0, (-1, _SUBPIXELS))
        weight[_INTERIOR] = torch.einsum("ij,j...->i...", matrix, weight[_INTERIOR].clone())
        if net.leave.bias is not None:
            bias = net.leave.bias.unflatten(0, (-1, _SUBPIXELS))
            bias[_INTERIOR] = matrix @ bias[_INTERIOR].clone() + offset[:, None]


def main(argv: list[str] | None = None) -> int:
    """Command line, see the module's docstring."""
    summary = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m engine.studio.picture_colours", description=summary)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the shards")
    parser.add_argument("--traced", type=Path, help="folder with shards of picture_traced")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="checkpoint to write; only its average is of use")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    net = load_average(options.checkpoint)
    sources = [Pairs(options.pairs, ("001-", "002-"))]
    if options.traced:
        sources.append(Pairs(options.traced, ("",)))
    matrix, offset = fit_mix(*colour_samples(net, sources, people=60))
    settle(net, matrix, offset)
    torch.save({"average": net.state_dict()}, options.out)
    print("matrix", matrix.numpy().round(3).tolist(), "offset", offset.numpy().round(3).tolist())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
