"""What somebody may do who wants a session: decided by the gate, kept by the line, used by the door.

Place in the flow: ``Access.grant`` -> Grant -> ``Access.admission``, ``Line``.

Invariants: nothing that a caller says widens a grant: avatar and priority are within what the key or token permits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.errors import AccessDenied
from server.access.line import USUAL_PRIORITY
from server.access.tokens import Claims


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether somebody comes in now, for whoever keeps one line for several gateways.

    Attributes:
        ticket: as in ``Grant``.
        token_id, token_expires_s: of the token to be spent; empty for none.
    """

    ticket: str | None = None
    token_id: str = ""
    token_expires_s: float = 0.0


NOWHERE = Standing()


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may do who wants a session.

    Attributes:
        by: id of the key or embed that stands behind it; empty where none is needed.
        avatar: the only one, or None.
        max_session_s: longest session, or None for the server's own limit.
        token: to be spent on it, or None when nothing is spent.
        ticket: place in the line; empty for somebody who would stand in it, None for somebody who would not.
        priority: 0 to 9, in the line and where time is short.
        highest: that may be asked for.
    """

    by: str = ""
    avatar: str | None = None
    max_session_s: float | None = None
    token: Claims | None = None
    ticket: str | None = None
    priority: int = USUAL_PRIORITY
    highest: int = USUAL_PRIORITY

    @property
    def standing(self) -> Standing:
        """The part of it that the line needs."""
        if self.token is None:
            return Standing(self.ticket)
        return Standing(self.ticket, self.token.id, self.token.expires_s)

    def with_priority(self, asked: int | None) -> Grant:
        """The same with the priority that is asked for; a ticket keeps the one that it has.

        Raises:
            AccessDenied: ``priority_denied``.
        """
        if asked is None or self.ticket:
            return self
        if asked > self.highest:
            raise AccessDenied(
                "priority_denied", f"A priority above {self.highest} needs an API key, or a token made with that one."
            )
        return replace(self, priority=asked)

    def avatar_for(self, asked: str | None) -> str | None:
        """The avatar to show.

        Raises:
            AccessDenied: ``token_avatar``.
        """
        if self.avatar and asked and asked != self.avatar:
            raise AccessDenied("token_avatar", f"This token is for the avatar {self.avatar} alone.")
        return self.avatar or asked
