"""``python -m engine bench``: how fast lip-sync models are on this machine, and how they are fastest.

Place in the flow: command line -> ``engine.bench`` -> table, JSON, and advice beside the weights that ``auto`` follows.

With ``--stages``: what every stage of a frame costs instead, with the model and the avatar that are chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from engine import registry
from engine.avatar.bundle import avatar_folder, load_avatar
from engine.bench import stages
from engine.bench.networks import Findings, measure_builtin, measure_weights
from engine.bench.report import note, table, to_json
from engine.cli.render import first_avatar
from engine.config import Config
from engine.config_load import load_config
from engine.errors import InvalidInput
from engine.option_docs import add_arguments as add_options
from engine.weights.folder import WeightsCard, find, list_weights

_STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``bench``."""
    parser.add_argument("--stages", action="store_true", help="measure the stages of a frame with the chosen model")
    parser.add_argument("--frames", type=int, default=150, metavar="N", help="with --stages: frames (default: 150)")
    parser.add_argument(
        "--seconds", type=float, default=6.0, metavar="S",
        help="computing time for each way and number of cores (default: 6)",
    )  # fmt: skip
    parser.add_argument(
        "--json", nargs="?", const=_STDOUT, metavar="FILE",
        help="write JSON to a file; without FILE to standard output, instead of the table",
    )  # fmt: skip
    add_options(
        parser, ["avatar", "avatars_dir", "lipsync", "weights_dir", "precision", "voice", "voice_name", "voice_rate"]
    )


def run(args: argparse.Namespace) -> int:
    """Measures and prints.

    Raises:
        NotFound: no such avatar or model.
        AvatarInvalid, WeightsInvalid: a folder is damaged.
        BackendFailed: a model cannot be loaded.
        ConfigInvalid: an option is wrong.
        InvalidInput: ``output_invalid``: the JSON file cannot be written.
    """
    config = load_config(vars(args))
    if args.json not in (None, _STDOUT) and not Path(args.json).parent.is_dir():
        raise InvalidInput("output_invalid", f"Cannot write {args.json}: its folder does not exist.")
    return _stages(args, config) if args.stages else _models(args, config)


def _models(args: argparse.Namespace, config: Config) -> int:
    # What a server is configured with is not what is asked for here: without the option it is everything.
    named = vars(args).get("lipsync")
    names = [named] if named else ["builtin", *_wav2lips(config.weights_dir)]
    found: list[Findings] = []
    for name in names:
        def tell(what: str, name: str = name) -> None:
            print(f"{name}: {what} ...", file=sys.stderr, flush=True)

        if name == "builtin":
            findings = measure_builtin(config, args.seconds, tell)
        else:
            findings = measure_weights(find(config.weights_dir, name), config, args.seconds, tell)
        found.append(findings)
        if args.json != _STDOUT:
            print(f"\n{table(findings)}\n", flush=True)
    if args.json != _STDOUT:
        print(note())
        if names == ["builtin"] and not named:
            print(f"There are no weights in {config.weights_dir}; 'python -m engine weights' adds checkpoints.")
    _write(args.json, to_json(found))
    return 0


def _wav2lips(weights_dir: Path) -> list[str]:
    cards = list_weights(weights_dir)
    return [name for name, card in cards.items() if isinstance(card, WeightsCard) and card.kind == "wav2lip"]


def _stages(args: argparse.Namespace, config: Config) -> int:
    avatar = load_avatar(avatar_folder(config.avatars_dir, config.avatar or first_avatar(config)))
    lipsync = registry.create_lipsync(
        config.lipsync, threads=1, precision=config.precision, weights_dir=config.weights_dir
    )
    frames = max(1, args.frames)
    costs_ms = stages.measure(avatar, lipsync, config, frames)
    if args.json != _STDOUT:
        width, height = avatar.size
        print(f"{avatar.name} {width}x{height}, {config.lipsync} {config.precision}, {frames} frames, one thread")
        print(stages.table(costs_ms))
    _write(args.json, {f"{stage}_cpu_ms": round(cost_ms, 4) for stage, cost_ms in costs_ms.items()})
    return 0


def _write(target: str | None, content: dict[str, Any]) -> None:
    if target == _STDOUT:
        print(json.dumps(content, indent=2))
    elif target is not None:
        Path(target).write_text(json.dumps(content, indent=2) + "\n")
