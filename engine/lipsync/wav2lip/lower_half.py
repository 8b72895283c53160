"""A Wav2Lip network that computes only the rows that are pasted, exactly.

Place in the flow: networks.Wav2Lip -> ``FaceFeatures`` (once per picture) and ``LowerHalf`` (once per frame) ->
OpenVINO, torch on a GPU, ONNX.

The lower half of the output is all that is ever shown. Walking back from its first row, every layer of the decoder
tells which rows of its input can reach it; the rows above are never computed, and the face's features above them are
never kept. What is computed is computed from exactly the same numbers.

Invariants:
    * ``LowerHalf(mel, *FaceFeatures(face))`` equals rows ``first_row`` and below of ``Wav2Lip(mel, face)``, up to the
      order in which a runtime adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.lipsync.wav2lip.blocks import ATTENTION_KERNEL, Block, Conv
from engine.lipsync.wav2lip.crop import first_row_of
from engine.lipsync.wav2lip.networks import Layer, Wav2Lip


@dataclass(frozen=True)
class Rows:
    """From which row on a layer reads and gives.

    Attributes:
        reads: first input row.
        gives: first output row.
    """

    reads: int
    gives: int


def rows_read(conv: Conv, gives: int) -> int:
    """First input row that can reach output row ``gives`` or one below it."""
    if conv.transposed:
        # Output row y gathers from input rows i with stride * i = y + padding - k for k in [0, kernel).
        return max(0, math.ceil((gives + conv.padding - conv.kernel + 1) / conv.stride[0]))
    return max(0, gives * conv.stride[0] - conv.padding)


def plan_block(block: Block, gives: int) -> tuple[Rows, ...]:
    """The rows of every layer of a block of which output rows from ``gives`` on are wanted."""
    rows = []
    for conv in reversed(block):
        reads = rows_read(conv, gives)
        rows.append(Rows(reads, gives))
        gives = reads
    return tuple(reversed(rows))


def run_layer(layer: Layer, conv: Conv, rows: Rows, x: Tensor) -> Tensor:
    """A layer on an input that begins at row ``rows.reads``; its output begins at ``rows.gives``."""
    body, norm = layer.conv_block
    if conv.transposed:
        y = body(x)[:, :, rows.gives - conv.stride[0] * rows.reads :]
    else:
        # The picture's own border is padded as ever; where rows were left out above, there is nothing to pad.
        whole = rows.reads == 0
        top = conv.padding if whole else 0
        padded = F.pad(x, (conv.padding, conv.padding, top, conv.padding))
        y = F.conv2d(padded, cast(Tensor, body.weight), cast(Tensor, body.bias), conv.stride)
        y = y[:, :, rows.gives :] if whole else y
    y = norm(y)
    return layer.act(y + x[:, :, rows.gives - rows.reads :] if conv.residual else y)


class _Block(nn.Module):
    """Some layers in a row, from one first row to another."""

    def __init__(self, layers: nn.Sequential, block: Block, rows: tuple[Rows, ...]) -> None:
        super().__init__()
        self.layers, self.block, self.rows = layers, block, rows

    @property
    def reads(self) -> int:
        return self.rows[0].reads

    def forward(self, x: Tensor) -> Tensor:
        for layer, conv, rows in zip(self.layers, self.block, self.rows, strict=True):
            x = run_layer(cast(Layer, layer), conv, rows, x)
        return x


class LowerHalf(nn.Module):
    """Sound and a face's features -> the strip of the picture that is shown.

    Attributes:
        first_row: first row of the strip.
        feature_rows: for every feature, large to small, the first row that is needed.
    """

    def __init__(self, network: Wav2Lip, first_row: int | None = None) -> None:
        """Plans the rows.

        Args:
            network: in evaluation mode.
            first_row: first row wanted; the lower half and its seam when None.
        """
        super().__init__()
        self.network = network
        self.first_row = first_row_of(network.variant) if first_row is None else first_row
        plan = network.variant.plan
        output = nn.Sequential(*list(network.output_block.children())[: len(plan.output)])
        self.output = _Block(output, plan.output, plan_block(plan.output, self.first_row))
        self.colours = nn.Sequential(*list(network.output_block.children())[len(plan.output) :])
        wanted, blocks, joined = self.output.reads, [], []
        for layers, block in zip(reversed(network.face_decoder_blocks), reversed(plan.face_decoder), strict=True):
            joined.append(wanted)
            blocks.append(_Block(cast(nn.Sequential, layers), block, plan_block(block, wanted)))
            wanted = blocks[-1].reads
        self.blocks = nn.ModuleList(reversed(blocks))
        self._joined = tuple(reversed(joined))
        halo = ATTENTION_KERNEL // 2 if plan.attention else 0
        self.feature_rows = tuple(max(0, row - halo) for row in reversed(self._joined))

    def forward(self, mel: Tensor, *features: Tensor) -> Tensor:
        """Draws the strip.

        Args:
            mel: (B, 1, 80, 16) in [-4, 4].
            features: what ``FaceFeatures`` gave, large to small.

        Returns:
            (B, 3, S - first_row, S); clip to [0, 1].
        """
        x = self.network.encode_audio(mel)
        for block, feature, row, start in zip(
            self.blocks, reversed(features), self._joined, reversed(self.feature_rows), strict=True
        ):
            x = block(x)
            own = feature[:, :, row - start :]
            if self.network.sam is not None:
                weight = self._attention(feature, row - start, start == 0)
                x = x * weight + x
            x = torch.cat([x, own], 1)
        return self.colours(self.output(x))

    def _attention(self, feature: Tensor, above: int, whole: bool) -> Tensor:
        """(B, 1, h, W) weights of the rows from ``above`` on."""
        conv = self.network.sam.sa.conv1  # type: ignore[union-attr]
        halo = ATTENTION_KERNEL // 2
        summary = torch.cat([feature.mean(1, keepdim=True), feature.amax(1, keepdim=True)], 1)
        y = F.conv2d(F.pad(summary, (halo, halo, halo if whole else 0, halo)), conv.weight)
        return torch.sigmoid(y[:, :, above:] if whole else y)


class FaceFeatures(nn.Module):
    """A face -> the features that ``LowerHalf`` needs, cut to its rows."""

    def __init__(self, network: Wav2Lip, feature_rows: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.feature_rows = network, feature_rows

    def forward(self, face: Tensor) -> tuple[Tensor, ...]:
        """(B, 6, S, S) in [0, 1] -> one (B, C, H - row, W) per block, large to small."""
        features = self.network.encode_face(face)
        return tuple(feature[:, :, row:] for feature, row in zip(features, self.feature_rows, strict=True))


class Pixels(nn.Module):
    """The strip as pixels: rounding and clipping belong to the network's run, where they cost next to nothing."""

    def __init__(self, lower: LowerHalf, float_features: bool = True) -> None:
        """Wraps a network.

        Args:
            lower: the network.
            float_features: features come in half precision although the network computes in f32.
        """
        super().__init__()
        self.lower, self._float_features = lower, float_features
        self._reverse = lower.network.variant.colour == "rgb"

    def forward(self, mel: Tensor, *features: Tensor) -> Tensor:
        """As ``LowerHalf.forward``, but returns (B, S - first_row, S, 3) uint8 BGR."""
        strip = self.lower(mel, *(feature.float() if self._float_features else feature for feature in features))
        if self._reverse:
            strip = strip.flip(1)
        return (strip.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
