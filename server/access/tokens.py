"""Tokens: short-lived permissions that a browser may hold.

Place in the flow: ``POST /tokens`` and the embed page -> ``Tokens.mint`` -> browser -> ``Tokens.check``, ``spend``.

Invariants:
    * a token says itself what it permits, signed (HMAC-SHA256): minting one costs no memory;
    * it works once: what was spent is remembered until the token would have expired anyway;
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
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engine.errors import AccessDenied, Busy

MAX_TOKEN_CHARS = 2000
MAX_SPENT = 100_000
"""Spent tokens that are remembered, about 20 MB; beyond it none can be spent for a while."""

Kind = Literal["session", "page"]
PREFIXES: dict[Kind, str] = {"session": "vt_", "page": "vp_"}


class Claims(BaseModel):
    """What a token permits.

    Attributes:
        by: id of the key or embed that minted it; empty where none was needed.
        id: of the token itself.
        expires_s: Unix time.
        avatar: the only one it is for, or None.
        origin: of the pages it is for, or None.
        max_session_s: longest session, or None for the server's own limit.
        priority: 0 to 9 in the line and where time is short, or None for the usual one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    id: str
    expires_s: int
    avatar: str | None = None
    origin: str | None = None
    max_session_s: float | None = None
    priority: int | None = None


class Tokens:
    """Mints tokens, checks them, and remembers which are spent."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        """Args: now_s: Unix time."""
        self._now_s = now_s
        self._secret = secrets.token_bytes(32)
        self._spent: set[str] = set()
        self._forgettable: list[tuple[int, str]] = []

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
        if claims.expires_s <= self._now_s():
            raise AccessDenied("token_expired", "This token has expired; ask for a new one.")
        if claims.id in self._spent:
            raise AccessDenied("token_used", "This token was used before, and works once; ask for a new one.")
        return claims

    def spend(self, claims: Claims) -> None:
        """Uses a token up. Of two who do it, one succeeds.

        Raises:
            AccessDenied: ``token_used``.
            Busy: ``too_many_tokens``: more were used than can be remembered.
        """
        if claims.id in self._spent:
            raise AccessDenied("token_used", "This token was used before, and works once; ask for a new one.")
        now_s = self._now_s()
        while self._forgettable and self._forgettable[0][0] < now_s:
            self._spent.discard(heapq.heappop(self._forgettable)[1])
        if len(self._forgettable) >= MAX_SPENT:
            raise Busy("too_many_tokens", "Too many sessions were begun; try again later.", retry_after_s=60)
        self._spent.add(claims.id)
        heapq.heappush(self._forgettable, (claims.expires_s, claims.id))

    def give_back(self, claims: Claims) -> None:
        """Undoes ``spend``: what it was spent on did not come about."""
        self._spent.discard(claims.id)

    def share(self, key: bytes) -> None:
        """Signs with this key from now on, as all others do who are told it. Args: key: 32 random bytes."""
        self._secret = key

    def _signature(self, said: str) -> str:
        return _base64(hmac.digest(self._secret, said.encode("utf-8", "replace"), "sha256"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
