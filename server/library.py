"""Which avatars there are: those that come with the server, and those that were made here.

Place in the flow: ``avatars_dir`` and ``data_dir/avatars`` -> ``Library`` -> ``Stage`` (cards, folders); the studio
adds and removes while the server runs.

Invariants:
    * a name exists once, and a shipped avatar keeps its name whatever was made here;
    * shipped avatars come first and can be neither replaced nor removed;
    * a folder is found by looking a name up; no text of a caller becomes a path.
"""

from __future__ import annotations

import logging
from pathlib import Path

from engine.avatar.bundle import list_avatars
from engine.avatar.card import NAME_PATTERN, AvatarCard, read_card
from engine.errors import NotFound

logger = logging.getLogger(__name__)


class Library:
    """All avatars of a server.

    Attributes:
        made_dir: where those made here live; it need not exist yet.
        cards: all usable ones by name, shipped ones first, each kind by name.
    """

    def __init__(self, shipped_dir: Path, made_dir: Path) -> None:
        """Reads all cards. Args: shipped_dir: never written to; made_dir: below the server's own data."""
        self.made_dir = made_dir
        shipped = list_avatars(shipped_dir)
        made = list_avatars(made_dir) if made_dir.resolve() != shipped_dir.resolve() else {}
        for name in sorted(shipped.keys() & made.keys()):
            logger.warning("the avatar %s that was made here is hidden by the one that comes with the server", name)
            del made[name]
        self.cards: dict[str, AvatarCard] = {**shipped, **made}
        self._shipped_dir = shipped_dir
        self._made = set(made)

    @property
    def made_count(self) -> int:
        """How many avatars were made here."""
        return len(self._made)

    def is_made(self, name: str) -> bool:
        """Whether a known avatar was made here, so that it may be deleted."""
        return name in self._made

    def is_free(self, name: str) -> bool:
        """Whether a new avatar may have this name: well formed, and nothing of that name is there, broken or not."""
        return (
            NAME_PATTERN.fullmatch(name) is not None
            and name not in self.cards
            and not (self._shipped_dir / name).exists()
            and not (self.made_dir / name).exists()
        )

    def folder(self, name: str) -> Path:
        """The folder of a known avatar.

        Raises:
            NotFound: ``avatar_unknown``.
        """
        if name not in self.cards:
            raise NotFound("avatar_unknown", f"There is no such avatar; known: {', '.join(self.cards)}.")
        return (self.made_dir if name in self._made else self._shipped_dir) / name

    def has_made(self, name: str) -> bool:
        """Whether there is a folder of a made avatar of this name, known or not."""
        return NAME_PATTERN.fullmatch(name) is not None and (self.made_dir / name).is_dir()

    def add(self, name: str) -> AvatarCard:
        """Learns of an avatar whose folder now is in ``made_dir``.

        Raises:
            AvatarInvalid: its card cannot be used.
        """
        card = read_card(self.made_dir / name)
        self.cards[name] = card
        self._made.add(name)
        return card

    def drop(self, name: str) -> None:
        """Forgets an avatar that was made here; its folder is the caller's business."""
        if name in self._made:
            self._made.discard(name)
            del self.cards[name]
