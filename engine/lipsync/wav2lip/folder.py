"""What lies in a folder of Wav2Lip weights: the card, the parameters, and the files made of them. No torch.

Place in the flow: ``python -m engine weights add`` -> folder -> ``Variant`` and files for the runtimes.

Invariants:
    * derived files are complete when they are there; deleting them only costs the time to make them again.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from engine.errors import WeightsInvalid
from engine.lipsync.wav2lip.variants import VARIANTS, Variant

CARD_FILE, MODEL_FILE = "weights.toml", "model.safetensors"
DERIVED_FOLDER = "openvino"
FACE_FILE, SPEAK_FILE, INT8_FILE = "face.xml", "speak.xml", "speak_int8.xml"
KIND = "wav2lip"
_MOST_OFFSET = 80


def read_variant(folder: Path) -> Variant:
    """The variant of a folder of weights, with the conventions that its card states, which may differ from the usual.

    Raises:
        WeightsInvalid: ``weights_card_invalid``, the card is missing, unreadable, or names something unknown.
    """
    path = folder / CARD_FILE
    try:
        card = tomllib.loads(path.read_text(encoding="utf-8"))
        variant = VARIANTS[card["variant"]]
        changed = replace(
            variant, window_offset=card.get("window_offset", variant.window_offset),
            colour=card.get("colour", variant.colour), activation=card.get("activation", variant.activation),
        )  # fmt: skip
        sound = isinstance(changed.window_offset, int) and abs(changed.window_offset) <= _MOST_OFFSET
        ends = changed.colour in ("bgr", "rgb") and changed.activation in ("sigmoid", "tanh")
        if card["kind"] == KIND and sound and ends:
            return changed
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise WeightsInvalid(
        "weights_card_invalid", f"{path} is missing or says nothing usable; add the checkpoint again: "
        "`python -m engine weights add FILE --force`."
    )


def derived_folder(folder: Path) -> Path | None:
    """Where the networks for the CPU lie, or None as long as they were not made."""
    derived = folder / DERIVED_FOLDER
    return derived if all((derived / name).is_file() for name in (FACE_FILE, SPEAK_FILE)) else None


def int8_file(folder: Path) -> Path | None:
    """The int8 form of the speaking network, which is there when it was good enough, or None."""
    path = folder / DERIVED_FOLDER / INT8_FILE
    return path if path.is_file() else None
