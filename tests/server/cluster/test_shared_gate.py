"""Gateways that share a line: tokens of one are good at the other, and who comes in is decided elsewhere."""

from __future__ import annotations

import pytest

from engine.config import Config
from engine.errors import AccessDenied
from server.access.gate import Access
from server.access.grant import Grant, Standing
from server.access.line import Waiting
from server.access.turn import IceServers
from server.cluster.entrance import Placement
from server.cluster.ray_fleet import _refusal


class _NoPlaces:
    free = 0

    async def knows(self, session_id: str) -> bool:
        return False

    def turned_away(self) -> None:
        raise AssertionError("a gateway that shares its line turns nobody away by itself")


def gateway(tmp_path, key: bytes | None = None) -> Access:
    config = Config(data_dir=tmp_path)
    access = Access(config, IceServers(config), _NoPlaces())
    if key is not None:
        access.shared = True
        access.tokens.share(key)
    return access


def test_a_token_is_good_at_every_gateway_that_knows_the_key(tmp_path) -> None:
    one, other, stranger = gateway(tmp_path, b"k" * 32), gateway(tmp_path, b"k" * 32), gateway(tmp_path)
    token, claims = one.tokens.mint("session", "", 60)
    assert other.session_claims(token) == claims
    with pytest.raises(AccessDenied):
        stranger.session_claims(token)
    one.tokens.share(b"n" * 32)
    with pytest.raises(AccessDenied):
        one.session_claims(token)


def test_the_gate_leaves_the_line_to_whoever_gives_the_place(tmp_path) -> None:
    access = gateway(tmp_path, b"k" * 32)
    _, claims = access.tokens.mint("session", "", 60)
    grant = Grant(token=claims, ticket="from-another-gateway")
    with access.admission(grant):
        pass
    with access.admission(grant):
        pass
    assert grant.standing == Standing("from-another-gateway", claims.id, claims.expires_s)
    assert access.returning("from-another-gateway").ticket == "from-another-gateway"
    with pytest.raises(AssertionError), gateway(tmp_path).admission(Grant()):
        pass


def test_what_the_directory_says_becomes_the_answer() -> None:
    waiting = _refusal(Placement(reason="server_full", ticket="t", position=3))
    assert isinstance(waiting, Waiting) and waiting.queue()["position"] == 3
    assert _refusal(Placement(reason="token_used")).code == "token_used"
    assert _refusal(Placement(reason="line_full")).code == "server_full"
