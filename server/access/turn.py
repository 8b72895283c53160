"""The STUN and TURN servers of a session, with credentials of its own.

Place in the flow: Config -> ``IceServers.fresh`` -> browser (tokens, answers, config.json) and our own side of the
connection.

Credentials are those of coturn's ``use-auth-secret`` (draft-uberti-behave-turn-rest-00): the username is the Unix time
at which they end and a name, the password is the Base64 of its HMAC-SHA1 under a secret that only coturn and this
server know. Whoever has seen one can relay until it ends, and never after.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Any

from engine.config import Config
from engine.errors import ConfigInvalid

SPARE_S = 900
"""Credentials are checked again as long as a relay is used, so they outlive the longest session, and the time in which
a token may be used before it."""


class IceServers:
    """What browsers and peers connect through."""

    def __init__(self, config: Config, now_s: Callable[[], float] = time.time) -> None:
        """
        Args:
            config: ``ice_servers``, ``turn_urls``, ``turn_secret``, ``max_session_s``.
            now_s: Unix time.

        Raises:
            ConfigInvalid: ``turn_secret_missing``.
        """
        if config.turn_urls and not config.turn_secret:
            raise ConfigInvalid("turn_secret_missing", "turn_urls needs turn_secret: coturn's static-auth-secret.")
        self._fixed = [server.to_dict() for server in config.ice_servers]
        self._urls = list(config.turn_urls)
        self._secret = config.turn_secret.encode()
        self._lifetime_s = int(config.max_session_s) + SPARE_S
        self._now_s = now_s

    def fresh(self) -> list[dict[str, Any]]:
        """Servers in the browser's own form, with credentials for one session."""
        if not self._urls:
            return list(self._fixed)
        # A name that means nothing: what a relay logs must not lead to a session.
        username = f"{int(self._now_s()) + self._lifetime_s}:{secrets.token_hex(6)}"
        credential = base64.b64encode(hmac.digest(self._secret, username.encode(), "sha1")).decode()
        ours = [{"urls": url, "username": username, "credential": credential} for url in self._urls]
        return [*self._fixed, *ours]

    def public(self) -> list[dict[str, Any]]:
        """Those that need no credentials, for callers who have shown nothing yet."""
        return [server for server in self._fixed if "credential" not in server]
