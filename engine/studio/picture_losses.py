"""What makes a predicted mouth good: true motion, true opening, right colours, and edges as sharp as the target's.

Place in the flow: layers of ``PictureNet`` + truth of a batch -> one number for ``picture_train``.

Invariants:
    * the mouth region counts several times as much as the still rest of the picture;
    * motion is only judged where the surface was visible in the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from engine.lipsync.builtin.crop import CROP_SIZE
from engine.studio.picture_data import Batch
from engine.studio.picture_net import Layers, compose

_REGION_BOOST = 8.0
_PHOTO, _EDGE, _FLOW, _ALPHA, _INTERIOR = 8.0, 8.0, 0.25, 0.6, 4.0


def pair_loss(batch: Batch, layers: Layers) -> tuple[Tensor, dict[str, float], Tensor]:
    """Loss of rasterised pairs.

    Returns:
        The total, its parts for the log, and the composed pictures (B, 3, s, s).
    """
    importance = 1 + _REGION_BOOST * batch.weight
    importance = importance / importance.mean()
    picture = compose(batch.reference, layers)
    photo = ((picture - batch.target).abs() * importance).mean()
    edge = edge_loss(picture, batch.target, importance)
    pixels = (layers.flow - batch.flow) * (CROP_SIZE / 2)
    flow = (functional.smooth_l1_loss(pixels, torch.zeros_like(pixels), reduction="none", beta=0.5)
            * batch.seen * importance).mean()  # fmt: skip
    known = (batch.seen + batch.opened).clamp(0, 1) * 0.9 + 0.1
    cross = functional.binary_cross_entropy(layers.alpha.clamp(1e-4, 1 - 1e-4), batch.opened, reduction="none")
    alpha = (cross * known * importance).mean()
    inside = functional.max_pool2d(batch.opened, 3, 1, 1)
    interior = ((layers.interior - batch.target).abs() * inside).sum() / (inside.sum() * 3 + 100)
    total = _PHOTO * photo + _EDGE * edge + _FLOW * flow + _ALPHA * alpha + _INTERIOR * interior
    parts = {"photo": photo, "edge": edge, "flow": flow, "alpha": alpha, "interior": interior}
    return total, {name: float(value.detach()) for name, value in parts.items()}, picture


def edge_loss(picture: Tensor, target: Tensor, importance: Tensor) -> Tensor:
    """L1 between brightness steps to the right and down, over three scales."""
    picture, target = picture.mean(1, keepdim=True), target.mean(1, keepdim=True)
    total = picture.new_zeros(())
    for _ in range(3):
        for axis in (2, 3):
            step = (picture.diff(dim=axis) - target.diff(dim=axis)).abs()
            total = total + (step * importance.narrow(axis, 1, importance.shape[axis] - 1)).mean()
        picture, target, importance = (functional.avg_pool2d(x, 2) for x in (picture, target, importance))
    return total / 6
