"""Tokens: short-lived permissions that a browser may hold.

Place in the flow: ``POST /tokens`` and the embed page -> ``Tokens.mint`` -> browser -> ``Tokens.check``, ``spend``.

Invariants:
    * a token says itself what it permits, signed (HMAC-SHA256): minting one costs no memory;
    * it works once: what was spent is remembered until the token would have expired anyway, or until nothing is good
      any more that expires no later;
    * what is remembered is bounded, and whoever spends the most has its tokens expire early: that of others works;
    * it works only on the server process that minted it, or on the gateways of one cluster, which also remember
      together what is spent. The secret is made at its start and never written down, so there is none to steal, and
      what an earlier process has forgotten to be spent cannot be used again.
"""

from __future__ import annotations

import base64
import heapq
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engine.errors import AccessDenied

MAX_TOKEN_CHARS = 2000
MAX_SPENT = 100_000
"""Spent tokens that are remembered, about 20 MB."""

Kind = Literal["session", "page"]
PREFIXES: dict[Kind, str] = {"session": "vt_", "page": "vp_"}


class Claims(BaseModel):
    """What a token permits.

    Attributes:
        kind: what it is for.
        by: id of the key or embed that minted it; empty where none was needed.
        id: of the token itself.
        expires_s: Unix time.
        avatar: the only one it is for, or None.
        origin: of the pages it is for, or None.
        max_session_s: longest session, or None for the server's own limit.
        priority: 0 to 9 in the line and where time is short, or None for the usual one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    by: str
    id: str
    expires_s: int
    avatar: str | None = None
    origin: str | None = None
    max_session_s: float | None = None
    priority: int | None = None


@dataclass(slots=True)
class _Spent:
    """What is spent of one kind and issuer.

    Attributes:
        ids: of the tokens.
        forgettable: when each of them expires; what was given back is still there.
        expired_s: what expires no later is no good any more, for it may have been spent and forgotten.
    """

    ids: set[str] = field(default_factory=set)
    forgettable: list[tuple[int, str]] = field(default_factory=list)
    expired_s: int = 0

    def forget_first(self) -> None:
        """Forgets what expires first."""
        expires_s, forgotten = heapq.heappop(self.forgettable)
        self.expired_s = max(self.expired_s, expires_s)
        self.ids.discard(forgotten)


class Tokens:
    """Mints tokens, checks them, and remembers which are spent."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        """Args: now_s: Unix time."""
        self._now_s = now_s
        self._secret = secrets.token_bytes(32)
        self._spent: dict[tuple[Kind, str], _Spent] = {}

    def mint(
        self,
        kind: Kind,
        by: str,
        lifetime_s: int,
        *,
        avatar: str | None = None,
        origin: str | None = None,
        max_session_s: float | None = None,
        priority: int | None = None,
    ) -> tuple[str, Claims]:
        """A new token, and what it says; the arguments are those of ``Claims``."""
        claims = Claims(
            kind=kind,
            by=by,
            id=secrets.token_urlsafe(16),
            expires_s=int(self._now_s()) + lifetime_s,
            avatar=avatar,
            origin=origin,
            max_session_s=max_session_s,
            priority=priority,
        )
        said = PREFIXES[kind] + _base64(claims.model_dump_json(exclude_none=True).encode())
        return f"{said}.{self._signature(said)}", claims

    def check(self, kind: Kind, token: str) -> Claims:
        """What a token permits, if it is one of ours and still good.

        Raises:
            AccessDenied: ``token_invalid``, ``token_expired``, ``token_used``.
        """
        said, _, signature = token.rpartition(".")
        genuine = (
            len(token) <= MAX_TOKEN_CHARS
            and said.startswith(PREFIXES[kind])
            and hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(said).encode())
        )
        if not genuine:
            raise AccessDenied("token_invalid", "This token is not one of this server's; ask for a new one.")
        # Nothing of it was looked at before this line.
        payload = said.removeprefix(PREFIXES[kind])
        claims = Claims.model_validate_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        spent = self._spent.get((kind, claims.by), _Spent())
        if claims.expires_s <= max(self._now_s(), spent.expired_s):
            raise AccessDenied("token_expired", "This token has expired; ask for a new one.")
        if claims.id in spent.ids:
            raise AccessDenied("token_used", "This token was used before, and works once; ask for a new one.")
        return claims

    def spend(self, claims: Claims) -> None:
        """Uses a token up. Of two who do it, one succeeds.

        Raises:
            AccessDenied: ``token_used``.
        """
        mine = self._spent.setdefault((claims.kind, claims.by), _Spent())
        if claims.id in mine.ids or claims.expires_s <= mine.expired_s:
            raise AccessDenied("token_used", "This token was used before, and works once; ask for a new one.")
        now_s = self._now_s()
        for spent in self._spent.values():
            while spent.forgettable and spent.forgettable[0][0] < now_s:
                spent.forget_first()
        if sum(len(spent.forgettable) for spent in self._spent.values()) >= MAX_SPENT:
            max(self._spent.values(), key=lambda it: len(it.forgettable)).forget_first()
        mine.ids.add(claims.id)
        heapq.heappush(mine.forgettable, (claims.expires_s, claims.id))

    def give_back(self, claims: Claims) -> None:
        """Undoes ``spend``: what it was spent on did not come about."""
        if (spent := self._spent.get((claims.kind, claims.by))) is not None:
            spent.ids.discard(claims.id)

    def share(self, key: bytes) -> None:
        """Signs with this key from now on, as all others do who are told it. Args: key: 32 random bytes."""
        self._secret = key

    def _signature(self, said: str) -> str:
        return _base64(hmac.digest(self._secret, said.encode("utf-8", "replace"), "sha256"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
