"""The Wav2Lip family as tables of layers: what each network is made of, without a line of torch.

Place in the flow: variants.py names a plan for every known checkpoint; networks.py builds it, checkpoint.py compares a
file with it, and the lower-half decoder reads strides and paddings from it.

All networks are one idea in several sizes: the face goes down through the blocks of an encoder, the sound through an
encoder of its own, and the decoder starts from the sound and takes in the face's features of its own scale after
every block (Prajwal et al., "A Lip Sync Expert Is All You Need", 2020).

Invariants:
    * ``len(face_encoder) == len(face_decoder)``: every decoder block has its feature;
    * the names of the parameters follow from the position in the tables and equal the official ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

Act = Literal["relu", "prelu", "leaky"]
"""What follows a layer: ``prelu`` has one learnt slope per layer, ``leaky`` a fixed slope of 0.2."""


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution, its batch norm and its activation.

    Attributes:
        cin, cout: channels.
        kernel: height and width.
        stride: rows, columns.
        padding: on all four sides.
        residual: the input is added before the activation.
        transposed: a transposed convolution, which enlarges by ``stride``.
        output_padding: rows and columns added at the end of a transposed convolution.
        act: activation.
    """

    cin: int
    cout: int
    kernel: int = 3
    stride: tuple[int, int] = (1, 1)
    padding: int = 1
    residual: bool = False
    transposed: bool = False
    output_padding: int = 0
    act: Act = "relu"


Block = tuple[Conv, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole network.

    Attributes:
        face_encoder: blocks from the full picture down to one position.
        audio_encoder: (1, 80, 16) mel down to one position.
        face_decoder: blocks from one position up to the full picture.
        output: layers after the decoder; a bare 1x1 convolution to three colours follows them.
        attention: the face's features weigh the decoder's before they are joined (spatial attention, SAM).
        refine: layers behind the audio encoder.
        normalise: the sound's embedding has length 1 when it enters the decoder.
    """

    face_encoder: tuple[Block, ...]
    audio_encoder: Block
    face_decoder: tuple[Block, ...]
    output: Block
    attention: bool = False
    refine: Block = ()
    normalise: bool = False

    def layers(self) -> Iterator[tuple[str, Conv]]:
        """Every layer with its official name, e.g. ``face_encoder_blocks.1.0``."""
        for name, blocks in (("face_encoder_blocks", self.face_encoder), ("face_decoder_blocks", self.face_decoder)):
            for i, block in enumerate(blocks):
                yield from ((f"{name}.{i}.{j}", conv) for j, conv in enumerate(block))
        lone = (("audio_encoder", self.audio_encoder), ("audio_refine", self.refine), ("output_block", self.output))
        for name, block in lone:
            yield from ((f"{name}.{i}", conv) for i, conv in enumerate(block))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the network, counters of batch norm left out."""
        found: dict[str, tuple[int, ...]] = {}
        for name, conv in self.layers():
            ends = (conv.cin, conv.cout) if conv.transposed else (conv.cout, conv.cin)
            found[f"{name}.conv_block.0.weight"] = (*ends, conv.kernel, conv.kernel)
            found[f"{name}.conv_block.0.bias"] = (conv.cout,)
            for tensor in ("weight", "bias", "running_mean", "running_var"):
                found[f"{name}.conv_block.1.{tensor}"] = (conv.cout,)
            if conv.act == "prelu":
                found[f"{name}.act.weight"] = (1,)
        colours = f"output_block.{len(self.output)}"
        found |= {f"{colours}.weight": (3, self.output[-1].cout, 1, 1), f"{colours}.bias": (3,)}
        if self.attention:
            found["sam.sa.conv1.weight"] = (1, 2, ATTENTION_KERNEL, ATTENTION_KERNEL)
        return found

    def with_act(self, act: Act) -> Plan:
        """The same network with another activation in every layer."""

        def change(block: Block) -> Block:
            return tuple(replace(conv, act=act) for conv in block)

        return replace(
            self,
            face_encoder=tuple(map(change, self.face_encoder)),
            audio_encoder=change(self.audio_encoder),
            face_decoder=tuple(map(change, self.face_decoder)),
            output=change(self.output),
            refine=change(self.refine),
        )


ATTENTION_KERNEL = 7


def _residuals(channels: int, count: int) -> Block:
    return (Conv(channels, channels, residual=True),) * count


def _down(cin: int, cout: int, residuals: int, kernel: int = 3, stride: int | tuple[int, int] = 2) -> Block:
    """Smaller by ``stride``, then residual layers."""
    steps = stride if isinstance(stride, tuple) else (stride, stride)
    return (Conv(cin, cout, kernel, steps, kernel // 2), *_residuals(cout, residuals))


def _close(cin: int, cout: int, points: int = 1, kernel: int = 3) -> Block:
    """What is left becomes one position: no padding, then layers that see one position only."""
    return (Conv(cin, cout, kernel, padding=0), *(Conv(cout, cout, 1, padding=0),) * points)


def _open(cin: int, cout: int, kernel: int = 3) -> Block:
    """One position becomes ``kernel`` x ``kernel``."""
    return (Conv(cin, cout, kernel, padding=0, transposed=True), *_residuals(cout, 1))


def _up(cin: int, cout: int, residuals: int = 2, output_padding: int = 1) -> Block:
    """Twice as large (less one, without output padding), then residual layers."""
    conv = Conv(cin, cout, stride=(2, 2), transposed=True, output_padding=output_padding)
    return (conv, *_residuals(cout, residuals))


def _join(blocks: Iterable[Block]) -> Block:
    return tuple(conv for block in blocks for conv in block)


_EAR = (*_down(1, 32, 2, stride=1), *_down(32, 64, 2, stride=(3, 1)), *_down(64, 128, 2, stride=3))

AUDIO_512 = _join((_EAR, _down(128, 256, 1, stride=(3, 2)), _close(256, 512)))
"""(1, 80, 16) -> 512, 13 layers."""

AUDIO_1024 = _join((_EAR, _down(128, 256, 2, stride=(3, 2)), _down(256, 512, 2, stride=1), _close(512, 1024)))
"""(1, 80, 16) -> 1024, 17 layers."""

_POINT_512: Block = (Conv(512, 512, 1, padding=0),)
_POINT_1024: Block = (Conv(1024, 1024, 1, padding=0),)
_OUTPUT_80: Block = (Conv(80, 32),)

PLAN_96 = Plan(
    face_encoder=(
        _down(6, 16, 0, 7, 1),  # 96
        _down(16, 32, 2),
        _down(32, 64, 3),
        _down(64, 128, 2),
        _down(128, 256, 2),  # 6
        _down(256, 512, 1),  # 3
        _close(512, 512),
    ),
    audio_encoder=AUDIO_512,
    face_decoder=(
        _POINT_512,
        _open(1024, 512),
        _up(1024, 512),
        _up(768, 384),
        _up(512, 256),
        _up(320, 128),
        _up(160, 64),
    ),
    output=_OUTPUT_80,
)

PLAN_256 = Plan(
    face_encoder=(
        _down(6, 16, 0, 7, 1),  # 256
        _down(16, 32, 2),
        _down(32, 64, 3),
        _down(64, 128, 2),
        _down(128, 256, 2),
        _down(256, 512, 1),  # 8
        _down(512, 512, 1),  # 4
        _close(512, 512, kernel=4),
    ),
    audio_encoder=AUDIO_512,
    face_decoder=(
        _POINT_512,
        _open(1024, 512, kernel=4),
        _up(1024, 512, 1),
        _up(1024, 512),
        _up(768, 384),
        _up(512, 256),
        _up(320, 128),
        _up(160, 64),
    ),
    output=_OUTPUT_80,
)

PLAN_288 = Plan(
    face_encoder=(
        _down(6, 16, 0, 7, 1),  # 288
        _down(16, 32, 1, 5),
        _down(32, 32, 2),
        _down(32, 64, 3),
        _down(64, 128, 2),
        _down(128, 256, 2),  # 9
        _down(256, 512, 1),  # 5
        _close(512, 512),  # 3
        _close(512, 512),
    ),
    audio_encoder=AUDIO_512,
    face_decoder=(
        _POINT_512,
        _open(1024, 512),
        _up(1024, 512, output_padding=0),  # 5
        _up(1024, 512, output_padding=0),  # 9
        _up(768, 384),
        _up(512, 256),
        _up(320, 128),
        _up(160, 64),
        _up(96, 64),
    ),
    output=_OUTPUT_80,
)

PLAN_SAM = Plan(
    face_encoder=(
        _down(6, 16, 3, 7, 1),  # 192 or 384
        _down(16, 32, 3),
        _down(32, 64, 3),
        _down(64, 128, 3),
        _down(128, 256, 3),
        _down(256, 512, 3),
        _down(512, 1024, 3),  # 3 or 6
        _close(1024, 1024, points=2),  # 1 or 4; the sound's one position is spread over it
    ),
    audio_encoder=AUDIO_1024,
    face_decoder=(
        _POINT_1024,
        _open(2048, 1024),
        _up(2048, 1024),
        _up(1536, 768),
        _up(1024, 512),
        _up(640, 256),
        _up(320, 128),
        _up(160, 64),
    ),
    output=_OUTPUT_80,
    attention=True,
)

PLAN_SAM_REFINED = replace(PLAN_SAM, refine=_POINT_1024 * 2, normalise=True)

PLAN_384 = Plan(
    face_encoder=(
        _down(6, 8, 0, 7, 1),  # 384
        _down(8, 16, 2),
        _down(16, 32, 2),
        _down(32, 64, 2),
        _down(64, 128, 2),
        _down(128, 256, 2),
        _down(256, 512, 2),  # 6
        _down(512, 1024, 2),  # 3
        _close(1024, 1024),
    ),
    audio_encoder=AUDIO_1024,
    face_decoder=(
        _POINT_1024,
        _open(2048, 1024),
        _up(2048, 1024),
        _up(1536, 768),
        _up(1024, 512),
        _up(640, 256),
        _up(320, 128),
        _up(160, 80),
        _up(96, 64),
    ),
    output=(Conv(72, 32),),
    attention=True,
    refine=_POINT_1024 * 2,
    normalise=True,
)

_LEAKY_512 = Plan(
    face_encoder=(
        _down(6, 6, 2, 7, 1),  # 512
        _down(6, 6, 2),
        _down(6, 8, 2),
        _down(8, 16, 2),
        _down(16, 32, 2),
        _down(32, 64, 2),
        _down(64, 128, 2),
        _down(128, 256, 2),
        _down(256, 512, 2),  # 2
        _down(512, 1024, 2),  # 1
    ),
    audio_encoder=AUDIO_1024,
    face_decoder=(
        _POINT_1024,
        _up(2048, 1024, 1),
        _up(1536, 1024),
        _up(1280, 768),
        _up(896, 512),
        _up(576, 256),
        _up(288, 128),
        _up(144, 80),
        _up(88, 64),
        _up(70, 50),
    ),
    output=(Conv(56, 32), Conv(32, 16)),
    normalise=True,
).with_act("leaky")

PLAN_512 = replace(_LEAKY_512, audio_encoder=(*_LEAKY_512.audio_encoder[:-2], *AUDIO_1024[-2:]))
