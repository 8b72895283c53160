"""What makes a predicted mouth good: true motion, true opening, right light, and edges as sharp as the target's.

Place in the flow: layers of ``PictureNet`` + truth of a batch -> one number for ``picture_train``.

Invariants:
    * motion is judged everywhere the surface was visible in the reference, and most where it moves;
    * colours are judged in the mouth window alone: elsewhere right motion is all there is to learn.
"""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from engine.lipsync.builtin.crop import CROP_SIZE
from engine.studio.picture_data import Batch
from engine.studio.picture_net import MOUTH_COLUMNS, MOUTH_ROWS, Layers, lit

_REGION_BOOST = 4.0
_PHOTO, _EDGE, _FLOW, _ALPHA, _SHADE = 10.0, 10.0, 0.25, 4.0, 20.0


class Seen(NamedTuple):
    """The mouth windows of a batch: what the critic looks at, each (B, 3 or 1, h, w).

    Attributes:
        made: the network's composed picture.
        real: the target.
        opened: the true opening.
    """

    made: Tensor
    real: Tensor
    opened: Tensor


def pair_loss(batch: Batch, layers: Layers) -> tuple[Tensor, dict[str, float], Seen]:
    """Loss of rasterised pairs.

    Returns:
        The total, its parts for the log, and the windows it was judged on.
    """
    pixels = (layers.flow - batch.flow) * (CROP_SIZE / 2)
    importance = batch.seen * (1 + _REGION_BOOST * batch.weight)
    flow = (functional.smooth_l1_loss(pixels, torch.zeros_like(pixels), reduction="none", beta=0.5) * importance).mean()
    mouth = Batch(*(x if x.ndim == 2 else _window(x) for x in (getattr(batch, f.name) for f in fields(Batch))))
    inside = _window(lit(batch.inside, layers.shade))
    opening = _window(layers.alpha)
    picture = window_picture(batch.reference, _window(layers.flow), opening, inside)
    nearby = 0.2 + mouth.weight
    photo = ((picture - mouth.target).abs() * nearby).mean()
    edge = edge_loss(picture, mouth.target, nearby)
    alpha = functional.binary_cross_entropy(opening.clamp(1e-4, 1 - 1e-4), mouth.opened)
    shade = ((inside - mouth.target).square() * mouth.opened).sum() / (mouth.opened.sum() * 3 + 100)
    total = _PHOTO * photo + _EDGE * edge + _FLOW * flow + _ALPHA * alpha + _SHADE * shade
    parts = {"photo": photo, "edge": edge, "flow": flow, "alpha": alpha, "shade": shade}
    seen = Seen(picture, mouth.target, mouth.opened)
    return total, {name: float(value.detach()) for name, value in parts.items()}, seen


def window_picture(reference: Tensor, flow: Tensor, alpha: Tensor, inside: Tensor) -> Tensor:
    """The composed picture of the mouth window only.

    Args:
        reference: (B, 3, s, s) whole crop, since the window's flow may reach beyond it.
        flow, alpha, inside: the window of the network's layers and of the lit inside of the mouth.
    """
    size = reference.shape[-1]
    ramp = (torch.arange(size, device=flow.device, dtype=torch.float32) * 2 + 1) / size - 1
    y, x = torch.meshgrid(ramp[MOUTH_ROWS], ramp[MOUTH_COLUMNS], indexing="ij")
    grid = torch.stack([x + flow[:, 0], y + flow[:, 1]], -1)
    warped = functional.grid_sample(reference, grid, padding_mode="border", align_corners=False)
    return warped * (1 - alpha) + inside * alpha


def _window(x: Tensor) -> Tensor:
    return x[:, :, MOUTH_ROWS, MOUTH_COLUMNS]


def edge_loss(picture: Tensor, target: Tensor, importance: Tensor) -> Tensor:
    """L1 between colour steps to the right and down, over three scales.

    Per channel: judged by brightness alone, colours drift.
    """
    total = picture.new_zeros(())
    for _ in range(3):
        for axis in (2, 3):
            step = (picture.diff(dim=axis) - target.diff(dim=axis)).abs()
            total = total + (step * importance.narrow(axis, 1, importance.shape[axis] - 1)).mean()
        picture, target, importance = (functional.avg_pool2d(x, 2) for x in (picture, target, importance))
    return total / 6
