"""Looks at Python, its packages, and the folder the server keeps its data in.

Place in the flow: ``examine`` -> findings of the group ``installation``.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine.config import Config
from server.doctor.report import Figures, Finding

_GROUP = "installation"
_REPOSITORY = Path(__file__).resolve().parents[2]
_OLDEST_PYTHON = (3, 11)
_PINNED = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!_-]+)")

REQUIRED = "requirements.txt"
ALONE = {
    "engine/conversation/requirements.txt": "hearing what people say",
    "engine/avatar/requirements.txt": "making avatars of photos and clips",
}
"""Files of packages that are installed with ``--no-deps``, and what they are needed for."""
SELDOM = {
    "torch": "added weights and a GPU",
    "librosa": "measuring quality",
    "sounddevice": "the terminal client",
    "pyworld-prebuilt": "changed voices",
    "pocketsphinx": "the built-in speech recogniser",
}
"""Packages without which a server starts, and what does not work then."""

_TIGHT_BYTES = 200 << 20
_LITTLE_BYTES = 2 << 30


def examine(config: Config) -> Iterator[Finding]:
    """All checks of this group. Args: config: options."""
    yield python()
    yield packages()
    for file, purpose in ALONE.items():
        yield packages_alone(file, purpose)
    yield disk(config.data_dir)


def python(running: tuple[int, ...] = tuple(sys.version_info[:3])) -> Finding:
    """Whether Python is new enough. Args: running: its version."""
    told = f"Python {'.'.join(map(str, running))} on {platform.system()} {platform.machine()}"
    if running < _OLDEST_PYTHON:
        oldest = ".".join(map(str, _OLDEST_PYTHON))
        return Finding("python", _GROUP, "problem", f"{told} is too old.", f"Use Python {oldest} or newer.")
    return Finding("python", _GROUP, "ok", f"{told}.")


def packages(file: Path = _REPOSITORY / REQUIRED) -> Finding:
    """Whether the packages are there in the versions that were tested. Args: file: names and versions."""
    missing, others, seldom = _compare(file)
    install = f"python -m pip install -r {REQUIRED}"
    if missing:
        return Finding("packages", _GROUP, "problem", f"Packages are missing: {', '.join(missing)}.", install)
    if seldom:
        told = "; ".join(f"without {name} there is no {SELDOM[name]}" for name in seldom)
        return Finding("packages", _GROUP, "warning", f"Packages are missing: {told}.", install)
    if others:
        told = "; ".join(others)
        return Finding("packages", _GROUP, "warning", f"Other versions than those that were tested: {told}.", install)
    return Finding("packages", _GROUP, "ok", "All packages are there in the versions that were tested.")


def packages_alone(file: str, purpose: str) -> Finding:
    """Whether packages are there that are installed without what they ask for. Args: as ``ALONE`` has them."""
    missing, others, _ = _compare(_REPOSITORY / file)
    check = "packages_" + Path(file).parent.name
    install = f"python -m pip install --no-deps -r {file}"
    if missing:
        return Finding(check, _GROUP, "warning", f"{purpose.capitalize()} needs {', '.join(missing)}.", install)
    if others:
        return Finding(check, _GROUP, "warning", f"Another version than was tested: {'; '.join(others)}.", install)
    return Finding(check, _GROUP, "ok", f"The packages for {purpose} are there.")


def disk(data_dir: Path) -> Finding:
    """Whether there is room for data, and leave to write it. Args: data_dir: need not exist yet."""
    folder = data_dir.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    figures: Figures = {"free_mb": free >> 20}
    told = f"{free / (1 << 30):.1f} GB are free in {data_dir}"
    if not os.access(folder, os.W_OK | os.X_OK):
        change = f"Give this user leave to write there, or choose another folder: --data-dir. It begins at {folder}."
        return Finding("disk", _GROUP, "problem", f"{data_dir} cannot be written to.", change, figures)
    if free < _TIGHT_BYTES:
        return Finding("disk", _GROUP, "problem", f"Only {told}.", "Make room, or choose another --data-dir.", figures)
    if free < _LITTLE_BYTES:
        change = "An avatar takes some megabytes, weights some hundred; make room before you add any."
        return Finding("disk", _GROUP, "warning", f"{told}.", change, figures)
    return Finding("disk", _GROUP, "ok", f"{told}.", "", figures)


def _compare(file: Path) -> tuple[list[str], list[str], list[str]]:
    """Packages of a file that are missing, that have another version (told as words), and that are seldom needed
    among the missing ones."""
    missing: list[str] = []
    others: list[str] = []
    seldom: list[str] = []
    for name, wanted in _PINNED.findall(_without_comments(file)):
        try:
            found = version(name)
        except PackageNotFoundError:
            (seldom if name in SELDOM else missing).append(name)
            continue
        # A build of torch says for which hardware after a plus; its version is the same.
        if found.split("+")[0] != wanted.split("+")[0]:
            others.append(f"{name} {found} instead of {wanted}")
    return missing, others, seldom


def _without_comments(file: Path) -> str:
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError:
        return ""
    return "\n".join(text.split("#")[0] for text in lines)
