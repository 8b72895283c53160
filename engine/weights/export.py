"""Weights become files of other runtimes: ONNX or OpenVINO, any batch size, checked against torch.

Place in the flow: folder of weights -> the ``export`` module of its kind -> a file for the user.

Invariant: a file that is there is replaced only on purpose, and only by a complete one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from engine.errors import InvalidInput
from engine.weights.folder import read_card, typed_errors

Form = Literal["onnx", "openvino"]

_SUFFIX: dict[Form, str] = {"onnx": ".onnx", "openvino": ".xml"}


def export(folder: Path, form: Form, out: Path, *, force: bool = False) -> str:
    """Writes one file, and for OpenVINO its ``.bin`` beside it; takes seconds to minutes.

    Args:
        folder: of weights.
        form: of the file.
        out: the file.
        force: replace a file that is there.

    Returns:
        What was written, in a sentence.

    Raises:
        InvalidInput: ``export_name_invalid``, ``export_exists`` or ``weights_dir_unwritable``.
        WeightsInvalid: the folder is incomplete or damaged.
        BackendFailed: the file does not give torch's result; nothing is written then.
        DiskFull: there is no room.
    """
    card = read_card(folder)
    if out.suffix.lower() != _SUFFIX[form]:
        raise InvalidInput("export_name_invalid", f"Cannot write {out}: the file must be named *{_SUFFIX[form]}.")
    if not out.parent.is_dir():
        raise InvalidInput("export_name_invalid", f"Cannot write {out}: there is no folder {out.parent}.")
    for file in (out, out.with_suffix(".bin")) if form == "openvino" else (out,):
        if file.is_dir() or (file.exists() and not force):
            raise InvalidInput("export_exists", f"{file} exists already: take another name, or say --force.")
    write = _exporters(card.kind)[form]
    with typed_errors(out):
        write(folder, out)
        size = out.stat().st_size
        if form == "openvino":
            size += out.with_suffix(".bin").stat().st_size
    return f"{out}: {card.variant}, {size / 1e6:.1f} MB, as exact as torch"


def _exporters(kind: str) -> dict[Form, Callable[[Path, Path], None]]:
    # Each kind brings torch and a runtime along, so only the one that is needed is loaded.
    if kind == "wav2lip":
        from engine.lipsync.wav2lip import export as wav2lip

        return {"onnx": wav2lip.export_onnx, "openvino": wav2lip.export_openvino}
    from engine.restore import export as restore

    return {"onnx": restore.export_onnx, "openvino": restore.export_openvino}
