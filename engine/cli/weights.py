"""``python -m engine weights add | get | list | show | remove | export``: checkpoints of known networks.

Place in the flow: a checkpoint or a name -> ``engine.weights`` -> a folder that ``--lipsync`` and ``--restorer`` know.

Invariants:
    * nothing is fetched before the terms were shown and accepted;
    * with any mistake, on Ctrl-C, and after a failure, the weights are as they were before.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine.cli.weights_get import add_get_arguments, get
from engine.config_load import load_config
from engine.option_docs import add_arguments as add_options
from engine.weights.add import Added, add_weights
from engine.weights.export import Form, export
from engine.weights.folder import CARD_FILE, WeightsCard, find, folder_bytes, list_weights, read_card, remove
from engine.weights.sources import SOURCES

_OPTION = {"wav2lip": "--lipsync", "gfpgan": "--restorer"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``weights``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    adding = actions.add_parser("add", help="recognise a checkpoint and keep it in a folder of its own")
    adding.add_argument("file", type=Path, metavar="FILE", help="checkpoint: .pth, .pt, .ckpt or .safetensors")
    adding.add_argument("--name", help="name of the new weights: a-z, 0-9, '-', '_' (default: that of the network)")
    adding.add_argument("--licence", metavar="TEXT", help="terms of use (default: those of the official weights)")
    adding.add_argument("--force", action="store_true", help="replace weights of the same name")
    adding.set_defaults(action=_add)
    getting = actions.add_parser("get", help="fetch an official checkpoint and add it")
    add_get_arguments(getting)
    getting.set_defaults(action=_get)
    listing = actions.add_parser("list", help="one line for each of the weights")
    listing.set_defaults(action=_list)
    showing = actions.add_parser("show", help="everything that is known about some weights")
    showing.set_defaults(action=_show)
    removing = actions.add_parser("remove", help="delete weights, and what was made from them")
    removing.set_defaults(action=_remove)
    exporting = actions.add_parser("export", help="write the network as ONNX or OpenVINO, checked against torch")
    exporting.set_defaults(action=_export)
    for action in (showing, removing, exporting):
        action.add_argument("name", metavar="NAME", help="of the weights; 'list' shows them")
    formats = exporting.add_mutually_exclusive_group(required=True)
    formats.add_argument("--onnx", type=Path, metavar="FILE", help="*.onnx to write")
    formats.add_argument("--openvino", type=Path, metavar="FILE", help="*.xml to write; its *.bin lies beside it")
    exporting.add_argument("--force", action="store_true", help="replace a file that is there")
    for action in (adding, listing, showing, removing, exporting):
        add_options(action, ["weights_dir"])


def run(args: argparse.Namespace) -> int:
    """Runs one action.

    Raises:
        WeightsInvalid: the checkpoint, or the folder of weights, cannot be used; says why and what to do.
        InvalidInput: a name or file that is taken or unusable.
        NotFound: there are no such weights, or no address to fetch them from.
        DiskFull: there is no room.
        DownloadFailed: no mirror gave the file.
        ConfigInvalid: an option is wrong.
        Cancelled: the terms were not accepted.
    """
    return args.action(args)


def _add(args: argparse.Namespace) -> int:
    config = load_config(vars(args))
    _tell(add_weights(args.file, config.weights_dir, name=args.name, force=args.force, licence=args.licence))
    return 0


def _get(args: argparse.Namespace) -> int:
    _tell(get(args, load_config(vars(args))))
    return 0


def _tell(added: Added) -> None:
    card = added.card
    print(f"{card.source_file} is {card.variant}.")
    _print_card(card)
    print(f"{added.folder}: use it with {_OPTION[card.kind]} {card.name}")


def _list(args: argparse.Namespace) -> int:
    directory = load_config(vars(args)).weights_dir
    found = list_weights(directory)
    for name, card in found.items():
        if isinstance(card, WeightsCard):
            millions = f"{card.parameters / 1e6:.1f} M"
            print(f"{name:<20} {card.variant:<18} {card.size:>4} px {millions:>8}  {card.added}  {card.source_file}")
        else:
            print(f"{name:<20} unusable: {card.message}")
    if not found:
        print(f"There are no weights in {directory} yet. Add a checkpoint: python -m engine weights add FILE")
        print(f"Or fetch one: python -m engine weights get {' | '.join(SOURCES)}")
    return 0


def _show(args: argparse.Namespace) -> int:
    folder = find(load_config(vars(args)).weights_dir, args.name)
    card = read_card(folder)
    print(f"{card.name}: {card.variant}")
    _print_card(card)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != CARD_FILE:
            print(f"  {path.relative_to(folder)!s:<24} {path.stat().st_size / 1e6:.1f} MB")
    print(f"{folder}: {folder_bytes(folder) / 1e6:.1f} MB; use it with {_OPTION[card.kind]} {card.name}")
    return 0


def _print_card(card: WeightsCard) -> None:
    print(f"  picture     {card.size}x{card.size}, {card.colour.upper()}, last layer {card.activation}")
    if card.kind == "wav2lip":
        # 80 columns a second.
        offset_ms = abs(card.window_offset) * 12.5
        side = "before" if card.window_offset < 0 else "after"
        place = f"{offset_ms:.1f} ms {side} its picture" if card.window_offset else "with its picture"
        print(f"  sound       each window begins {place} (offset {card.window_offset} columns)")
    print(f"  parameters  {card.parameters:,}")
    print(f"  from        {card.source_file}, added {card.added}")
    print(f"  sha256      {card.source_sha256}")
    print(f"  licence     {card.licence}")


def _remove(args: argparse.Namespace) -> int:
    size = remove(load_config(vars(args)).weights_dir, args.name)
    print(f"{args.name} is removed; {size / 1e6:.1f} MB are free again.")
    return 0


def _export(args: argparse.Namespace) -> int:
    folder = find(load_config(vars(args)).weights_dir, args.name)
    form: Form = "openvino" if args.onnx is None else "onnx"
    print("This takes a while ...", file=sys.stderr)
    print(export(folder, form, args.onnx or args.openvino, force=args.force))
    return 0
