"""``python -m engine avatar list | check | create | matte``: which avatars there are, if they are sound, new ones."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from engine.avatar.bundle import Avatar, avatar_folder, list_avatars, load_avatar
from engine.avatar.card import CARD_FILE
from engine.cli import avatar_create, avatar_matte
from engine.config_load import load_config
from engine.errors import AvatarInvalid, NotFound
from engine.option_docs import add_arguments as add_options

# A seam this many times the usual change from picture to picture shows as a jump.
_SEAM_LIMIT = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``avatar``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line an avatar")
    listing.set_defaults(action=_list)
    check = actions.add_parser("check", help="load avatars completely and say what is wrong with them")
    check.add_argument("names", nargs="*", metavar="NAME", help="avatars to check (default: all)")
    check.set_defaults(action=_check)
    create = actions.add_parser("create", help="make an avatar of a photo or a video")
    avatar_create.add_arguments(create)
    create.set_defaults(action=avatar_create.run)
    matte = actions.add_parser("matte", help="cut the person out, for other backgrounds")
    avatar_matte.add_arguments(matte)
    matte.set_defaults(action=avatar_matte.run)
    for action in (listing, check):
        add_options(action, ["avatars_dir"])


def run(args: argparse.Namespace) -> int:
    """Runs ``list``, ``check``, ``create`` or ``matte``; 2 when a checked avatar cannot be used.

    Raises:
        NotFound: ``avatar_not_found``, also for an empty folder of avatars.
        ConfigInvalid: an option is wrong.
        VisavisError: whatever ``avatar_create.run`` and ``avatar_matte.run`` raise.
    """
    return args.action(args)


def _list(args: argparse.Namespace) -> int:
    directory = load_config(vars(args)).avatars_dir
    _folders(directory)
    for card in list_avatars(directory).values():
        width, height = card.size
        kind = "synthetic" if card.synthetic else "real person"
        print(f"{card.name:<20} {width}x{height:<6} {kind:<12} {card.licence:<12} {card.title}")
    return 0


def _folders(directory: Path) -> list[str]:
    """Names of all folders that mean to be avatars, usable or not."""
    names = sorted(card.parent.name for card in directory.glob(f"*/{CARD_FILE}"))
    if not names:
        raise NotFound("avatar_not_found", f"There is no avatar in {directory}.")
    return names


def _check(args: argparse.Namespace) -> int:
    directory = load_config(vars(args)).avatars_dir
    bad = 0
    for name in args.names or _folders(directory):
        try:
            avatar = load_avatar(avatar_folder(directory, name))
        except AvatarInvalid as error:
            bad += 1
            print(f"{name}: {error.message}")
            continue
        seam = seam_ratio(avatar)
        note = f", but its loop jumps: the seam is {seam:.1f} x the usual change" if seam > _SEAM_LIMIT else ""
        count, height, width = avatar.frames.shape[:3]
        print(f"{name}: usable, {width}x{height}, {count / avatar.fps:.1f} s loop{note}")
    return 2 if bad else 0


def seam_ratio(avatar: Avatar) -> float:
    """Change from the last picture to the first, over the 95th percentile of all other changes; about 1 is smooth."""
    small = avatar.frames[:, ::4, ::4].astype(np.int16)
    usual = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(small)]
    seam = float(np.abs(small[0] - small[-1]).mean())
    return seam / max(float(np.percentile(usual, 95)), 1e-3) if seam > 0 else 0.0
