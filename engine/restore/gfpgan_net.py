"""GFPGANv1Clean in plain torch: a U-Net reads the face, a StyleGAN2 decoder draws it anew under its guidance.

Place in the flow: aligned face, RGB in [-1, 1] -> ``Gfpgan`` -> restored face, RGB around [-1, 1].

After "Towards Real-World Blind Face Restoration with Generative Facial Prior" (Wang et al., CVPR 2021). Names of
parameters and buffers are those of the official checkpoints 1.2 to 1.4, ``params_ema``.

Invariants:
    * modulated convolutions scale activations and keep their weights constant, which equals scaling the weights but
      exports cleanly, batches and loses less in reduced precision;
    * noise is the checkpoint's own, so the same face always gives the same picture;
    * with a plan, features are cut to it (see ``engine.restore.window``); without one all is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.restore.window import Window, plan

_SLOPE = 0.2
_EPSILON = 1e-8
_STYLE_LAYERS = 8


@dataclass(frozen=True, slots=True)
class GfpganShape:
    """What tells one network of this architecture from another.

    Attributes:
        size: side of the face it reads and draws, pixels; a power of two, 16 or more.
        unet: channels of the U-Net at 4, 8, ... ``size`` pixels.
        style: channels of the decoder at the same resolutions.
        style_features: length of a style code.
    """

    size: int
    unet: tuple[int, ...]
    style: tuple[int, ...]
    style_features: int = 512

    @staticmethod
    def of(size: int = 512, channel_multiplier: int = 2, narrow: float = 1.0, style_features: int = 512) -> GfpganShape:
        """The shape the original's arguments describe; its defaults are the official checkpoints'."""
        full = {4: 512, 8: 512, 16: 512, 32: 512} | {
            side: 16384 * channel_multiplier // side for side in (64, 128, 256, 512, 1024)
        }
        sides = [4 << step for step in range(int(math.log2(size)) - 1)]
        return GfpganShape(
            size,
            tuple(int(full[side] * narrow * 0.5) for side in sides),
            tuple(int(full[side] * narrow) for side in sides),
            style_features,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Resolutions the decoder doubles to: 8, 16, ... ``size``."""
        return tuple(8 << step for step in range(len(self.style) - 1))

    @property
    def latents(self) -> int:
        """Style codes, one for each styled layer and one for the last colour."""
        return 2 * len(self.style)


def _activate(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _cut(x: Tensor, window: Window) -> Tensor:
    rows, columns = window.slices
    return x[:, :, rows, columns]


def _double_cut(x: Tensor, low: Window, high: Window) -> Tensor:
    """Doubles features of window ``low`` and cuts them to window ``high`` of twice the resolution."""
    origin = Window(2 * low.top, 2 * low.bottom, 2 * low.left, 2 * low.right)
    return _cut(_double(x), high.inside(origin))


class DownBlock(nn.Module):
    """Residual block that halves the resolution: (B, in, H, W) -> (B, out, H / 2, W / 2)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, out_channels, 3, 1, 1)
        self.skip = nn.Conv2d(channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Bilinear halving without antialiasing is the mean of two by two pixels.
        out = functional.avg_pool2d(_activate(self.conv1(x)), 2)
        return _activate(self.conv2(out)) + self.skip(functional.avg_pool2d(x, 2))


class UpBlock(nn.Module):
    """Residual block that doubles the resolution: features of window ``low`` -> those of window ``high``."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, out_channels, 3, 1, 1)
        self.skip = nn.Conv2d(channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor, low: Window, high: Window) -> Tensor:
        out = _double_cut(_activate(self.conv1(x)), low, high)
        # A 1 x 1 convolution commutes with doubling and costs a quarter before it.
        return _activate(self.conv2(out)) + _double_cut(self.skip(x), low, high)


class ModulatedConv(nn.Module):
    """Convolution whose input channels are weighted by a style.

    Scaling the weights by the style s and dividing each filter by its norm d equals convolving s * x and scaling the
    result by 1 / d; d needs only the squared style and the squared weights summed over the kernel.
    """

    def __init__(self, channels: int, out_channels: int, kernel: int, style_features: int, demodulate: bool) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_features, channels)
        self.weight = nn.Parameter(torch.empty(1, out_channels, channels, kernel, kernel))
        self.demodulate = demodulate
        self.padding = kernel // 2
        self.energy: Tensor | None
        self.register_buffer("energy", None, persistent=False)

    def scale(self, style: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, in, 1, 1) factors of the input and (B, out, 1, 1) of the output, None without demodulation."""
        factors = self.modulation(style)
        norm = None
        if self.demodulate:
            energy = self.weight[0].float().square().sum((2, 3)) if self.energy is None else self.energy
            norm = torch.rsqrt(factors.square() @ energy.t() + _EPSILON)[:, :, None, None]
        return factors[:, :, None, None], norm

    def convolve(self, x: Tensor) -> Tensor:
        """The constant part."""
        return functional.conv2d(x, self.weight[0], padding=self.padding)


class StyleConv(nn.Module):
    """Modulated convolution, noise, bias, activation."""

    def __init__(self, channels: int, out_channels: int, style_features: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(channels, out_channels, 3, style_features, demodulate=True)
        self.weight = nn.Parameter(torch.empty(1))
        self.bias = nn.Parameter(torch.empty(1, out_channels, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor, cut: tuple[Window, Window] | None = None) -> Tensor:
        """Args: (B, C, H, W) features; (B, F) style; (1, 1, H', W') noise; windows to double from and to, or None."""
        factors, norm = self.modulated_conv.scale(style)
        assert norm is not None
        x = x * factors.to(x.dtype)
        if cut is not None:
            x = _double_cut(x, *cut)
        out = self.modulated_conv.convolve(x) * (norm * math.sqrt(2.0)).to(x.dtype)
        return _activate(out + (self.weight * noise + self.bias))


class ToRgb(nn.Module):
    """Features to colour, added to the colour of half the resolution."""

    def __init__(self, channels: int, style_features: int) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv(channels, 3, 1, style_features, demodulate=False)
        self.bias = nn.Parameter(torch.empty(1, 3, 1, 1))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        factors, _ = self.modulated_conv.scale(style)
        return self.modulated_conv.convolve(x * factors.to(x.dtype)) + self.bias


class ConstantInput(nn.Module):
    """What the decoder starts from: (1, C, 4, 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, channels, 4, 4))


class NoiseImages(nn.Module):
    """Fixed noise of each styled layer: ``noise0`` at 4 pixels, then two at each resolution."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        for index, size in enumerate([4, *(size for size in sizes for _ in range(2))]):
            self.register_buffer(f"noise{index}", torch.empty(1, 1, size, size))

    def cut(self, index: int, window: Window) -> Tensor:
        """(1, 1, height, width) of one layer."""
        return _cut(self.get_buffer(f"noise{index}"), window)


class Decoder(nn.Module):
    """StyleGAN2 whose features are scaled and shifted by the U-Net's, half of the channels at each resolution."""

    def __init__(self, shape: GfpganShape) -> None:
        super().__init__()
        features, channels = shape.style_features, shape.style
        # The checkpoint brings the mapping network along; style codes come from the U-Net, past it.
        layers: list[nn.Module] = [nn.Identity()]
        for _ in range(_STYLE_LAYERS):
            layers += [nn.Linear(features, features), nn.Identity()]
        self.style_mlp = nn.Sequential(*layers)
        self.constant_input = ConstantInput(channels[0])
        self.style_conv1 = StyleConv(channels[0], channels[0], features)
        self.to_rgb1 = ToRgb(channels[0], features)
        self.style_convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for low, high in pairwise(channels):
            self.style_convs.extend([StyleConv(low, high, features), StyleConv(high, high, features)])
            self.to_rgbs.append(ToRgb(high, features))
        self.noises = NoiseImages(shape.sizes)

    def forward(
        self, latents: Tensor, conditions: Sequence[tuple[Tensor, Tensor]], windows: Sequence[Window]
    ) -> Tensor:
        """Draws the face.

        Args:
            latents: (B, L, F) style codes.
            conditions: scale and shift of each resolution, cut to its window.
            windows: of the constant input and of each resolution.

        Returns:
            (B, 3, h, w) colours of the last window.
        """
        constant = self.constant_input.weight.expand(latents.shape[0], -1, -1, -1)
        out = self.style_conv1(constant, latents[:, 0], self.noises.cut(0, windows[0]))
        rgb = self.to_rgb1(out, latents[:, 1])
        for level, (scale, shift) in enumerate(conditions):
            low, high = windows[level], windows[level + 1]
            first = 2 * level + 1
            out = self.style_convs[2 * level](out, latents[:, first], self.noises.cut(first, high), (low, high))
            same, guided = out.chunk(2, 1)
            out = torch.cat([same, guided * scale + shift], 1)
            out = self.style_convs[2 * level + 1](out, latents[:, first + 1], self.noises.cut(first + 1, high))
            rgb = self.to_rgbs[level](out, latents[:, first + 2]) + _double_cut(rgb, low, high)
        return rgb


def _condition(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, 1, 1),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(channels, out_channels, 3, 1, 1),
    )


class Gfpgan(nn.Module):
    """The whole network; its parameters are uninitialised until a checkpoint is loaded."""

    def __init__(self, shape: GfpganShape) -> None:
        super().__init__()
        self.shape = shape
        unet, style = shape.unet, shape.style
        self.conv_body_first = nn.Conv2d(3, unet[-1], 1)
        self.conv_body_down = nn.ModuleList(DownBlock(high, low) for high, low in pairwise(reversed(unet)))
        self.final_conv = nn.Conv2d(unet[0], unet[0], 3, 1, 1)
        self.conv_body_up = nn.ModuleList(UpBlock(low, high) for low, high in pairwise(unet))
        # Side outputs of the official training; kept because official checkpoints hold them.
        self.toRGB = nn.ModuleList(nn.Conv2d(channels, 3, 1) for channels in unet[1:])
        self.final_linear = nn.Linear(unet[0] * 16, shape.latents * shape.style_features)
        self.stylegan_decoder = Decoder(shape)
        pairs = list(zip(unet[1:], style[1:], strict=True))
        self.condition_scale = nn.ModuleList(_condition(channels, out // 2) for channels, out in pairs)
        self.condition_shift = nn.ModuleList(_condition(channels, out // 2) for channels, out in pairs)

    def reduce(self, dtype: torch.dtype) -> Gfpgan:
        """Computes pictures in ``dtype``, channels last, from now on; styles, a thousandth of the work, stay float32.

        Keeps the norms of the styled filters, which follow from the exact weights; changes and returns this network.
        """
        for module in self.modules():
            if isinstance(module, ModulatedConv):
                module.energy = module.weight.detach()[0].square().sum((2, 3))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                continue
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if name == "energy":
                    continue
                tensor.data = tensor.data.to(dtype)
                if tensor.ndim >= 4:
                    # Filters of styled layers have an axis for the batch in front.
                    filters = tensor.data.view(tensor.shape[-4:]) if tensor.shape[0] == 1 else tensor.data
                    tensor.data = filters.contiguous(memory_format=torch.channels_last).view(tensor.shape)
        return self

    def forward(self, faces: Tensor, window: Window | None = None) -> Tensor:
        """Restores faces.

        Args:
            faces: (B, 3, S, S) RGB in [-1, 1], aligned to the FFHQ template.
            window: which rectangle of the result is wanted; all of it when None.

        Returns:
            (B, 3, h, w) RGB of the window; may leave [-1, 1].
        """
        shape = self.shape
        wanted = window or Window.whole(shape.size)
        cuts = (Window.whole(4), *plan(shape.sizes, wanted))
        features = _activate(self.conv_body_first(faces.to(self.conv_body_first.weight.dtype)))
        skips = []
        for down in self.conv_body_down:
            features = down(features)
            skips.append(features)
        features = _activate(self.final_conv(features))
        latents = self.final_linear(features.flatten(1).float()).view(-1, shape.latents, shape.style_features)
        conditions = []
        for level, up in enumerate(self.conv_body_up):
            low, high = cuts[level], cuts[level + 1]
            features = up(features + _cut(skips.pop(), low), low, high)
            conditions.append((self.condition_scale[level](features), self.condition_shift[level](features)))
        return _cut(self.stylegan_decoder(latents, conditions, cuts), wanted.inside(cuts[-1]))
