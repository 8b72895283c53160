"""API keys: what a program shows to use a server that is not open to everybody.

Place in the flow: ``python -m server keys create`` -> ``keys.json`` -> ``ApiKeys.find`` for each request.

Invariants: a key is shown once, when it is made; the file holds only its hash.

A key is 256 random bits. No dictionary leads to it, so a plain SHA-256 is as good as a slow password hash, and costs a
request microseconds instead of a hundred milliseconds that strangers could ask for.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from engine.errors import InvalidInput, NotFound
from server.access.records import Records

PREFIX = "vk_"
FILE = "keys.json"


class ApiKey(BaseModel):
    """One key as it is kept.

    Attributes:
        name: what people call it.
        sha256: of the whole key, as hexadecimal digits.
        created: when it was made, ISO 8601 in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    created: str

    @property
    def id(self) -> str:
        """Names this key and no later one of the same name; tells nothing of the key itself."""
        return f"key:{self.sha256[:16]}"


class ApiKeys:
    """The keys of a server."""

    def __init__(self, data_dir: Path) -> None:
        """Args: data_dir: folder of what the server keeps."""
        self._records = Records(data_dir / FILE, ApiKey)

    def listed(self) -> list[ApiKey]:
        """All keys, oldest first.

        Raises:
            ConfigInvalid: ``access_file_unreadable``.
        """
        return self._records.load()

    def create(self, name: str) -> str:
        """Makes a key and returns it; it cannot be shown again.

        Raises:
            InvalidInput: ``key_name_invalid``, ``key_exists``.
            ConfigInvalid: the file cannot be read or written.
        """
        if not 1 <= len(name) <= 100 or not name.isprintable():
            raise InvalidInput("key_name_invalid", "The name of a key has 1 to 100 printable characters.")
        key = PREFIX + secrets.token_urlsafe(32)
        with self._records.changing() as keys:
            if any(known.name == name for known in keys):
                raise InvalidInput("key_exists", f"There is a key called {name!r} already; revoke it first.")
            created = datetime.now(UTC).isoformat(timespec="seconds")
            keys.append(ApiKey(name=name, sha256=_hash(key), created=created))
        return key

    def revoke(self, name: str) -> None:
        """Makes a key worthless at once, and the tokens it minted with it.

        Raises:
            NotFound: ``key_not_found``.
            ConfigInvalid: the file cannot be read or written.
        """
        with self._records.changing() as keys:
            kept = [key for key in keys if key.name != name]
            if len(kept) == len(keys):
                raise NotFound("key_not_found", f"There is no key called {name!r}.")
            keys[:] = kept

    def find(self, key: str) -> ApiKey | None:
        """The record of a key that was shown; None when there is none."""
        shown = _hash(key)
        found = None
        for known in self._records.current():
            # All are compared, each in constant time.
            if hmac.compare_digest(known.sha256, shown):
                found = known
        return found

    def stands(self, key_id: str) -> bool:
        """Whether the key of an id has not been revoked."""
        return any(known.id == key_id for known in self._records.current())

    @property
    def any(self) -> bool:
        """Whether there is a key at all."""
        return bool(self._records.current())


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
