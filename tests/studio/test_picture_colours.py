"""Settling the interior's colours by folding an affine mix into the last convolution."""

from __future__ import annotations

import torch

from engine.lipsync.builtin.crop import CROP_SIZE
from engine.studio.picture_colours import fit_mix, settle
from engine.studio.picture_net import PictureNet


def test_the_fit_finds_the_mix_that_made_the_colours() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 3)
    matrix, offset = torch.tensor([[1.2, 0.1, 0.0], [0.0, 0.9, 0.2], [0.3, 0.0, 0.8]]), torch.tensor([0.1, 0.0, 0.4])
    found, moved = fit_mix(logits, torch.sigmoid(logits @ matrix.T + offset))
    assert torch.allclose(found, matrix, atol=0.02)
    assert torch.allclose(moved, offset, atol=0.02)


def test_folding_changes_the_colours_as_told_and_nothing_else() -> None:
    torch.manual_seed(0)
    net = PictureNet().eval()
    picture, mouth = torch.rand(1, 3, CROP_SIZE, CROP_SIZE), torch.rand(1, 10)
    matrix, offset = torch.tensor([[1.2, 0.1, 0.0], [0.0, 0.9, 0.2], [0.3, 0.0, 0.8]]), torch.tensor([0.1, 0.0, 0.4])
    with torch.inference_mode():
        before = net(picture, mouth)
    settle(net, matrix, offset)
    with torch.inference_mode():
        after = net(picture, mouth)
    window = (slice(None), slice(None), slice(40, 60), slice(50, 70))
    logits = torch.logit(before.interior[window])
    expected = torch.sigmoid(torch.einsum("ij,bjyx->biyx", matrix, logits) + offset[:, None, None])
    assert torch.allclose(after.interior[window], expected, atol=1e-4)
    assert torch.equal(after.flow, before.flow)
    assert torch.equal(after.alpha, before.alpha)
