"""A file that is on its way: the bytes that arrived, and from which file they are.

Place in the flow: ``engine.weights.download`` writes it, leaves it behind when it is interrupted, and continues it.

Invariant: bytes without a readable note are not continued.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Part:
    """A file on its way: ``<name>.part``, and what is known of it in ``<name>.part.json``.

    Attributes:
        path: of the bytes.
        address: they came from, as a digest, because an address may hold a secret.
        validator: entity tag or date by which the mirror recognises this very file; "" when it gave none.
        total: bytes of the whole file; None when unknown.
    """

    path: Path
    address: str = ""
    validator: str = ""
    total: int | None = None

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def load(self) -> None:
        """Reads what an earlier run left; begins anew when its note is missing or cannot be read."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            self.address, self.validator = str(note["address"]), str(note["validator"])
            self.total = None if note["total"] is None else int(note["total"])
        except (OSError, ValueError, KeyError, TypeError):
            self.drop()

    def begin(self, address: str, validator: str, total: int | None) -> None:
        """Takes note of a new file, before its first byte."""
        self.drop()
        self.address, self.validator, self.total = _digest(address), validator, total
        self._note.write_text(json.dumps({"address": self.address, "validator": validator, "total": total}), "utf-8")

    def is_of(self, address: str) -> bool:
        """Whether the bytes came from this address, and the mirror can tell whether its file is still the same."""
        return self.address == _digest(address) and bool(self.validator)

    def drop(self) -> None:
        """Forgets everything that arrived."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.address, self.validator, self.total = "", "", None

    def finish(self, goal: Path) -> None:
        """Gives the complete file its name."""
        self.path.replace(goal)
        self._note.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()
