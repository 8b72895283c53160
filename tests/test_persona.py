"""Personas as avatars carry them: what a table may say, and that it survives being written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engine.avatar.bundle import list_avatars, read_card, write_avatar
from engine.avatar.card import card_text
from engine.conversation.styles import NATURAL, STYLES
from engine.conversation.tts.espeak import EspeakVoice
from engine.errors import AvatarInvalid
from engine.persona import Persona, Style, persona_lines, read_persona
from tests.fakes import tiny_avatar

AVATARS = Path(__file__).resolve().parents[1] / "avatars"

FULL = Persona(
    name='"Ada" \\ Zoë',
    language="de-AT",
    system_prompt="You are Ada.\nBe kind.",
    greeting="Grüß Gott!",
    temperature=0.5,
    style="pirate",
    rate_wpm=150,
    voices={"espeak": "de+f2"},
    styles={"pirate": Style("Pirate", "Arr.", 1.5), "plain": Style("Plain")},
)


def test_a_persona_reads_as_it_was_written():
    assert read_persona(tomllib.loads("\n".join(persona_lines(FULL)))["persona"]) == FULL
    assert read_persona({}) == Persona() and not list(persona_lines(Persona()))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"greting": "Hi"}, "'greting'"),
        ({"name": 3}, "'name'"),
        ({"greeting": "x" * 1001}, "1000"),
        ({"temperature": 2.5}, "0 to 2"),
        ({"temperature": True}, "0 to 2"),
        ({"rate": 20}, "80 to 450"),
        ({"rate": 160.5}, "80 to 450"),
        ({"language": "English"}, "en or de-AT"),
        ({"voices": "en-us"}, "[persona.voices] must be a table"),
        ({"voices": {"espeak": 1}}, "'espeak'"),
        ({"voices": {"es peak": "x"}}, "'es peak'"),
        ({"styles": {"pirate": {"prompt": "Arr."}}}, "'title'"),
        ({"styles": {"pirate": {"title": "P", "temp": 1}}}, "'temp'"),
        ({"styles": {f"s{index}": {"title": "S"} for index in range(17)}}, "16 are allowed"),
        ([], "must be a table"),
    ],
)
def test_a_slip_in_the_table_is_refused_and_named(table, reason):
    with pytest.raises(ValueError) as caught:
        read_persona(table)
    assert reason in str(caught.value)


def test_an_avatar_with_a_wrong_persona_is_refused_with_the_reason(tmp_path):
    folder = tmp_path / "tiny"
    write_avatar(folder, tiny_avatar(name="tiny"))
    card = folder / "avatar.toml"
    card.write_text(card.read_text() + '\n[persona]\ngreting = "Hi"\n')
    with pytest.raises(AvatarInvalid, match="greting") as caught:
        read_card(folder)
    assert caught.value.code == "avatar_persona"


def test_an_avatar_that_is_made_anew_stays_who_it_was(tmp_path):
    folder = tmp_path / "tiny"
    write_avatar(folder, tiny_avatar(name="tiny"))
    card = folder / "avatar.toml"
    card.write_text(card.read_text() + "\n" + "\n".join(persona_lines(FULL)) + "\n")
    write_avatar(folder, tiny_avatar(name="tiny"))
    assert read_card(folder).persona == FULL


@pytest.mark.parametrize("name", ["amara", "kenji", "leo", "maya"])
async def test_the_shipped_avatars_are_somebody_with_a_voice_that_there_is(name):
    card = list_avatars(AVATARS)[name]
    persona = card.persona
    assert persona.name == card.title and card.title in persona.greeting and card.title in persona.system_prompt
    assert {"espeak", "openai", "kokoro", "edge"} <= persona.voices.keys()
    EspeakVoice(persona.voices["espeak"], persona.rate_wpm)
    assert card_text(card) == (AVATARS / name / "avatar.toml").read_text("utf-8")


def test_no_two_shipped_avatars_share_a_voice():
    cards = list_avatars(AVATARS).values()
    for provider in ("espeak", "openai", "kokoro", "edge"):
        names = [card.persona.voices[provider] for card in cards]
        assert len(set(names)) == len(names)


def test_the_natural_style_adds_nothing_and_the_others_do():
    assert STYLES[NATURAL] == Style("Natural")
    assert all(style.prompt and style.title for name, style in STYLES.items() if name != NATURAL)
