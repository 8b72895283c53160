"""Embeds: which pages of other sites may show which avatar.

Place in the flow: ``python -m server embeds add`` -> ``embeds.json`` -> ``framing`` for each frame, and for the tokens
that came of it.

Invariants: an origin is exact, without wildcards; an embed key is public and worth nothing on any other origin.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from engine.errors import InvalidInput, NotFound
from server.access.records import Records

PREFIX = "ve_"
FILE = "embeds.json"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Embed(BaseModel):
    """One avatar on the pages of some origins.

    Attributes:
        key: public; stands in those pages.
        avatar: name of the only avatar it shows.
        origins: exactly as browsers send them.
        created: when it was made, ISO 8601 in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    avatar: str
    origins: tuple[str, ...]
    created: str

    @property
    def id(self) -> str:
        """Names it in tokens and rates."""
        return f"embed:{self.key}"


def origin_of(text: str) -> str:
    """An origin as browsers send it: ``HTTPS://Shop.example:443`` -> ``https://shop.example``.

    Raises:
        InvalidInput: ``origin_invalid``.
    """
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
        named = host.encode("ascii" if ":" in host else "idna").decode()
    except ValueError:
        parts, named, port = urlsplit(""), "", None
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in _DEFAULT_PORTS or not named or not bare or not set(named) <= _IN_HOSTS:
        raise InvalidInput(
            "origin_invalid", f"{text[:100]!r} is no origin; write scheme and host, such as https://shop.example."
        )
    named = f"[{named}]" if ":" in named else named
    return f"{parts.scheme}://{named}" + (f":{port}" if port and port != _DEFAULT_PORTS[parts.scheme] else "")


_IN_HOSTS = set("abcdefghijklmnopqrstuvwxyz0123456789.-_:")


class Embeds:
    """The embeds of a server."""

    def __init__(self, data_dir: Path) -> None:
        """Args: data_dir: folder of what the server keeps."""
        self._records = Records(data_dir / FILE, Embed)

    def listed(self) -> list[Embed]:
        """All embeds, oldest first.

        Raises:
            ConfigInvalid: ``access_file_unreadable``.
        """
        return self._records.load()

    def add(self, avatar: str, origins: list[str]) -> Embed:
        """Lets pages of some origins show an avatar.

        Raises:
            InvalidInput: ``origin_invalid``, ``origin_missing``.
            ConfigInvalid: the file cannot be read or written.
        """
        if not origins:
            raise InvalidInput("origin_missing", "Say on whose pages it stands, such as --origin https://shop.example.")
        embed = Embed(
            key=PREFIX + secrets.token_urlsafe(16),
            avatar=avatar,
            origins=tuple(dict.fromkeys(origin_of(origin) for origin in origins)),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self._records.changing() as embeds:
            embeds.append(embed)
        return embed

    def remove(self, key: str) -> None:
        """Ends an embed, and the tokens that came of it with it.

        Raises:
            NotFound: ``embed_not_found``.
            ConfigInvalid: the file cannot be read or written.
        """
        with self._records.changing() as embeds:
            kept = [embed for embed in embeds if embed.key != key]
            if len(kept) == len(embeds):
                raise NotFound("embed_not_found", "There is no such embed; embeds list shows all.")
            embeds[:] = kept

    def find(self, key: str) -> Embed | None:
        """The embed of a public key."""
        return next((embed for embed in self._records.current() if embed.key == key), None)

    @property
    def any(self) -> bool:
        """Whether there is an embed at all."""
        return bool(self._records.current())
