"""Recognises GFPGAN checkpoints by the names and shapes in them, and keeps them in a folder of weights.

Place in the flow: file -> ``inspect``, ``read_state`` -> ``write`` -> folder -> ``load_network`` -> restorer.

A folder holds ``weights.toml`` and ``model.safetensors``; the shape of the network follows from its tensors.

Invariants:
    * the name of a file decides nothing;
    * whatever is not a complete GFPGANv1Clean is refused, saying what it is where that can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import WeightsInvalid
from engine.restore.gfpgan_net import Gfpgan, GfpganShape
from engine.tensor_file import read_tensors, sha256_of, write_weights

KIND = "gfpgan"
CARD_FILE = "weights.toml"
MODEL_FILE = "model.safetensors"
USUAL_NAME = "gfpgan"
LICENCE = "Apache-2.0, with parts of StyleGAN2 and DFDNet for non-commercial use only"

_OFFICIAL = GfpganShape.of()
_MAX_NAMED = 3

_STRANGERS = (
    ("stylegan_decoder.style_convs.0.activate.bias", "GFPGAN with the CUDA layers of version 1 ('original') or their "
     "bilinear form; get GFPGANv1.4.pth or another checkpoint of the 'clean' architecture"),
    ("conv_body_first.0.weight", "GFPGAN with the CUDA layers of version 1 ('original' or 'bilinear'); get "
     "GFPGANv1.4.pth or another checkpoint of the 'clean' architecture"),
    ("quantize.embedding.weight", "a network with a code book, such as RestoreFormer or CodeFormer"),
    ("face_encoder_blocks.0.0.conv_block.0.weight", "Wav2Lip, a lip-sync model, not a face restorer"),
    ("style_convs.0.modulated_conv.weight", "a StyleGAN2 generator without the U-Net that guides it"),
    ("conv_first.weight", "an upscaler such as Real-ESRGAN, not a face restorer"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What a checkpoint turned out to be.

    Attributes:
        variant: ``gfpgan-v1clean``, or with the size after it where it is not the official 512.
        shape: of the network.
        parameters: how many numbers were learned.
        source_file: name of the file.
        source_sha256: of the file, 64 hexadecimal digits.
    """

    variant: str
    shape: GfpganShape
    parameters: int
    source_file: str
    source_sha256: str

    @property
    def usual_name(self) -> str:
        """Name of the folder it is usually kept in."""
        return USUAL_NAME

    def facts(self, added: date | None = None) -> dict[str, object]:
        """What ``weights.toml`` says of it."""
        return {
            "kind": KIND,
            "variant": self.variant,
            "size": self.shape.size,
            "colour": "rgb",
            "activation": "none",
            "window_offset": 0,
            "parameters": self.parameters,
            "source_file": self.source_file,
            "source_sha256": self.source_sha256,
            "added": added or datetime.now(UTC).date(),
            "licence": LICENCE,
        }


def inspect(path: Path) -> Finding:
    """Says which network a file holds; reads all of it.

    Raises:
        WeightsInvalid: as ``read_state``.
    """
    return describe(path, read_state(path))


def describe(path: Path, state: Mapping[str, Tensor]) -> Finding:
    """The finding for a file that was read already.

    Raises:
        WeightsInvalid: the state is none of this architecture.
    """
    shape = shape_of(state)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in Gfpgan(shape).parameters())
    variant = "gfpgan-v1clean" if shape == _OFFICIAL else f"gfpgan-v1clean-{shape.size}"
    return Finding(variant, shape, parameters, path.name, sha256_of(path))


def read_state(path: Path) -> dict[str, Tensor]:
    """The parameters of a GFPGANv1Clean checkpoint, float32, by their official names.

    Raises:
        WeightsInvalid: as ``read_tensors``, or ``weights_unknown`` for another architecture, ``weights_mismatch`` for
            a checkpoint with missing, additional or misshapen parameters.
    """
    state = read_tensors(path)
    shape_of(state)
    return state


def shape_of(state: Mapping[str, Tensor]) -> GfpganShape:
    """The shape of the network whose complete state this is.

    Raises:
        WeightsInvalid: ``weights_unknown``, ``weights_other_network`` or ``weights_mismatch``.
    """
    for name, what in _STRANGERS:
        if name in state:
            raise WeightsInvalid("weights_other_network", f"This is {what}.")
    unet = [_outputs(state, "final_conv.weight")]
    style = [_outputs(state, "stylegan_decoder.constant_input.weight", dimension=1)]
    while f"conv_body_up.{len(unet) - 1}.conv2.weight" in state:
        level = len(unet) - 1
        unet.append(_outputs(state, f"conv_body_up.{level}.conv2.weight"))
        style.append(_outputs(state, f"stylegan_decoder.style_convs.{2 * level}.bias", dimension=1))
    features = _outputs(state, "stylegan_decoder.style_conv1.modulated_conv.modulation.weight", dimension=1)
    if len(unet) < 3 or len(unet) > 9 or any(channels % 2 for channels in style):
        raise _mismatch("its layers do not form a network of this kind")
    shape = GfpganShape(4 << (len(unet) - 1), tuple(unet), tuple(style), features)
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in Gfpgan(shape).state_dict().items()}
    faults = [f"{name} is missing" for name in expected if name not in state]
    faults += [f"{name} does not belong to it" for name in state if name not in expected]
    faults += [
        f"{name} is {list(state[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if faults:
        more = f", and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
        raise _mismatch(", ".join(faults[:_MAX_NAMED]) + more)
    return shape


def write(folder: Path, state: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Fills an empty folder; the card goes last, so that a folder with a card is complete.

    Args:
        folder: exists; whoever calls gives it its final name afterwards.
        state: as from ``read_state``.
        facts: what the card says, as from ``Finding.facts``: texts, numbers and dates.

    Raises:
        OSError: the disk is full or not writable.
        WeightsInvalid: the state is none of this architecture.
    """
    shape_of(state)
    write_weights(folder, CARD_FILE, MODEL_FILE, state, facts)


def load_network(folder: Path) -> Gfpgan:
    """The network of a folder of weights, for evaluation, float32 on the CPU.

    Raises:
        WeightsInvalid: the folder is incomplete, damaged, or holds another architecture.
    """
    state = read_state(folder / MODEL_FILE)
    with torch.device("meta"):
        network = Gfpgan(shape_of(state))
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _outputs(state: Mapping[str, Tensor], name: str, dimension: int = 0) -> int:
    tensor = state.get(name)
    if tensor is None:
        raise WeightsInvalid(
            "weights_unknown",
            f"This is no GFPGAN checkpoint of versions 1.2 to 1.4: {name} is missing. It holds {len(state)} tensors, "
            f"the first is {next(iter(state), 'none')}.",
        )
    if tensor.ndim <= dimension or not tensor.shape[dimension]:
        raise _mismatch(f"{name} is {list(tensor.shape)}")
    return tensor.shape[dimension]


def _mismatch(reason: str) -> WeightsInvalid:
    return WeightsInvalid(
        "weights_mismatch", f"The checkpoint looks like GFPGAN v1 'clean' but cannot be used: {reason}."
    )
