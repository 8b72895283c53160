"""Reads the tensors of a checkpoint file that nobody has to trust, and writes those of a folder of weights.

Place in the flow: .pth, .pt or .safetensors file -> ``read_tensors`` -> the checkpoint module of its kind.

Invariants:
    * the content decides what a file is, never its name;
    * what comes back is float32, finite and complete;
    * a file that could run code is refused, never unpacked.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.errors import WeightsInvalid

_WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict", "generator", "model")
"""Under which name a training script keeps the parameters, the usual ones first."""
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")
_COUNTER = "num_batches_tracked"
_HEAD_BYTES = 512
_AGAIN = "Compare its size with the original's and get it again."


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All parameters of a checkpoint by name, without the ``module.`` of parallel training.

    Args:
        path: safetensors, TorchScript, or anything ``torch.save`` wrote, old and new: a state, or a table with one in
            it beside optimisers and counters.

    Returns:
        Name -> float32 tensor; half precision is converted, counters of batch norms are left out.

    Raises:
        WeightsInvalid: ``weights_missing``, ``weights_unreadable``, ``weights_run_code``, ``weights_empty``,
            ``weights_type`` or ``weights_not_finite``.
    """
    content = _reader(path)(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    named = content.items() if isinstance(content, Mapping) else ()
    state = {
        _PREFIX.sub("", str(name)): _checked(path, str(name), value)
        for name, value in named
        if isinstance(value, Tensor) and not str(name).endswith(_COUNTER)
    }
    if not state:
        raise WeightsInvalid("weights_empty", f"{path.name} holds no parameters: it is no checkpoint of a network.")
    return state


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path, name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.layout is not torch.strided:
        raise WeightsInvalid(
            "weights_type", f"{path.name}: {name} is of type {tensor.dtype}; fp32, fp16 and bf16 can be used."
        )
    tensor = tensor.detach().to("cpu", torch.float32).contiguous()
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsInvalid(
            "weights_not_finite",
            f"{path.name}: {name} holds values that are no numbers. Training went wrong, or the file is damaged; get "
            "it again.",
        )
    return tensor


def _reader(path: Path) -> Callable[[Path], object]:
    """Tells from its first bytes how a file is read.

    Raises:
        WeightsInvalid: ``weights_missing`` or ``weights_unreadable``, saying what the file is instead.
    """
    if not path.is_file():
        raise WeightsInvalid("weights_missing", f"There is no file {path}.")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise WeightsInvalid("weights_unreadable", f"Cannot read {path}: {error.strerror}.") from error
    if head.startswith(b"PK\x03\x04"):
        return _zip_reader(path)
    if head.startswith(b"\x80"):
        return _read_torch
    if head[8:9] == b"{":
        return _read_safetensors
    text = head.lstrip().lower()
    if not head:
        raise _unreadable(f"{path.name} is empty. Get it again.")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise _unreadable(f"{path.name} is a web page: the page with the link was saved, not the file behind it.")
    if text.startswith(b"version https://git-lfs"):
        raise _unreadable(f"{path.name} is a Git LFS pointer: get the file itself, with 'git lfs pull'.")
    if head.isascii() and b"\0" not in head:
        raise _unreadable(f"{path.name} is a text file, not a checkpoint.")
    if head.startswith((b"Rar!", b"7z\xbc\xaf", b"\x1f\x8b")):
        raise _unreadable(f"{path.name} is an archive: unpack it and use the checkpoint in it.")
    raise _unreadable(f"{path.name} is of no format that is known here, or its beginning is damaged. {_AGAIN}")


def _zip_reader(path: Path) -> Callable[[Path], object]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _unreadable(f"{path.name} is incomplete: its end is missing. {_AGAIN}") from error
    if any(name.endswith("/constants.pkl") for name in members):
        return _read_script
    if any(name.endswith("/data.pkl") for name in members):
        return _read_torch
    inside = f": {', '.join(members[:3])}" if members else ""
    raise _unreadable(f"{path.name} is a zip archive{inside}. Unpack it and use the checkpoint in it.")


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path) from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # What a damaged file raises depends on where it is damaged; only the text tells a refusal of torch's.
        text = str(error)
        if "GLOBAL" in text or "Unsupported operand" in text or "Unsupported class" in text:
            wanted = re.search(r"GLOBAL (\S+)", text)
            raise _runs_code(path, wanted[1] if wanted else "something that is no tensor") from error
        raise _damaged(path) from error


def _read_script(path: Path) -> object:
    """The parameters of a TorchScript file, which is how the official links give them now.

    Its code is compiled and never called; only ``__setstate__`` would run on loading, so a file with one is refused.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sources = [archive.read(name) for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError) as error:
        raise _damaged(path) from error
    if any(b"__setstate__" in source for source in sources):
        raise _runs_code(path, "a function of its own")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # There is no other reader of such files.
            return dict(_tensors_of(torch.jit.load(path, map_location="cpu")))
    except Exception as error:  # As above: any damage, any exception.
        raise _damaged(path) from error


def _tensors_of(module: torch.jit.ScriptModule) -> Iterable[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _runs_code(path: Path, wanted: str) -> WeightsInvalid:
    return WeightsInvalid(
        "weights_run_code",
        f"{path.name} asks for {wanted} when it is opened, so it could run code; it was not opened. Get the checkpoint "
        "from its authors, or save it anew as a state of tensors only.",
    )


def _damaged(path: Path) -> WeightsInvalid:
    return _unreadable(f"{path.name} cannot be read: it is damaged or incomplete. {_AGAIN}")


def _unreadable(message: str) -> WeightsInvalid:
    return WeightsInvalid("weights_unreadable", message)


def write_weights(
    folder: Path, card: str, model: str, state: Mapping[str, Tensor], facts: Mapping[str, object]
) -> None:
    """Fills an empty folder of weights; the card goes last, so that a folder with a card is complete.

    Args:
        folder: exists; whoever calls gives it its final name afterwards.
        card, model: names of the two files.
        state: parameters by name.
        facts: what the card says: texts, numbers and dates.

    Raises:
        OSError, SafetensorError: the disk is full or not writable.
    """
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / model)
    lines = [f"{key} = {_toml(value)}" for key, value in facts.items()]
    (folder / card).write_text("\n".join(lines) + "\n", "utf-8")


def _toml(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        # A JSON string is a TOML basic string, save for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)
