"""Who answers in conversations: what options make of it, and what happens where something is missing."""

from __future__ import annotations

import pytest

from engine.config import Config
from engine.errors import BackendFailed, ConfigInvalid, NotFound
from engine.metrics import EngineMetrics
from server import host as host_module
from server.host import Host


class FakeSession:
    def converse(self, dialogue) -> None:
        self.dialogue = dialogue


def test_without_the_network_that_hears_the_microphone_is_mirrored_and_typed_text_answered(monkeypatch):
    def missing():
        raise BackendFailed("vad_missing", "Listening needs a network. Install it: pip.")

    monkeypatch.setattr(host_module, "create_vad", missing)
    host = Host(Config(), EngineMetrics())
    session = FakeSession()
    host.attend(session)
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
    [({"llm": "oracle"}, NotFound), ({"asr": "parrot"}, NotFound), ({"llm": "openai"}, ConfigInvalid)],
)
def test_options_that_cannot_be_meant_are_an_error_at_the_start(options, error):
    with pytest.raises(error):
        Host(Config(**options), EngineMetrics())
