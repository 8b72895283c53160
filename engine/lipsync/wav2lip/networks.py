"""The Wav2Lip networks in torch, built from their plans, with the official names of all parameters.

Place in the flow: variants.py -> build -> torch runtime, conversion to OpenVINO or ONNX, quantisation.

Invariants:
    * a state of official layout fits without renaming, and in fp32 the output equals the original's to 1e-5;
    * ``forward(mel, face) == decode(encode_audio(mel), encode_face(face))``: faces can be encoded once per picture and
      sounds once per window.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.lipsync.wav2lip.blocks import ATTENTION_KERNEL, Act, Block, Conv
from engine.lipsync.wav2lip.variants import Variant


def _activation(act: Act) -> nn.Module:
    match act:
        case "relu":
            return nn.ReLU()
        case "prelu":
            return nn.PReLU()
        case "leaky":
            return nn.LeakyReLU(0.2)


class Layer(nn.Module):
    """Convolution, batch norm, the input again where it is residual, activation."""

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(_convolution(conv), nn.BatchNorm2d(conv.cout))
        self.act = _activation(conv.act)
        self.residual = conv.residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H', W')."""
        y = self.conv_block(x)
        return self.act(y + x if self.residual else y)


def _convolution(conv: Conv) -> nn.Module:
    if conv.transposed:
        return nn.ConvTranspose2d(conv.cin, conv.cout, conv.kernel, conv.stride, conv.padding, conv.output_padding)
    return nn.Conv2d(conv.cin, conv.cout, conv.kernel, conv.stride, conv.padding)


class SpatialAttention(nn.Module):
    """One weight per position, from the mean and the maximum over channels (Woo et al., CBAM, 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, ATTENTION_KERNEL, padding=ATTENTION_KERNEL // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W) in [0, 1]."""
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return torch.sigmoid(self.conv1(summary))


class FaceAttention(nn.Module):
    """The face's features say where the decoder's count double."""

    def __init__(self) -> None:
        super().__init__()
        self.sa = SpatialAttention()

    def forward(self, face: Tensor, x: Tensor) -> Tensor:
        """(B, C, H, W), (B, D, H, W) or (B, D, 1, 1) -> (B, D, H, W)."""
        return x * self.sa(face) + x


def _sequential(block: Block) -> nn.Sequential:
    return nn.Sequential(*map(Layer, block))


class Wav2Lip(nn.Module):
    """One network of the family.

    Attributes:
        variant: what it was built from.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        plan = variant.plan
        self.face_encoder_blocks = nn.ModuleList(map(_sequential, plan.face_encoder))
        self.audio_encoder = _sequential(plan.audio_encoder)
        self.audio_refine = _sequential(plan.refine)
        self.face_decoder_blocks = nn.ModuleList(map(_sequential, plan.face_decoder))
        self.sam = FaceAttention() if plan.attention else None
        squash = nn.Sigmoid() if variant.activation == "sigmoid" else nn.Tanh()
        self.output_block = nn.Sequential(*map(Layer, plan.output), nn.Conv2d(plan.output[-1].cout, 3, 1), squash)

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        """Draws the mouth to a sound.

        Args:
            mel: (B, 1, 80, 16) in [-4, 4].
            face: (B, 6, S, S) in [0, 1]: the picture with its lower half zero, then the picture whose person it is.

        Returns:
            (B, 3, S, S); clip to [0, 1].
        """
        return self.decode(self.encode_audio(mel), self.encode_face(face))

    def encode_face(self, face: Tensor) -> list[Tensor]:
        """Features of a face, large to small; they depend on the picture only.

        Args:
            face: (B, 6, S, S).

        Returns:
            One (B, C, H, W) per block.
        """
        features = []
        for block in self.face_encoder_blocks:
            face = block(face)
            features.append(face)
        return features

    def encode_audio(self, mel: Tensor) -> Tensor:
        """(B, 1, 80, 16) -> (B, C, 1, 1), the embedding the decoder starts from."""
        embedding = self.audio_refine(self.audio_encoder(mel))
        return F.normalize(embedding, dim=1) if self.variant.plan.normalise else embedding

    def decode(self, audio: Tensor, features: list[Tensor]) -> Tensor:
        """A picture from an embedding of sound and the features of a face.

        Args:
            audio: (B, C, 1, 1) from ``encode_audio``.
            features: from ``encode_face``.

        Returns:
            (B, 3, S, S).
        """
        x = audio
        for block, feature in zip(self.face_decoder_blocks, reversed(features), strict=True):
            x = block(x)
            if self.sam is not None:
                x = self.sam(feature, x)
            x = torch.cat([x, feature], 1)
        return self.output_block(x)


def build(variant: Variant, state: Mapping[str, Tensor]) -> Wav2Lip:
    """A network with given weights, ready to be used.

    Args:
        variant: which network.
        state: tensors by official name, float32, see ``Plan.shapes``; they become the network's own.

    Returns:
        In evaluation mode, parameters frozen.

    Raises:
        RuntimeError: names or shapes do not fit.
    """
    with torch.device("meta"):
        network = Wav2Lip(variant)
    network.load_state_dict(dict(state), assign=True)
    return network.eval().requires_grad_(False)
