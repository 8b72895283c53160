"""The table of options as people read it: flags with their help, the commented example file, the README's table.

Place in the flow: fields of ``Config`` -> rows -> argument parser, ``config.example.toml``, README.
"""

from __future__ import annotations

import argparse
import json

from engine.config import Config
from engine.option_words import ENV_PREFIX, OptionRow, allowed, env_of, extra_of, flag_of

DEFAULT_CONFIG_FILE = "config.toml"


def option_rows() -> list[OptionRow]:
    """The whole table, in order."""
    rows = []
    for name, field in Config.model_fields.items():
        extra = extra_of(field)
        default = extra["shown"] if extra["shown"] is not None else field.default
        default = list(default) if isinstance(default, tuple) else default
        shown = json.dumps(default)
        rows.append(
            OptionRow(name, flag_of(name), env_of(name), shown, allowed(field), field.description or "",
                      extra["group"])
        )
    return rows


def example_toml() -> str:
    """The content of ``config.example.toml``: every option, commented out, at its default."""
    lines = [
        "# Every option of Visavis at its default. Copy to config.toml beside it, or name the file with --config.",
        f"# A flag beats the environment ({ENV_PREFIX}<NAME>), the environment beats this file.",
    ]
    group = ""
    for row in option_rows():
        if row.group != group:
            group = row.group
            lines += ["", f"# ---- {group}"]
        lines += ["", f"# {row.help}", f"# Allowed: {row.allowed}.", f"#{row.name} = {row.default}"]
    return "\n".join(lines) + "\n"


def readme_table() -> str:
    """The README's table of options, in Markdown."""
    lines = ["| option | environment | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{row.flag}` | `{row.env}` | `{row.default}` | {row.help} |" for row in option_rows()]
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser, names: list[str] | None = None) -> None:
    """Adds ``--config`` and the flags of the named options (all when None); pass ``vars(args)`` to ``load_config``."""
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS,
                        help=f"TOML file of options (default: {DEFAULT_CONFIG_FILE} where there is one)")
    for row in option_rows():
        if names is None or row.name in names:
            help_text = f"{row.help} Allowed: {row.allowed}. Default: {row.default}".replace("%", "%%")
            parser.add_argument(row.flag, dest=row.name, metavar="VALUE", default=argparse.SUPPRESS, help=help_text)
