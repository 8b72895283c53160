"""Tokens and everything that is not one."""

from __future__ import annotations

import base64
import json

import pytest

from engine.errors import AccessDenied
from server.access import tokens as tokens_module
from server.access.tokens import Tokens


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    return Tokens(clock)


def refused(tokens: Tokens, token: str, kind="session") -> str:
    with pytest.raises(AccessDenied) as error:
        tokens.check(kind, token)
    return error.value.code


def test_a_token_says_what_it_permits(tokens: Tokens, clock: Clock):
    token, _ = tokens.mint("session", "key:1", 300, avatar="maya", origin="https://a.example", max_session_s=60.0)
    claims = tokens.check("session", token)
    assert (claims.by, claims.avatar, claims.origin, claims.max_session_s) == ("key:1", "maya", "https://a.example", 60)
    assert claims.expires_s == clock.now + 300


def test_a_token_works_once(tokens: Tokens):
    token, claims = tokens.mint("session", "", 300)
    tokens.spend(claims)
    assert refused(tokens, token) == "token_used"
    with pytest.raises(AccessDenied):
        tokens.spend(claims)
    tokens.give_back(claims)
    tokens.spend(tokens.check("session", token))


def test_a_token_expires_to_the_second(tokens: Tokens, clock: Clock):
    token, _ = tokens.mint("session", "", 60)
    clock.now += 59
    tokens.check("session", token)
    clock.now += 1
    assert refused(tokens, token) == "token_expired"


def test_one_kind_is_not_the_other(tokens: Tokens):
    page, _ = tokens.mint("page", "", 300)
    session, _ = tokens.mint("session", "", 300)
    assert refused(tokens, page, "session") == refused(tokens, session, "page") == "token_invalid"
    assert refused(tokens, "vt_" + page.removeprefix("vp_")) == "token_invalid"


def test_any_change_of_any_character_is_noticed(tokens: Tokens):
    token, _ = tokens.mint("session", "key:1", 300, avatar="maya")
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        assert refused(tokens, token[:place] + other + token[place + 1 :]) == "token_invalid"


def test_claims_of_ones_own_are_refused(tokens: Tokens):
    token, claims = tokens.mint("session", "key:1", 300, avatar="maya")
    said, _, signature = token.rpartition(".")
    forged = claims.model_dump() | {"avatar": None, "expires_s": 9_999_999_999}
    payload = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    for attempt in (f"vt_{payload}.{signature}", f"vt_{payload}.", f"vt_{payload}", f"{said}.", said, f".{signature}"):
        assert refused(tokens, attempt) == "token_invalid"


@pytest.mark.parametrize("rubbish", ["", "vt_", "vt_.", "vt_..", "vt_\udc80.x", "vt_é.é", "vt_" + "A" * 100_000 + ".A"])
def test_rubbish_is_refused(tokens: Tokens, rubbish: str):
    assert refused(tokens, rubbish) == "token_invalid"


def test_another_process_does_not_take_it(tokens: Tokens, clock: Clock):
    token, _ = tokens.mint("session", "", 300)
    assert refused(Tokens(clock), token) == "token_invalid"


def test_a_signature_is_compared_in_constant_time(tokens: Tokens, monkeypatch):
    token, _ = tokens.mint("session", "", 300)
    lengths = []
    genuine = tokens_module.hmac.compare_digest
    monkeypatch.setattr(
        tokens_module.hmac, "compare_digest", lambda a, b: lengths.append((len(a), len(b))) or genuine(a, b)
    )
    tokens.check("session", token)
    assert refused(tokens, token[:-1] + ("A" if token[-1] != "A" else "B")) == "token_invalid"
    assert lengths == [(43, 43), (43, 43)]


def test_spent_tokens_are_forgotten_when_they_have_expired_and_never_before(tokens: Tokens, clock: Clock, monkeypatch):
    monkeypatch.setattr(tokens_module, "MAX_SPENT", 6)
    for _ in range(3):
        tokens.spend(tokens.mint("session", "", 60)[1])
        tokens.spend(tokens.mint("session", "key:1", 60)[1])
    clock.now += 61
    tokens.spend(tokens.mint("session", "", 60)[1])
    assert remembered(tokens) == [1, 0]


def remembered(tokens: Tokens) -> list[int]:
    """How many spent tokens are, of each issuer."""
    assert all(len(spent.ids) == len(spent.forgettable) for spent in tokens._spent.values())
    return [len(spent.ids) for spent in tokens._spent.values()]


def test_who_spends_without_end_keeps_nobody_else_from_it(tokens: Tokens, clock: Clock, monkeypatch):
    monkeypatch.setattr(tokens_module, "MAX_SPENT", 100)
    mine, honest = tokens.mint("session", "embed:1", 300)
    tokens.spend(honest)
    spent = []
    for _ in range(300):
        clock.now += 1
        token, claims = tokens.mint("page", "embed:1", 43_200)
        tokens.spend(claims)
        spent.append(token)
    assert sum(remembered(tokens)) == 100
    assert {refused(tokens, token, "page") for token in spent} == {"token_used", "token_expired"}, "none works again"
    clock.now = honest.expires_s - 1
    assert refused(tokens, mine) == "token_used"
    for kind, by in (("session", "embed:1"), ("page", "embed:2"), ("session", ""), ("page", "embed:1")):
        clock.now += 1
        token, claims = tokens.mint(kind, by, 300 if kind == "session" else 43_200)
        tokens.spend(tokens.check(kind, token))
        assert refused(tokens, token, kind) == "token_used"
    assert sum(remembered(tokens)) <= 100


def test_a_token_that_may_have_been_spent_and_forgotten_is_not_spent_again(tokens: Tokens, clock: Clock, monkeypatch):
    monkeypatch.setattr(tokens_module, "MAX_SPENT", 2)
    _, first = tokens.mint("page", "embed:1", 600)
    tokens.spend(first)
    for _ in range(3):
        clock.now += 1
        tokens.spend(tokens.mint("page", "embed:1", 600)[1])
    with pytest.raises(AccessDenied):
        tokens.spend(first)
