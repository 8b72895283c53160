"""Who answers in conversations: what options make of it, and what happens where something is missing."""

from __future__ import annotations

import pytest

from engine.config import Config
from engine.conversation.realtime.base import SpeakingModel
from engine.errors import BackendFailed, ConfigInvalid, NotFound
from engine.metrics import EngineMetrics
from engine.persona import Persona
from server import host as host_module
from server.character import character_of
from server.host import Host

ADA = character_of(Persona(), "Ada", Config())


class FakeSession:
    def converse(self, dialogue) -> None:
        self.dialogue = dialogue

    def tell(self, kind: str, **data: object) -> None:
        raise AssertionError("nobody is there to be told")


def test_without_the_network_that_hears_the_microphone_is_mirrored_and_typed_text_answered(monkeypatch):
    def missing():
        raise BackendFailed("vad_missing", "Listening needs a network. Install it: pip.")

    monkeypatch.setattr(host_module, "create_vad", missing)
    host = Host(Config(), EngineMetrics())
    session = FakeSession()
    host.attend(session, ADA)
    assert (host.mode, host.hears) == ("mirror", False) and "Install it" in host.note
    assert session.dialogue is not None


def test_without_a_recogniser_the_reason_is_told(monkeypatch):
    def missing(name, **options):
        raise BackendFailed("asr_missing", "It is not installed.")

    monkeypatch.setattr(host_module, "create_recogniser", missing)
    assert Host(Config(), EngineMetrics()).note == "It is not installed."
    monkeypatch.undo()
    off = Host(Config(asr="none"), EngineMetrics())
    assert not off.hears and "switched off" in off.note and off.mode == "mirror"
    assert Host(Config(asr="none", mode="say"), EngineMetrics()).mode == "say"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"llm": "oracle"}, NotFound),
        ({"asr": "parrot"}, NotFound),
        ({"llm": "openai"}, ConfigInvalid),
        ({"llm": "realtime"}, ConfigInvalid),
    ],
)
def test_options_that_cannot_be_meant_are_an_error_at_the_start(options, error):
    with pytest.raises(error):
        Host(Config(**options), EngineMetrics())


def test_an_avatar_whose_language_nobody_understands_answers_typed_text(caplog):
    host, session = Host(Config(), EngineMetrics()), FakeSession()
    german = character_of(Persona(name="Uta", language="de"), "Uta", Config())
    host.attend(session, german, style="teacher")
    assert host.hears and session.dialogue is not None
    assert "Uta does not hear" in caplog.text


def test_a_style_that_there_is_not_is_told():
    with pytest.raises(NotFound, match="teacher"):
        Host(Config(), EngineMetrics()).attend(FakeSession(), ADA, style="pirate")


async def test_a_realtime_service_hears_answers_and_speaks_in_the_voice_of_the_avatar(monkeypatch):
    conversations = []
    converse = host_module.create_realtime

    def noting(*args, **options):
        service = converse(*args, **options)
        made = service.converse
        service.converse = lambda prompt, **how: conversations.append((prompt, how)) or made(prompt, **how)
        return service

    monkeypatch.setattr(host_module, "create_realtime", noting)
    config = Config(llm="realtime", llm_url="wss://127.0.0.1:1/v1", wake_word="maya")
    host, session = Host(config, EngineMetrics()), FakeSession()
    maya = character_of(Persona(name="Maya", voices={"realtime": "marin"}), "Maya", config)
    host.attend(session, maya)
    [(prompt, how)] = conversations
    assert host.hears and "Maya" in prompt
    assert how == {"voice": "marin", "language": "en", "eager": False}
    assert isinstance(session.dialogue._answerer._model, SpeakingModel)
    assert not Host(Config(llm="realtime", llm_url="wss://127.0.0.1:1/v1", asr="none"), EngineMetrics()).hears
    await session.dialogue.aclose()
    await host.aclose()
