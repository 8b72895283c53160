"""Credentials for TURN, as coturn checks them."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from engine.config import Config
from engine.errors import ConfigInvalid
from server.access.turn import SPARE_S, IceServers

URLS = ("turn:turn.example:3478?transport=udp", "turns:turn.example:5349")


def test_credentials_are_those_of_the_rest_interface():
    ice = IceServers(Config(turn_urls=URLS, turn_secret="north", max_session_s=100), lambda: 1_000_000.0)
    servers = ice.fresh()
    assert [server["urls"] for server in servers] == list(URLS)
    username, credential = servers[0]["username"], servers[0]["credential"]
    assert int(username.split(":")[0]) == 1_000_000 + 100 + SPARE_S
    assert base64.b64decode(credential) == hmac.new(b"north", username.encode(), hashlib.sha1).digest()


def test_every_session_has_its_own_name():
    ice = IceServers(Config(turn_urls=URLS[:1], turn_secret="north"))
    assert len({ice.fresh()[0]["username"] for _ in range(20)}) == 20


def test_whoever_has_shown_nothing_gets_no_credentials():
    config = Config(
        turn_urls=URLS, turn_secret="north",
        ice_servers=["stun:stun.example", {"urls": "turn:own.example", "username": "me", "credential": "hush"}],
    )  # fmt: skip
    assert IceServers(config).public() == [{"urls": "stun:stun.example"}]
    assert len(IceServers(config).fresh()) == 4


def test_servers_without_their_secret_are_an_error_of_the_options():
    with pytest.raises(ConfigInvalid, match="turn_secret"):
        IceServers(Config(turn_urls=URLS))


def test_the_secret_is_not_shown_with_the_options():
    assert "hush" not in repr(Config(turn_urls=URLS, turn_secret="hush"))
