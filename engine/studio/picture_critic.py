"""A critic that learns to tell drawn mouths from the network's: it makes teeth and lips sharp where L1 would blur them.

Place in the flow: composed and true mouth windows -> two losses, one for the critic, one for ``PictureNet``.

Invariants:
    * it sees the mouth window only, with the true opening as a fourth channel, and is judged only near the opening;
    * it is needed for training alone and never exported.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

_WIDTHS = (24, 48, 64)
_SLOPE = 0.2
_FEATURES, _FOOLED = 8.0, 0.2


class Critic(nn.Module):
    """Three strided convolutions and a verdict per patch of 22 pixels."""

    def __init__(self) -> None:
        super().__init__()
        channels = (4, *_WIDTHS)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(channels)
        )
        self.verdict = spectral_norm(nn.Conv2d(_WIDTHS[-1], 1, 1))

    def forward(self, picture: Tensor, opened: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judges windows.

        Args:
            picture: (B, 3, h, w) in [0, 1].
            opened: (B, 1, h, w) true opening.

        Returns:
            (B, 1, h / 8, w / 8) verdicts, high for real, and the features they rest on.
        """
        x = torch.cat([picture * 2 - 1, opened], 1)
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), _SLOPE)
            features.append(x)
        return self.verdict(x), features


def _near(opened: Tensor) -> Tensor:
    """(B, 1, h / 8, w / 8): 1 for patches that touch the opening."""
    return functional.max_pool2d(functional.max_pool2d(opened, 8), 3, 1, 1).ceil()


def critic_loss(critic: Critic, real: Tensor, made: Tensor, opened: Tensor) -> Tensor:
    """Hinge loss of the critic itself.

    Args:
        critic: the critic.
        real: (B, 3, h, w) true windows.
        made: (B, 3, h, w) the network's, detached.
        opened: (B, 1, h, w) true opening.
    """
    verdicts, _ = critic(torch.cat([real, made]), torch.cat([opened, opened]))
    on_real, on_made = verdicts.float().chunk(2)
    near = _near(opened)
    hinge = functional.relu(1 - on_real) + functional.relu(1 + on_made)
    return (hinge * near).sum() / (near.sum() + 1)


def maker_loss(critic: Critic, real: Tensor, made: Tensor, opened: Tensor) -> Tensor:
    """What the network should lower: distance in the critic's features, and being caught."""
    with torch.no_grad():
        _, wanted = critic(real, opened)
    verdicts, features = critic(made, opened)
    near = _near(opened)
    distance = sum(
        (
            (mine - true).float().abs().mean(1, keepdim=True)
            * functional.interpolate(near, size=mine.shape[-2:], mode="nearest")
        ).mean()
        for mine, true in zip(features, wanted, strict=True)
    )
    fooled = (-verdicts.float() * near).sum() / (near.sum() + 1)
    return _FEATURES * torch.as_tensor(distance) + _FOOLED * fooled
