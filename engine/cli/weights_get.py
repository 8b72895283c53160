"""``python -m engine weights get``: shows the terms, asks, fetches an official checkpoint, and adds it.

Place in the flow: a name -> terms and question -> ``engine.weights.download`` -> ``engine.weights.add``.

Invariants:
    * nothing is fetched before the terms were accepted, and nothing is asked when it could not be kept anyway;
    * a complete file that could not be added for lack of room is not fetched twice.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from engine.config import Config
from engine.errors import Cancelled, ConfigInvalid, WeightsInvalid
from engine.option_docs import add_arguments as add_options
from engine.weights.add import Added, add_weights
from engine.weights.download import download
from engine.weights.folder import check_free, check_space, typed_errors
from engine.weights.sources import SOURCES, Source, addresses, shown

_QUESTIONS = 3
_LINE_EVERY_S = 10.0


def add_get_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``weights get``."""
    names = "; ".join(f"{source.name}: {source.title}" for source in SOURCES.values())
    parser.add_argument("source", choices=list(SOURCES), metavar="WHICH", help=names)
    parser.add_argument(
        "--accept-licence", "--accept-license", action="store_true", help="accept the terms of use without a question"
    )
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL",
        help="address to try first: of the file, or of a folder that holds it; may be said several times",
    )  # fmt: skip
    parser.add_argument("--sha256", metavar="HEX", help="digest the file must have (default: the official file's)")
    parser.add_argument("--name", help="name of the new weights (default: WHICH)")
    parser.add_argument("--force", action="store_true", help="replace weights of the same name")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    add_options(parser, ["weights_dir", "weights_mirrors"])


def get(args: argparse.Namespace, config: Config) -> Added:
    """Fetches and adds one checkpoint.

    Raises:
        Cancelled: ``licence_refused``: the terms were not accepted.
        VisavisError: whatever ``addresses``, ``download`` and ``add_weights`` raise.
    """
    source = SOURCES[args.source]
    name = args.name or source.name
    sha256 = source.sha256 if args.sha256 is None else _digest(args.sha256)
    mirrors = addresses(source, args.mirror, config.weights_mirrors)
    check_free(config.weights_dir, name, force=args.force)
    goal = config.weights_dir / ".downloads" / source.file_name
    # The file and what is made of it lie there at the same time.
    check_space(config.weights_dir, 2 * source.size_bytes)
    _accept(source, accepted=args.accept_licence)
    if not _is(goal, sha256):
        with _Progress(source.file_name, quiet=args.quiet) as progress:
            try:
                arrived = download(mirrors, goal, sha256=sha256, progress=progress.update, say=progress.say)
            except KeyboardInterrupt:
                progress.say("Interrupted; what arrived is kept, and the same command continues.")
                raise
        print(f"{source.file_name} came from {shown(arrived.address)}; its SHA-256 is right.")
    try:
        added = add_weights(goal, config.weights_dir, name=name, force=args.force, licence=None)
    except WeightsInvalid:
        goal.unlink(missing_ok=True)
        raise
    with typed_errors(config.weights_dir):
        goal.unlink(missing_ok=True)
    return added


def _digest(text: str) -> str:
    digest = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ConfigInvalid("sha256_invalid", f"--sha256 takes 64 hexadecimal digits, not {text!r}.")
    return digest


def _is(path: Path, sha256: str) -> bool:
    """Whether the right file is there already, left by a run that could not add it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _accept(source: Source, *, accepted: bool) -> None:
    """Shows the terms and asks, unless they are accepted already.

    Raises:
        Cancelled: ``licence_refused``.
    """
    print(f"{source.title} ({source.size_bytes / 1e6:.0f} MB)\n\n{source.terms}\n", flush=True)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise Cancelled("licence_refused", "Nobody can be asked here: to accept these terms, say --accept-licence.")
    for _ in range(_QUESTIONS):
        try:
            answer = input("Do you accept these terms? [y/N] ").strip().lower()
        except EOFError:
            print()
            break
        if answer in ("y", "yes"):
            return
        if answer in ("", "n", "no"):
            break
        print("Please answer y or n.")
    raise Cancelled("licence_refused", "The terms were not accepted; nothing was fetched.")


class _Progress:
    """A bar on a terminal, a line now and then elsewhere, nothing when quiet; on standard error."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        self._title, self._quiet = title, quiet
        self._next_s = 0.0
        bar = not quiet and sys.stderr.isatty()
        self._bar = tqdm(desc=title, unit="B", unit_scale=True, leave=False) if bar else None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int, total: int | None) -> None:
        """Shows how far it is, bytes."""
        if self._bar is not None:
            self._bar.total = total
            if done < self._bar.n:
                self._bar.reset(total)
            if self._bar.n == 0 and done:
                # What an earlier run left is no speed of this one.
                self._bar.initial = self._bar.n = done
            self._bar.update(done - self._bar.n)
        elif not self._quiet and (time.monotonic() >= self._next_s or done == total):
            self._next_s = time.monotonic() + _LINE_EVERY_S
            share = f" of {total / 1e6:.0f} MB ({100 * done / total:.0f} %)" if total else " MB"
            print(f"{self._title}: {done / 1e6:.0f}{share}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Shows a sentence without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
