"""Reads the options from the command line, the environment and a TOML file, and validates them together.

Place in the flow: ``vars(args)``, ``os.environ``, file -> ``load_config`` -> ``Config``.

Invariants: a bad value is an error that says where it came from and what is allowed; nothing is silently replaced.
"""

from __future__ import annotations

import difflib
import json
import logging
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from engine.config import Config
from engine.errors import ConfigInvalid
from engine.option_docs import DEFAULT_CONFIG_FILE
from engine.option_words import ENV_PREFIX, allowed, env_of, flag_of

CONFIG_FILE_ENV = "VISAVIS_CONFIG"

# Read by the tests and their runner, no options of the product.
_FOREIGN_ENV = {CONFIG_FILE_ENV, "VISAVIS_SHARED", "VISAVIS_CHROMIUM"}

_log = logging.getLogger(__name__)


def load_config(
    cli: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    toml_path: str | Path | None = None,
    warn: Callable[[str], None] = _log.warning,
) -> Config:
    """Reads all sources and validates them together.

    Args:
        cli: option name -> value or text; None values and names that are no options are ignored, so that
            ``vars(args)`` can be passed as it is.
        env: environment; ``os.environ`` when None.
        toml_path: file of options; else ``cli["config"]``, ``VISAVIS_CONFIG``, or ``config.toml`` in the working
            directory if there is one.
        warn: told about ``VISAVIS_`` variables that are no options.

    Raises:
        ConfigInvalid: ``config_invalid`` naming source, value and what is allowed, one line each;
            ``config_unreadable`` for a file that is missing or no TOML.
    """
    cli = {} if cli is None else cli
    env = os.environ if env is None else env
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    named = toml_path or cli.get("config") or env.get(CONFIG_FILE_ENV)
    if named or Path(DEFAULT_CONFIG_FILE).is_file():
        path = Path(named or DEFAULT_CONFIG_FILE)
        for name, value in _read_toml(path).items():
            values[name], sources[name] = value, f"{path}: {name}"

    for variable, text in env.items():
        if not variable.startswith(ENV_PREFIX) or variable in _FOREIGN_ENV:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in Config.model_fields or variable != variable.upper():
            close = _did_you_mean(variable.upper(), [env_of(known) for known in Config.model_fields])
            warn(f"Environment variable {variable} is no option and is ignored.{close}")
        elif text.strip():
            values[name], sources[name] = text.strip(), f"environment variable {variable}"

    for name, value in cli.items():
        if name in Config.model_fields and value is not None:
            values[name], sources[name] = value, f"flag {flag_of(name)}"
    return _validate(values, sources)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid("config_unreadable", f"Cannot read the options in {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid("config_unreadable", f"{path} is no valid TOML: {error}.") from error
    unknown = [name for name in content if name not in Config.model_fields]
    if unknown:
        raise ConfigInvalid(
            "config_invalid",
            "\n".join(f"{path}: {name} is no option.{_did_you_mean(name, list(Config.model_fields))}"
                      for name in unknown),
        )
    for name in ("avatars_dir", "data_dir", "weights_dir"):
        if isinstance(folder := content.get(name), str):
            content[name] = str(path.expanduser().parent / Path(folder).expanduser())
    return content


def _validate(values: dict[str, Any], sources: dict[str, str]) -> Config:
    problems = []
    parsed = {}
    for name, value in values.items():
        try:
            parsed[name] = _parse(Config.model_fields[name], value)
        except ValueError:
            problems.append(_problem(name, value, sources))
    try:
        config = Config(**parsed)
    except ValidationError as error:
        bad = dict.fromkeys(str(detail["loc"][0]) for detail in error.errors())
        problems += [_problem(name, values[name], sources) for name in bad]
    if problems:
        raise ConfigInvalid("config_invalid", "\n".join(problems))
    return config


def _parse(field: FieldInfo, value: Any) -> Any:
    """Text from a flag or the environment -> what pydantic expects; other values as they are."""
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("no option takes this")
    if get_origin(field.annotation) is tuple and isinstance(value, str):
        if value.lstrip()[:1] == "[":
            return json.loads(value)
        return [item.strip() for item in value.split(",") if item.strip()]
    if field.annotation is float and isinstance(value, str) and not math.isfinite(float(value)):
        raise ValueError("not finite")
    return Path(value).expanduser() if field.annotation is Path else value


def _problem(name: str, value: object, sources: dict[str, str]) -> str:
    # What may hold a password or a key stays out of the message.
    said = "this value" if name in ("ice_servers", "publish") or name.endswith(("_key", "_secret")) else repr(value)
    return f"{sources[name]}: {said} cannot be used; allowed: {allowed(Config.model_fields[name])}."


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""
