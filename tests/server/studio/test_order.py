"""What the form may say: names, titles, and a consent without which nothing is made of a real person."""

from __future__ import annotations

import pytest

from engine.errors import InvalidInput
from server.studio.order import read_order

ADA = {"title": "Ada Example", "consent_who": "Ada Example", "consent_when": "2026-01-02", "consent_scope": "our lobby"}


def order(is_free=lambda name: True, **changes: str):
    return read_order({name: value for name, value in {**ADA, **changes}.items() if value is not None}, is_free)


def code_of(**changes: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        order(**changes)
    return caught.value.code


def test_a_consent_says_who_when_and_to_what():
    assert order().consent == "Ada Example, 2026-01-02: our lobby"
    assert not order().synthetic


def test_nobody_real_needs_no_consent():
    made = read_order({"title": "Zoe", "synthetic": "yes"}, lambda name: True)
    assert (made.synthetic, made.consent) == (True, "")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"consent_who": None, "consent_when": None, "consent_scope": None}, "consent_missing"),
        ({"consent_scope": ""}, "consent_incomplete"),
        ({"consent_who": "  "}, "consent_incomplete"),
        ({"consent_when": "yesterday"}, "consent_invalid"),
        ({"consent_when": "9999-01-01"}, "consent_invalid"),
        ({"synthetic": "yes"}, "consent_invalid"),
        ({"synthetic": "perhaps"}, "consent_invalid"),
        ({"title": ""}, "title_missing"),
        ({"title": "x" * 61}, "text_invalid"),
        ({"title": "Ada\u202egpj.exe"}, "text_invalid"),
        ({"consent_who": "Ada\x00"}, "text_invalid"),
        ({"sentence": "\u200d"}, "text_invalid"),
    ],
)
def test_what_is_missing_or_cannot_be_is_refused(changes, code):
    assert code_of(**changes) == code


@pytest.mark.parametrize("name", ["../etc", "..", "a/b", "a\\b", "Ada", ".hidden", "a" * 65, "ä", "%2e%2e", "-a"])
def test_a_name_that_could_be_more_than_a_name_is_refused(name):
    assert code_of(name=name) in ("avatar_name_invalid", "text_invalid")


def test_a_taken_name_is_refused_and_a_taken_title_gets_a_number():
    with pytest.raises(InvalidInput) as caught:
        order(lambda name: False, name="maya")
    assert caught.value.code == "avatar_exists"
    assert order(lambda name: name not in ("ada-example", "ada-example-2")).name == "ada-example-3"


@pytest.mark.parametrize(
    ("title", "name"), [("Zoë Müller", "zoe-muller"), ("李雷", "avatar"), ("../../etc/passwd", "etc-passwd")]
)
def test_names_made_of_titles_are_plain(title, name):
    assert order(title=title).name == name
