"""The folder of weights: one subfolder a network, each with a card, written whole or not at all.

Place in the flow: ``engine.weights.add`` writes, ``python -m engine weights`` lists and removes, and models are found
here by name.

    <weights_dir>/<name>/weights.toml         the card: what the network is and where it came from
                         model.safetensors    its parameters
                         openvino/            derived files; may be deleted and come back

Invariants:
    * a folder with a card is complete: it was written under another name and then renamed;
    * replacing keeps the old folder until the new one is complete, also when the program is killed in between;
    * names that begin with a dot are work in progress and on no list.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from engine.errors import Busy, DiskFull, InvalidInput, NotFound, WeightsInvalid

CARD_FILE = "weights.toml"
MODEL_FILE = "model.safetensors"
KINDS = ("wav2lip", "gfpgan")
VOICE_KIND = "so-vits"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORK_PREFIX = ".new-"
_OLD = "old"
# No conversion takes so long; a working folder of this age was left by a program that was killed.
_ABANDONED_S = 3600.0
_SPARE_BYTES = 64 << 20
# A second of sound; windows are a fifth of that.
_MAX_OFFSET = 80


@dataclass(frozen=True, slots=True)
class WeightsCard:
    """What ``weights.toml`` says.

    Attributes:
        name: of the folder.
        kind: "wav2lip" or "gfpgan".
        variant: which network of that kind, e.g. ``wav2lip-96``.
        size: side of the square picture the network takes and makes, pixels.
        colour: order of channels, "bgr" or "rgb".
        activation: of the last layer, "sigmoid", "tanh" or "none".
        window_offset: mel columns from the start of a frame to the start of its window; 0 where no sound is heard.
        parameters: how many numbers were learned.
        source_file: name of the file it was made of.
        source_sha256: of that file, 64 hexadecimal digits.
        added: day on which it was added.
        licence: terms of use, in one sentence.
    """

    name: str
    kind: str
    variant: str
    size: int
    colour: str
    activation: str
    window_offset: int
    parameters: int
    source_file: str
    source_sha256: str
    added: date
    licence: str


def check_name(name: str) -> None:
    """Raises ``InvalidInput`` ``weights_name_invalid`` for a name that no folder of weights may have."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "weights_name_invalid",
            f"{name!r} cannot be a name of weights: it takes a-z, 0-9, '-' and '_', begins with a letter or digit, "
            "and has 64 characters at most.",
        )
    if name in ("builtin", "none", "auto"):
        raise InvalidInput("weights_name_invalid", f"The name {name} has a meaning of its own; choose another one.")


def find(weights_dir: Path, name: str) -> Path:
    """The folder of these weights, which has a card; the card is not read.

    Raises:
        NotFound: ``weights_not_found``, naming the weights that are there.
        InvalidInput: ``weights_name_invalid``.
    """
    check_name(name)
    folder = weights_dir / name
    if not (folder / CARD_FILE).is_file():
        there = ", ".join(_names(weights_dir)) or "none yet"
        raise NotFound("weights_not_found", f"There are no weights {name} in {weights_dir} ({there}).")
    return folder


def list_weights(weights_dir: Path) -> dict[str, WeightsCard | WeightsInvalid]:
    """Name -> card, or what is wrong with it, of all weights, by name; empty where there is no such folder.

    Voices, whose folders are put together by hand, are not among them.
    """
    found: dict[str, WeightsCard | WeightsInvalid] = {}
    for name in _names(weights_dir):
        if _is_voice(weights_dir / name):
            continue
        try:
            found[name] = read_card(weights_dir / name)
        except WeightsInvalid as error:
            found[name] = error
    return found


def _names(weights_dir: Path) -> list[str]:
    return sorted(card.parent.name for card in weights_dir.glob(f"*/{CARD_FILE}") if _NAME.fullmatch(card.parent.name))


def _is_voice(folder: Path) -> bool:
    """Whether a folder holds a voice that others are converted to, see ``engine.conversation.voice.so_vits``."""
    try:
        return tomllib.loads((folder / CARD_FILE).read_text("utf-8")).get("kind") == VOICE_KIND
    except (OSError, ValueError):
        return False


def read_card(folder: Path) -> WeightsCard:
    """Reads and checks ``weights.toml``; that the parameters lie beside it is checked, their content is not.

    Raises:
        WeightsInvalid: ``weights_incomplete`` or ``weights_card_invalid``, naming the folder and what to do.
    """
    path = folder / CARD_FILE
    again = f"Add the weights again: python -m engine weights add FILE --name {folder.name} --force"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsInvalid("weights_incomplete", f"Cannot read {path}: {error.strerror}. {again}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsInvalid("weights_card_invalid", f"{path} is no valid TOML: {error}. {again}") from error
    if not (folder / MODEL_FILE).is_file():
        raise WeightsInvalid("weights_incomplete", f"{folder / MODEL_FILE} is missing. {again}")
    values: dict[str, Any] = {"name": folder.name}
    for field in fields(WeightsCard):
        if field.name == "name":
            continue
        value = content.get(field.name)
        if field.name == "added" and isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = date.fromisoformat(value)
        if not _fits(field.name, value):
            raise WeightsInvalid("weights_card_invalid", f"{path}: {field.name} = {value!r} cannot be used. {again}")
        values[field.name] = value
    return WeightsCard(**values)


def _fits(name: str, value: object) -> bool:
    """Whether a value of the card is of the right type and in its limits."""
    if isinstance(value, bool) or value is None:
        return False
    if name in ("size", "parameters"):
        return isinstance(value, int) and value > 0
    if name == "window_offset":
        return isinstance(value, int) and abs(value) <= _MAX_OFFSET
    if name == "added":
        return isinstance(value, date)
    allowed = {"kind": KINDS, "colour": ("bgr", "rgb"), "activation": ("sigmoid", "tanh", "none")}.get(name)
    if not isinstance(value, str) or (allowed and value not in allowed):
        return False
    return bool(_SHA256.fullmatch(value)) if name == "source_sha256" else True


def check_free(weights_dir: Path, name: str, *, force: bool) -> None:
    """Refuses a name that is taken, before any work is done.

    Raises:
        InvalidInput: ``weights_exist`` or ``weights_name_invalid``.
    """
    check_name(name)
    if not force and (weights_dir / name).exists():
        raise InvalidInput(
            "weights_exist",
            f"There are weights {name} in {weights_dir} already: take another --name, or replace them with --force.",
        )


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raises ``DiskFull`` when fewer than ``needed_bytes``, and some to spare, are free where ``folder`` will lie."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed_bytes + _SPARE_BYTES:
        raise DiskFull(
            "disk_full",
            f"{folder} has {free / 1e6:.0f} MB free, {(needed_bytes + _SPARE_BYTES) / 1e6:.0f} MB are needed: make "
            "room, or choose another folder with --weights-dir.",
        )


@contextlib.contextmanager
def typed_errors(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into typed errors: ``DiskFull``, or ``InvalidInput`` ``weights_dir_unwritable``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                "disk_full", f"No space is left for {folder}: make room, or choose another folder with --weights-dir."
            ) from error
        raise InvalidInput("weights_dir_unwritable", f"Cannot write to {folder}: {_reason(error)}.") from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keeps other processes from working on a file of this name meanwhile.

    Raises:
        Busy: ``download_running``: one does already.
        InvalidInput: ``weights_dir_unwritable``.
    """
    with contextlib.ExitStack() as stack:
        with typed_errors(path.parent):
            lock = stack.enter_context(path.with_name(f".{path.name}.lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy("download_running", f"{path.name} is being fetched by another process; wait for it.") from error
        yield


@contextlib.contextmanager
def atomic_folder(weights_dir: Path, name: str, *, force: bool = False) -> Iterator[Path]:
    """A folder to write into that takes its name when the block ends well, and vanishes when it does not.

    Args:
        weights_dir: of all weights; made when missing.
        name: of the new weights.
        force: take the place of weights of that name; they stay until the new ones are complete.

    Yields:
        An empty folder of the same file system, whose last part is ``name``.

    Raises:
        InvalidInput: ``weights_exist``, ``weights_name_invalid`` or ``weights_dir_unwritable``.
        DiskFull: also for an ``OSError`` of the block.
    """
    check_free(weights_dir, name, force=force)
    goal = weights_dir / name
    work = weights_dir / f"{_WORK_PREFIX}{name}-{secrets.token_hex(4)}"
    new, old = work / name, work / _OLD
    try:
        with typed_errors(weights_dir):
            _clean_up(weights_dir)
            new.mkdir(parents=True)
            yield new
            _sync(new)
            check_free(weights_dir, name, force=force)
            if goal.exists():
                goal.rename(old)
            try:
                new.rename(goal)
            except BaseException:
                if old.exists():
                    old.rename(goal)
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove(weights_dir: Path, name: str) -> int:
    """Removes weights, at once as seen by others; a program that has them loaded keeps them.

    Returns:
        Bytes that became free.

    Raises:
        NotFound: ``weights_not_found``.
        InvalidInput: ``weights_name_invalid`` or ``weights_dir_unwritable``.
    """
    folder = find(weights_dir, name)
    size = folder_bytes(folder)
    # Not of the form of a replaced folder: a removal that is cut short must not come back.
    work = weights_dir / f".removed-{name}-{secrets.token_hex(4)}"
    with typed_errors(weights_dir):
        folder.rename(work)
        shutil.rmtree(work)
    return size


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(folder: Path) -> None:
    """Has the files on the disk before they get their name, so that a power cut leaves no complete-looking ruin."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _clean_up(weights_dir: Path) -> None:
    """Ends what killed programs left: folders they had moved aside come back, the rest goes."""
    for work in weights_dir.glob(".*-*"):
        if not work.name.startswith((_WORK_PREFIX, ".removed-")) or time.time() - _newest(work) < _ABANDONED_S:
            continue
        name = work.name.removeprefix(_WORK_PREFIX).rpartition("-")[0]
        if work.name.startswith(_WORK_PREFIX) and (work / _OLD).is_dir() and not (weights_dir / name).exists():
            (work / _OLD).rename(weights_dir / name)
        shutil.rmtree(work, ignore_errors=True)


def _newest(folder: Path) -> float:
    """When anything below was changed last, seconds since 1970."""
    with contextlib.suppress(OSError):
        # Files inside "old" keep their dates from long ago, the folders that were renamed do not.
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    return time.time()
