"""The quality levels of a session: what each one restores, what ``auto`` means, and how a level is told.

Place in the flow: request, option -> ``wanted_level`` -> Governor, which may go below -> renderer, ``quality`` event.

| level | the avatar's own pictures | the mouth while speaking |
|---|---|---|
| 0 | as they are | as the lip-sync model draws it |
| 1 | restored once, when they are prepared | as the lip-sync model draws it |
| 2 | restored | restored every second picture, its detail reused between |
| 3 | restored | restored in every picture |
| 4 | restored | the whole lower face in every picture |
| 5 | restored | the whole face, at full size, in every picture |

Invariants:
    * without a restorer every session is at level 0, whatever it asked for;
    * a level costs at least as much as the one below it; levels 0 and 1 cost the same while speaking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AUTO: Literal["auto"] = "auto"
OFF = 0
"""Nothing is restored."""
RESTORED_AVATAR = 1
"""The avatar's own pictures are restored; speaking costs nothing more."""
LIVE = 2
"""The lowest level that restores while speaking."""
USUAL = 3
"""What ``auto`` is where restoring is fast enough."""
MOST = 5

Quality = Literal["auto", 0, 1, 2, 3, 4, 5]
"""What a session asks for."""

Reason = Literal["asked", "auto", "preparing", "late", "load", "priority", "recovered", "failed", "no_restorer"]
"""Why a session is at its level:

* ``asked``, ``auto``: it is what was asked for;
* ``preparing``: the avatar's restored pictures are not there yet;
* ``late``: with more, its pictures would have been late; ``load``: with more, those of all sessions would have been;
* ``priority``: what it had went to sessions of a higher priority;
* ``recovered``: it was lower and is on its way up;
* ``failed``: the restorer failed on its pictures, or on the avatar;
* ``no_restorer``: there is none.
"""


@dataclass(frozen=True, slots=True)
class QualityState:
    """What a session has.

    Attributes:
        asked: what it asked for.
        level: what it gets, 0 to 5.
        reason: why.
    """

    asked: Quality
    level: int
    reason: Reason

    def to_dict(self) -> dict[str, str | int]:
        """The state as the wire shows it: ``{"asked", "level", "reason"}``."""
        return {"asked": self.asked, "level": self.level, "reason": self.reason}


def wanted_level(quality: Quality, fast: bool) -> int:
    """The level that a session gets when nothing is short.

    Args:
        quality: what it asks for.
        fast: whether restoring a picture takes a small part of a frame, as it does on an accelerator. On a CPU one
            face takes longer than a frame lasts, so ``auto`` leaves the live path alone there.
    """
    if quality == AUTO:
        return USUAL if fast else RESTORED_AVATAR
    return quality
