"""The picture network: a face crop and a mouth vector in; a warp of the crop, its opening and its light inside out.

Place in the flow: ``picture_train`` trains it, ``picture_export`` turns it into the file that
``engine.lipsync.builtin`` runs.

Invariants:
    * the mouth vector 0 gives exactly zero flow and zero alpha, and both grow smoothly from there;
    * flow is a backward warp in grid units: the output at x shows the input at x + flow, one grid unit = half a crop;
    * the encoder sees only the picture, the decoder is told the mouth at every scale;
    * cheeks and chin move by a coarse flow; fine flow and the opening exist only in a window around the mouth;
    * teeth and tongue are not its business: they come from a drawn picture, which it lights through ``shade``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.lipsync.builtin.crop import CROP_SIZE
from engine.lipsync.builtin.warp import GATE_SLOPE
from engine.types import MOUTH_SHAPES

_WIDTHS = (24, 32, 64, 96)
_MOUTH_CODE = 64
MOUTH_ROWS, MOUTH_COLUMNS = slice(24, 88), slice(28, 100)
"""The window of fine detail, pixels of the crop: 99.9 % of all open mouths lie in it; multiples of 4."""
_TAPER_PIXELS = 6
COARSE_SIZE = CROP_SIZE // 4
"""Side of the coarse flow fields, pixels."""
_OUTPUTS = 3
_DEEPEST_SHADE = 2.0
"""Natural logarithm of the largest factor that ``shade`` may be."""
_COARSE_FLOW_UNIT = 0.10
_FINE_FLOW_UNIT = 0.03


class Layers(NamedTuple):
    """What the network says about a batch of pictures.

    Attributes:
        flow: (B, 2, s, s) backward warp in grid units, x then y.
        alpha: (B, 1, s, s) in [0, 1], where the mouth's inside covers the warped picture.
        shade: (B, 3, COARSE_SIZE, COARSE_SIZE) BGR factors on the inside's display values, about 1.
    """

    flow: Tensor
    alpha: Tensor
    shade: Tensor


class _Block(nn.Module):
    """Residual 3 x 3 convolution, modulated by the mouth where there is one."""

    def __init__(self, channels: int, mouth: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.film = nn.Linear(_MOUTH_CODE, 2 * channels) if mouth else None

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        y = self.norm(self.convolution(x))
        if self.film is not None:
            scale, shift = self.film(code)[:, :, None, None].chunk(2, 1)
            y = y * (1 + scale) + shift
        return functional.relu(x + y)


def _down(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class PictureNet(nn.Module):
    """U-Net over 64, 32, 16 and 8 pixels; its outputs for every second pixel are interleaved to full resolution."""

    taper: Tensor

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = _WIDTHS
        self.code = nn.Sequential(
            nn.Linear(len(MOUTH_SHAPES), _MOUTH_CODE), nn.ReLU(), nn.Linear(_MOUTH_CODE, _MOUTH_CODE), nn.ReLU()
        )
        self.enter = _down(3, a, kernel=4)
        self.down_b, self.keep_b = _down(a, b), _Block(b, False)
        self.down_c, self.keep_c = _down(b, c), _Block(c, False)
        self.place = nn.Parameter(torch.zeros(1, c, CROP_SIZE // 8, CROP_SIZE // 8))
        self.down_d = _down(c, d)
        self.deep, self.deeper = _Block(d, True), _Block(d, True)
        self.up_c, self.mix_c = nn.Conv2d(d, c, 1), _Block(c, True)
        self.up_b, self.mix_b, self.tune_b = nn.Conv2d(c, b, 1), _Block(b, True), _Block(b, True)
        self.up_a, self.mix_a, self.tune_a = nn.Conv2d(b, a, 1), _Block(a, True), _Block(a, True)
        self.fine_a, self.last_a = _Block(a, True), _Block(a, False)
        self.coarse = nn.Conv2d(b, 2 * len(MOUTH_SHAPES), 3, padding=1)
        self.usual = nn.Parameter(torch.zeros(1, 2 * len(MOUTH_SHAPES), COARSE_SIZE, COARSE_SIZE))
        self.leave = nn.Conv2d(a, 4 * _OUTPUTS, 3, padding=1)
        self.light = nn.Conv2d(b, 3, 3, padding=1)
        for value in (*self.coarse.parameters(), *self.light.parameters()):
            nn.init.zeros_(value)
        self.register_buffer("taper", _taper()[None, None], persistent=False)

    def forward(self, reference: Tensor, mouth: Tensor) -> Layers:
        """Predicts the layers.

        Args:
            reference: (B, 3, 128, 128) BGR in [0, 1], the crop at rest.
            mouth: (B, 10) in [0, 1].
        """
        return self.decode(self.encode(reference), mouth)

    def encode(self, reference: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the decoder needs of a picture: features at 64, 32, 16 and 8 pixels."""
        a = self.enter(reference * 2 - 1)
        b = self.keep_b(self.down_b(a))
        c = self.keep_c(self.down_c(b)) + self.place
        return a, b, c, self.down_d(c)

    def decode(self, features: tuple[Tensor, Tensor, Tensor, Tensor], mouth: Tensor) -> Layers:
        """The layers of a mouth for an encoded picture."""
        a, b, c, d = features
        code = self.code(mouth)
        d = self.deeper(self.deep(d, code), code)
        c = self.mix_c(c + _doubled(self.up_c(d)), code)
        b = self.tune_b(self.mix_b(b + _doubled(self.up_b(c)), code), code)
        # Surfaces move nearly in proportion to every weight: one field per mouth shape, mixed by the mouth itself.
        fields = (self.coarse(b).float() * _COARSE_FLOW_UNIT + self.usual).unflatten(1, (len(MOUTH_SHAPES), 2))
        mixed = (fields * mouth.float()[:, :, None, None, None]).sum(1)
        coarse = functional.interpolate(mixed, scale_factor=4, mode="bilinear", align_corners=False)
        shade = torch.exp(_DEEPEST_SHADE * torch.tanh(self.light(b).float() / _DEEPEST_SHADE))
        a = _window(a, 2) + _doubled(self.up_a(_window(b, 4)))
        a = self.last_a(self.fine_a(self.tune_a(self.mix_a(a, code), code), code))
        fine = functional.pixel_shuffle(self.leave(a).float(), 2)
        # Zero at rest and smooth: the whole mouth must be still for the gate to close.
        gate = torch.tanh(GATE_SLOPE * mouth.float().amax(1))[:, None, None, None]
        flow = coarse + _placed(fine[:, 0:2] * (_FINE_FLOW_UNIT * gate * self.taper))
        alpha = _placed(torch.sigmoid(fine[:, 2:3] - 2) * gate * self.taper)
        return Layers(flow, alpha, shade)


def _taper() -> Tensor:
    """1 inside the mouth window, falling to 0 at its border, so that no edge of it ever shows."""
    sides = [MOUTH_ROWS.stop - MOUTH_ROWS.start, MOUTH_COLUMNS.stop - MOUTH_COLUMNS.start]
    ramps = [torch.minimum(torch.arange(n) + 1, n - torch.arange(n)).div(_TAPER_PIXELS + 1).clamp(max=1) for n in sides]
    return torch.outer(ramps[0], ramps[1])


def _window(x: Tensor, reduction: int) -> Tensor:
    """The mouth window of features that are ``reduction`` times smaller than the crop."""
    rows, columns = (slice(s.start // reduction, s.stop // reduction) for s in (MOUTH_ROWS, MOUTH_COLUMNS))
    return x[:, :, rows, columns]


def _placed(x: Tensor) -> Tensor:
    """The mouth window put back into a crop of zeros."""
    columns = (MOUTH_COLUMNS.start, CROP_SIZE - MOUTH_COLUMNS.stop)
    return functional.pad(x, (*columns, MOUTH_ROWS.start, CROP_SIZE - MOUTH_ROWS.stop))


def _doubled(x: Tensor) -> Tensor:
    # Autocast would widen the result, and with it everything that follows, to 32 bits.
    with torch.autocast(x.device.type, enabled=False):
        return functional.interpolate(x, scale_factor=2, mode="nearest")


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Samples a picture at every pixel's place plus flow.

    Args:
        picture: (B, 3, s, s).
        flow: (B, 2, s, s) grid units.
    """
    size = picture.shape[-1]
    ramp = (torch.arange(size, device=picture.device, dtype=flow.dtype) * 2 + 1) / size - 1
    y, x = torch.meshgrid(ramp, ramp, indexing="ij")
    grid = torch.stack([x + flow[:, 0], y + flow[:, 1]], -1)
    return functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)


def lit(inside: Tensor, shade: Tensor) -> Tensor:
    """The inside of the mouth (B, 3, s, s) in its light: ``shade`` enlarged to it and multiplied."""
    factor = inside.shape[-1] // shade.shape[-1]
    return inside * functional.interpolate(shade, scale_factor=factor, mode="bilinear", align_corners=False)


def compose(reference: Tensor, inside: Tensor, layers: Layers) -> Tensor:
    """(B, 3, s, s) the picture that the layers make of the reference and the mouth's inside, both (B, 3, s, s)."""
    return warp(reference, layers.flow) * (1 - layers.alpha) + lit(inside, layers.shade) * layers.alpha


def count_macs(net: PictureNet) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one picture."""
    total = 0
    hooks = []

    def add(module: nn.Conv2d | nn.Linear, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            hooks.append(module.register_forward_hook(add))
    training = net.training
    with torch.no_grad():
        device = net.usual.device
        net.eval()(
            torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=device), torch.zeros(1, len(MOUTH_SHAPES), device=device)
        )
    net.train(training)
    for hook in hooks:
        hook.remove()
    return total
