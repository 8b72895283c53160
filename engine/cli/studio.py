"""``python -m engine studio``: one door to the workshop that makes avatars, training data and networks.

Place in the flow: command line -> ``main`` of one module of ``engine.studio`` (or the ``evaluate`` command).

Invariants:
    * a command imports its own module only, so listing them needs nothing that training needs;
    * words after the command reach its module untouched, ``--help`` included.
"""

from __future__ import annotations

import argparse
import importlib
from typing import NamedTuple

from engine.errors import ConfigInvalid

INSTALL = "pip install -r engine/studio/requirements.txt"


class _Command(NamedTuple):
    module: str
    words: tuple[str, ...]
    help: str


COMMANDS = {
    "all": _Command("reproduce", (), "everything from the assets to measured networks; goes on where it stopped"),
    "unpack": _Command("assets", ("unpack",), "unpack the asset archives"),
    "avatar": _Command("portrait", ("avatar",), "draw a shipped avatar: idle loop and clips"),
    "mouth-inside": _Command("mouth_atlas", (), "draw the teeth and the tongue"),
    "pairs": _Command("pairs", (), "draw training pairs for the picture network"),
    "train-picture": _Command("picture_train", ("train",), "train the picture network"),
    "measure-picture": _Command("picture_train", ("measure",), "measure it on people it has never seen"),
    "export-picture": _Command("picture_export", (), "picture network -> files of the product"),
    "speech": _Command("speech_data", (), "synthesise timed speech for the audio network"),
    "align-speech": _Command("speech_align", (), "recorded speech and its transcript -> timed speech"),
    "train-audio": _Command("audio_train", (), "train the audio network"),
    "mean-audio": _Command("audio_mean", (), "mean of the weights of several runs"),
    "export-audio": _Command("audio_export", (), "audio network -> files of the product"),
    "sheet": _Command("picture_sheet", (), "look at an avatar's mouths on one sheet"),
    "sync-lips": _Command("sync_expert_lips", (), "measure known mouths with the face tracker"),
    "train-sync": _Command("sync_expert", (), "train the lip-sync expert of evaluate"),
    "lip-map": _Command("lip_map", (), "fit the map from measured lips to mouths that finetune uses"),
    "likeness": _Command("likeness", (), "fit what tells people apart, so that finetune refuses a stranger's video"),
    "finetune": _Command("finetune", (), "fit the picture network to the person of an avatar, from a video"),
}
"""Command -> module of ``engine.studio``, words put before the caller's, help; ``evaluate`` comes on top."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``studio``."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    lines.append(f"  {'evaluate':<{width}}  measure networks or avatars")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "commands:\n" + "\n".join(lines) + "\n\nEach has its own --help. Needs: " + INSTALL
    parser.add_argument("studio_command", metavar="COMMAND", choices=(*COMMANDS, "evaluate"), help="see below")
    parser.add_argument("words", metavar="...", nargs=argparse.REMAINDER, help="its arguments")


def run(args: argparse.Namespace) -> int:
    """Runs one command of the studio.

    Raises:
        ConfigInvalid: ``studio_not_installed``, a package that the command needs is missing.
        VisavisError: whatever the command raises.
    """
    try:
        if args.studio_command == "evaluate":
            return _evaluate(args.words)
        command = COMMANDS[args.studio_command]
        module = importlib.import_module(f"engine.studio.{command.module}")
        return module.main([*command.words, *args.words]) or 0
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        if package in ("engine", "server"):
            raise
        raise ConfigInvalid(
            "studio_not_installed",
            f"studio {args.studio_command} needs {package}, which is not installed here. Run: {INSTALL}",
        ) from error


def _evaluate(words: list[str]) -> int:
    from engine.evaluate import cli

    parser = argparse.ArgumentParser(prog="python -m engine studio evaluate")
    cli.add_arguments(parser)
    return cli.run(parser.parse_args(words))
