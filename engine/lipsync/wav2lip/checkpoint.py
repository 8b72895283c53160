"""Recognises Wav2Lip checkpoints by the names and shapes in them, and keeps them in a folder of weights.

Place in the flow: file -> ``inspect``, ``read_state`` -> ``write`` -> folder -> ``load_network`` -> runtimes.

What is used of a network's conventions (order of colours, window offset) is what ``weights.toml`` says, where its
owner may change them; written is what is usual for the network.

Invariants:
    * the name of a file decides nothing;
    * a state that comes out of here has exactly the tensors of its network's plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from torch import Tensor

from engine.errors import WeightsInvalid
from engine.lipsync.wav2lip.blocks import Plan
from engine.lipsync.wav2lip.folder import CARD_FILE, KIND, MODEL_FILE, read_variant
from engine.lipsync.wav2lip.networks import Wav2Lip, build
from engine.lipsync.wav2lip.variants import VARIANTS, Variant
from engine.tensor_file import read_tensors, sha256_of, write_weights

LICENCE = "Wav2Lip's terms: research, academic and personal use only, since it was trained on the LRS2 data"

_MAX_NAMED = 3
_STATISTICS = ("running_mean", "running_var")
_REFINE = "audio_refine."
_FAMILY = "face_decoder_blocks.0.0.conv_block.0.weight"

_STRANGERS = (
    ("binary_pred.0.weight", "the discriminator that Wav2Lip was trained against ('disc_checkpoint…'), which draws "
     "nothing; get the generator's checkpoint"),
    ("face_encoder.0.conv_block.0.weight", "a SyncNet, the lip-sync expert that Wav2Lip was trained with, which draws "
     "nothing; get the generator's checkpoint"),
    ("netcnnlip.0.weight", "a SyncNet, which judges lip sync and draws nothing; get Wav2Lip's checkpoint"),
    ("conv1_1.weight", "the S3FD face detector that comes with Wav2Lip; it is not needed here, get wav2lip.pth"),
    ("down_blocks.0.attentions.0.norm.weight", "a diffusion U-Net, as MuseTalk's, not Wav2Lip"),
)  # fmt: skip
"""Networks people mistake for Wav2Lip: a name only they have, and what to say. Others are left to other kinds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a checkpoint turned out to be.

    Attributes:
        variant: the network, and how it is used.
        parameters: how many numbers were learned.
        source_file: name of the file.
        source_sha256: of the file, 64 hexadecimal digits.
    """

    variant: Variant
    parameters: int
    source_file: str
    source_sha256: str

    @property
    def usual_name(self) -> str:
        """Name of the folder it is usually kept in."""
        return self.variant.folder

    def facts(self, added: date | None = None) -> dict[str, object]:
        """What ``weights.toml`` says of it."""
        return {
            "kind": KIND,
            "variant": self.variant.name,
            "size": self.variant.size,
            "colour": self.variant.colour,
            "activation": self.variant.activation,
            "window_offset": self.variant.window_offset,
            "parameters": self.parameters,
            "source_file": self.source_file,
            "source_sha256": self.source_sha256,
            "added": added or datetime.now(UTC).date(),
            "licence": LICENCE,
        }

    def __str__(self) -> str:
        """One paragraph for a person."""
        variant = self.variant
        return (
            f"{variant.name}, {variant.origin}: faces of {variant.size} x {variant.size} pixels in "
            f"{variant.colour.upper()} order, last activation {variant.activation}, mel window "
            f"{variant.window_offset:+d} columns from the frame, {self.parameters / 1e6:.1f} M parameters."
        )


def inspect(path: Path) -> Finding:
    """Says which network a file holds; reads all of it.

    Raises:
        WeightsInvalid: as ``read_state``.
    """
    return describe(path, read_state(path))


def describe(path: Path, state: Mapping[str, Tensor]) -> Finding:
    """The finding for a file that was read already.

    Raises:
        WeightsInvalid: the state is none of this family.
    """
    variant = recognise(state)
    learned = sum(tensor.numel() for name, tensor in state.items() if not name.endswith(_STATISTICS))
    return Finding(variant, learned, path.name, sha256_of(path))


def read_state(path: Path) -> dict[str, Tensor]:
    """The parameters of a Wav2Lip checkpoint, float32, by their official names.

    Layers that are in the file and took no part in training are left out.

    Raises:
        WeightsInvalid: as ``read_tensors``; ``weights_unknown`` when it is of no kind known here,
            ``weights_other_network`` when it is one that belongs to Wav2Lip's training or surroundings,
            ``weights_mismatch`` for a Wav2Lip with missing, additional or misshapen layers,
            ``weights_statistics`` for impossible statistics of batch norms.
    """
    state = _as_trained(read_tensors(path))
    recognise(state)
    for name, tensor in state.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise WeightsInvalid(
                "weights_statistics", f"{path.name}: {name} has variances below zero: it is damaged, get it again."
            )
    return state


def recognise(state: Mapping[str, Tensor]) -> Variant:
    """The variant whose network has exactly these tensors.

    Raises:
        WeightsInvalid: ``weights_unknown``, ``weights_other_network`` or ``weights_mismatch``.
    """
    for name, what in _STRANGERS:
        if name in state:
            raise WeightsInvalid("weights_other_network", f"This is {what}.")
    if _FAMILY not in state:
        raise WeightsInvalid(
            "weights_unknown",
            f"This is no Wav2Lip checkpoint: {_FAMILY} is missing. It holds {len(state)} tensors, the first is "
            f"{next(iter(state), 'none')}.",
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    closest = min(VARIANTS.values(), key=lambda variant: len(_faults(shapes, variant.plan)))
    if faults := _faults(shapes, closest.plan):
        more = f", and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
        raise WeightsInvalid(
            "weights_mismatch",
            f"The checkpoint looks like {closest.name} but cannot be used: {', '.join(faults[:_MAX_NAMED])}{more}.",
        )
    return closest


def _faults(shapes: Mapping[str, tuple[int, ...]], plan: Plan) -> list[str]:
    expected = plan.shapes()
    found = [f"{name} is missing" for name in expected if name not in shapes]
    found += [f"{name} does not belong to it" for name in shapes if name not in expected]
    found += [
        f"{name} is {list(shapes[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    return found


def _as_trained(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state without the layers behind the audio encoder where they took no part in training.

    LiveTalking's SAM network carries them along and never runs them, primepake's runs them; the names are the same.
    Running a layer in training moves the statistics of its batch norm, so untouched ones (0 and 1) tell.
    """
    statistics = {name for name in state if name.startswith(_REFINE) and name.endswith(_STATISTICS)}
    if any(bool((state[name] != float(name.endswith("running_var"))).any()) for name in statistics):
        return state
    return {name: tensor for name, tensor in state.items() if not name.startswith(_REFINE)}


def write(folder: Path, state: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Fills an empty folder; the card goes last, so that a folder with a card is complete.

    Args:
        folder: exists; whoever calls gives it its final name afterwards.
        state: as from ``read_state``.
        facts: what the card says, as from ``Finding.facts``: texts, numbers and dates.

    Raises:
        OSError, SafetensorError: the disk is full or not writable.
        WeightsInvalid: the state is none of this family.
    """
    recognise(state)
    write_weights(folder, CARD_FILE, MODEL_FILE, state, facts)


def load_network(folder: Path) -> tuple[Variant, Wav2Lip]:
    """The network of a folder of weights, for evaluation, float32 on the CPU, and how it is used.

    Raises:
        WeightsInvalid: the folder is incomplete or damaged, or its card names another network.
    """
    state = read_state(folder / MODEL_FILE)
    found, variant = recognise(state), read_variant(folder)
    if variant.plan != found.plan:
        raise WeightsInvalid(
            "weights_card_invalid",
            f"{folder / CARD_FILE} says {variant.name}, but {MODEL_FILE} is a {found.name}. Add the weights again.",
        )
    return variant, build(variant, state)
