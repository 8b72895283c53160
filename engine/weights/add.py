"""A checkpoint file becomes a folder of weights: recognised by its content, converted, and written whole or not at all.

Place in the flow: file -> the ``checkpoint`` module of each kind in turn -> folder -> ``--lipsync``, ``--restorer``.

Invariants:
    * what a file is called decides nothing;
    * the folder was read back before it gets its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from engine.errors import WeightsInvalid
from engine.weights.folder import WeightsCard, atomic_folder, check_free, check_space, read_card

_UNKNOWN = "weights_unknown"
"""Code of a checkpoint of which a kind can say nothing but that it is none of its own."""


@dataclass(frozen=True, slots=True)
class Added:
    """Weights that were added.

    Attributes:
        folder: where they lie.
        card: what they are.
    """

    folder: Path
    card: WeightsCard


@dataclass(frozen=True, slots=True)
class _Found:
    """A recognised checkpoint.

    Attributes:
        usual_name: of the folder, where none is asked for.
        facts: what the card says.
        write: fills an empty folder, given the facts.
    """

    usual_name: str
    facts: Mapping[str, object]
    write: Callable[[Path, Mapping[str, object]], None]


def add_weights(
    file: Path, weights_dir: Path, *, name: str | None = None, force: bool = False, licence: str | None = None
) -> Added:
    """Recognises a checkpoint and keeps it; the file itself stays as it is.

    Args:
        file: the checkpoint.
        weights_dir: folder of all weights; made when missing.
        name: of the new weights; None takes the usual name of the network.
        force: replace weights of that name, which stay until the new ones are complete.
        licence: terms of use; None takes those of the official weights.

    Raises:
        WeightsInvalid: the file is no checkpoint that can be used; says what it is where that can be told.
        InvalidInput: the name is taken or unusable, or nothing can be written there.
        DiskFull: there is no room.
    """
    if name is not None:
        # Before the work, not after it.
        check_free(weights_dir, name, force=force)
    if file.is_dir():
        raise WeightsInvalid("weights_unreadable", f"{file} is a folder; name the checkpoint file in it.")
    found = _recognise(file)
    name = name or found.usual_name
    check_free(weights_dir, name, force=force)
    facts = {**found.facts, "licence": found.facts["licence"] if licence is None else licence}
    check_space(weights_dir, 4 * int(str(facts["parameters"])))
    with atomic_folder(weights_dir, name, force=force) as folder:
        try:
            found.write(folder, facts)
        except SafetensorError as error:
            # The writer hides what the disk said in its text.
            code = re.search(r"os error (\d+)", str(error))
            raise OSError(int(code[1]) if code else 0, str(error)) from error
        card = read_card(folder)
    return Added(weights_dir / name, card)


def _recognise(file: Path) -> _Found:
    """Asks each kind in turn; the first that knows more than that it is none of its own decides.

    Raises:
        WeightsInvalid: as the kinds raise it.
    """
    for read in (_wav2lip, _gfpgan):
        try:
            return read(file)
        except WeightsInvalid as error:
            if error.code != _UNKNOWN:
                raise
    from engine.lipsync.wav2lip.variants import VARIANTS

    raise WeightsInvalid(
        _UNKNOWN,
        f"{file.name} is a checkpoint, but of no network that is known here: neither Wav2Lip ({', '.join(VARIANTS)}) "
        "nor GFPGAN 1.2 to 1.4.",
    )


# Each kind brings torch along, so nothing of it is imported before a checkpoint is opened.


def _wav2lip(file: Path) -> _Found:
    from engine.lipsync.wav2lip import checkpoint

    state = checkpoint.read_state(file)
    finding = checkpoint.describe(file, state)
    return _Found(finding.usual_name, finding.facts(), lambda folder, facts: checkpoint.write(folder, state, facts))


def _gfpgan(file: Path) -> _Found:
    from engine.restore import checkpoint

    state = checkpoint.read_state(file)
    finding = checkpoint.describe(file, state)
    return _Found(finding.usual_name, finding.facts(), lambda folder, facts: checkpoint.write(folder, state, facts))
