"""``python -m server keys`` and ``embeds``: gives out what lets others in, and takes it back.

Place in the flow: command line -> ``ApiKeys``, ``Embeds`` -> files in ``data_dir``; a running server sees the change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from engine.config import Config
from engine.config_load import load_config
from engine.errors import NotFound, VisavisError
from engine.option_docs import add_arguments
from server.access.embeds import Embeds
from server.access.keys import ApiKeys
from server.library import Library


def main(argv: Sequence[str]) -> int:
    """Runs one command, ``keys …`` or ``embeds …``; returns the exit code."""
    arguments = _parser(argv[0]).parse_args(argv[1:])
    run: Callable[[argparse.Namespace, Config], None] = arguments.run
    try:
        run(arguments, load_config(vars(arguments)))
    except VisavisError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


def _parser(command: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    add_arguments(options, ["data_dir", "avatars_dir"])
    about = {
        "keys": "API keys: what programs show to a server that is not open to everybody.",
        "embeds": "Embeds: which pages of other sites may show an avatar.",
    }
    parser = argparse.ArgumentParser(prog=f"python -m server {command}", description=about[command])
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, help: str, run: Callable[[argparse.Namespace, Config], None]) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=help, description=help, parents=[options])
        added.set_defaults(run=run)
        return added

    if command == "keys":
        action("create", "Makes a key and prints it, this once.", _create).add_argument("name")
        action("list", "Lists the names of all keys.", _list_keys)
        action("revoke", "Makes a key worthless at once.", _revoke).add_argument("name")
    else:
        add = action("add", "Lets pages of some origins show an avatar, and prints the embed key.", _add)
        add.add_argument("avatar")
        add.add_argument("--origin", action="append", default=[], help="such as https://shop.example; may be repeated")
        action("list", "Lists all embeds.", _list_embeds)
        action("remove", "Ends an embed at once.", _remove).add_argument("key")
    return parser


def _create(arguments: argparse.Namespace, config: Config) -> None:
    print(ApiKeys(config.data_dir).create(arguments.name))
    print("Keep it; it cannot be shown again. Send it as: Authorization: Bearer …", file=sys.stderr)


def _list_keys(_arguments: argparse.Namespace, config: Config) -> None:
    for key in ApiKeys(config.data_dir).listed():
        print(f"{key.created}  {key.name}")


def _revoke(arguments: argparse.Namespace, config: Config) -> None:
    ApiKeys(config.data_dir).revoke(arguments.name)


def _add(arguments: argparse.Namespace, config: Config) -> None:
    known = Library(config.avatars_dir, config.data_dir / "avatars").cards
    if arguments.avatar not in known:
        raise NotFound("avatar_unknown", f"There is no avatar {arguments.avatar!r}; known: {', '.join(known)}.")
    print(Embeds(config.data_dir).add(arguments.avatar, arguments.origin).key)


def _list_embeds(_arguments: argparse.Namespace, config: Config) -> None:
    for embed in Embeds(config.data_dir).listed():
        print(f"{embed.created}  {embed.key}  {embed.avatar}  {' '.join(embed.origins)}")


def _remove(arguments: argparse.Namespace, config: Config) -> None:
    Embeds(config.data_dir).remove(arguments.key)
