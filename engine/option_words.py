"""How one option is told to people: its flag, its environment variable, and what it takes, in words.

Place in the flow: fields of ``engine.config.Config`` -> words -> help, ``config.example.toml``, README, errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

ENV_PREFIX = "VISAVIS_"
URL = r"^$|^https?://\S+$"
"""Pattern of the options that are addresses of services; may be empty."""
SOCKET_URL = r"^$|^(http|ws)s?://\S+$"
"""The same, of services that may be asked over a WebSocket."""


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option as documentation shows it.

    Attributes:
        name: key in the TOML file, e.g. ``max_sessions``.
        flag: e.g. ``--max-sessions``.
        env: e.g. ``VISAVIS_MAX_SESSIONS``.
        default: as TOML, e.g. ``"127.0.0.1"``.
        allowed: in words, e.g. ``a whole number from 1 to 65535``.
        help: one sentence.
        group: heading it stands under.
    """

    name: str
    flag: str
    env: str
    default: str
    allowed: str
    help: str
    group: str


def flag_of(name: str) -> str:
    """``max_sessions`` -> ``--max-sessions``."""
    return "--" + name.replace("_", "-")


def env_of(name: str) -> str:
    """``max_sessions`` -> ``VISAVIS_MAX_SESSIONS``."""
    return ENV_PREFIX + name.upper()


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """What a field carries beside its type: ``group``, ``shown``, ``items``."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return extra


def allowed(field: FieldInfo) -> str:
    """What an option takes, in words."""
    limits = {key: getattr(item, key) for item in field.metadata for key in ("ge", "le") if hasattr(item, key)}
    auto = "auto or " if extra_of(field)["shown"] == "auto" else ""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(field.annotation)))
    if field.annotation in (int, float):
        kind = "a whole number" if field.annotation is int else "a number"
        return f"{auto}{kind} from {limits['ge']} to {limits['le']}"
    if get_origin(field.annotation) is tuple:
        return "a list of " + extra_of(field)["items"]
    if field.annotation is Path:
        return "a path"
    patterns = [item.pattern for item in field.metadata if getattr(item, "pattern", None)]
    if URL in patterns:
        return "an http: or https: URL"
    if SOCKET_URL in patterns:
        return "an http:, https:, ws: or wss: URL"
    return "a name of small letters, digits, - and _" if patterns else "text"
