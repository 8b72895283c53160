"""The data channel's commands and events, without a connection."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.config import Config
from engine.conversation.discover import Found
from engine.conversation.history import History
from engine.persona import Persona
from server.channel import LABEL, ControlChannel
from server.character import character_of
from server.language_models import LanguageModels
from server.manner import Manner
from tests.server.fakes import FakeSession
from tests.server.serving import eventually


class FakeChannel:
    """The part of an RTCDataChannel that is used, with everything that was sent."""

    label, readyState, bufferedAmount = LABEL, "open", 0

    def __init__(self) -> None:
        self.sent: list[dict] = []

    def on(self, event: str, listener) -> None:
        self.say = lambda **command: listener(json.dumps(command))

    def send(self, data: str) -> None:
        self.sent.append(json.loads(data))

    def of(self, kind: str) -> list[dict]:
        return [message for message in self.sent if message["type"] == kind]


@pytest.fixture
async def channel():
    session, channel = FakeSession(), FakeChannel()
    models = LanguageModels(Config())
    models.offer([Found("Ollama", "http://127.0.0.1:11434/v1", ("llama3.2",))])
    manner = Manner(character_of(Persona(), "Ada", Config()), History(), models)
    control = ControlChannel(session, manner, "id")
    running = asyncio.create_task(control.run())
    await asyncio.sleep(0)
    control.attach(channel)
    channel.session, channel.manner, channel.control = session, manner, control
    yield channel
    await session.aclose()
    await running
    await models.aclose()


async def test_the_first_message_tells_the_quality(channel):
    assert channel.sent == [
        {
            "type": "state", "state": "connected", "session_id": "id",
            "quality": {"asked": "auto", "level": 0, "reason": "asked"},
        }
    ]  # fmt: skip


async def test_quality_is_changed_by_a_command_and_told_by_an_event(channel):
    channel.say(type="quality", quality=4)
    await eventually(lambda: len(channel.sent) == 3)
    assert channel.session.asked == 4
    assert channel.of("accepted") == [{"type": "accepted", "command": "quality"}]
    assert channel.of("quality") == [{"type": "quality", "asked": 4, "level": 4, "reason": "asked"}]


@pytest.mark.parametrize("command", [{"quality": 6}, {"quality": "3"}, {}, {"quality": 3, "why": "not"}])
async def test_a_quality_that_is_none_is_refused_and_changes_nothing(channel, command):
    channel.say(type="quality", **command)
    await eventually(lambda: channel.of("error"))
    assert channel.of("error")[0]["code"] == "invalid_request" and channel.session.asked == "auto"


async def test_questions_modes_and_the_talk_key_reach_the_session(channel):
    channel.say(type="ask", text="Who are you?")
    channel.say(type="mode", mode="mirror")
    channel.say(type="push_to_talk", down=True)
    channel.say(type="push_to_talk", down=None)
    await eventually(lambda: len(channel.session.keys) == 2)
    assert channel.session.asked_texts == ["Who are you?"] and channel.session.mode == "mirror"
    assert channel.session.keys == [True, None]
    assert channel.of("accepted") == [
        {"type": "accepted", "command": "ask", "turn_id": 1},
        {"type": "accepted", "command": "mode", "mode": "mirror"},
    ]


@pytest.mark.parametrize(
    "command", [{"type": "mode", "mode": "sing"}, {"type": "push_to_talk"}, {"type": "ask"}, {"type": "ask", "text": 1}]
)
async def test_a_wrong_command_of_a_conversation_is_refused(channel, command):
    channel.say(**command)
    await eventually(lambda: channel.of("error"))
    assert channel.of("error")[0]["code"] == "invalid_request" and not channel.session.asked_texts


async def test_style_and_language_model_change_how_the_session_is_answered(channel):
    channel.say(type="style", name="teacher")
    channel.say(type="language_model", id="ollama/llama3.2")
    await eventually(lambda: len(channel.of("accepted")) == 2)
    assert (channel.manner.style, channel.manner.language_model) == ("teacher", "ollama/llama3.2")
    assert channel.of("accepted") == [
        {"type": "accepted", "command": "style", "name": "teacher"},
        {"type": "accepted", "command": "language_model", "id": "ollama/llama3.2"},
    ]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"type": "style", "name": "pirate"}, "style_unknown"),
        ({"type": "style"}, "invalid_request"),
        ({"type": "language_model", "id": "http://127.0.0.1:11434"}, "language_model_unknown"),
        ({"type": "voice", "pitch": 13}, "invalid_request"),
        ({"type": "voice", "pitch": "3"}, "invalid_request"),
        ({"type": "voice", "conversion": "nobody"}, "voice_conversion_unknown"),
        ({"type": "heard", "turn_id": 1}, "invalid_request"),
        ({"type": "heard", "turn_id": 1, "server_ms": float("nan")}, "invalid_request"),
    ],
)
async def test_a_wrong_choice_is_refused_and_changes_nothing(channel, command, code):
    channel.say(**command)
    await eventually(lambda: channel.of("error"))
    assert channel.of("error")[0]["code"] == code
    assert (channel.manner.style, channel.manner.language_model) == ("natural", "host")
    assert not channel.session.voices and not channel.session.heard_turns


async def test_the_voice_is_changed_and_what_the_page_heard_reaches_the_session(channel):
    channel.say(type="voice", pitch=-2, formant=1.5, conversion="singer")
    channel.say(type="voice")
    channel.say(type="heard", turn_id=3, server_ms=1500)
    await eventually(lambda: len(channel.of("accepted")) == 3)
    assert channel.session.voices == [(-2, 1.5, "singer"), (0, 0, "")]
    assert channel.session.heard_turns == [(3, 1.5)]
    assert [answer["command"] for answer in channel.of("accepted")] == ["voice", "voice", "heard"]


async def test_a_background_is_passed_on_and_confirmed(channel):
    chosen = []
    channel.control.on_background = chosen.append
    channel.say(type="background", background="packed")
    channel.say(type="background", background="green")
    channel.say(type="background", background="filmed")
    await eventually(lambda: len(chosen) == 2)
    assert chosen == ["packed", "filmed"]
    assert [message["background"] for message in channel.of("accepted")] == ["packed", "filmed"]
    assert [message["code"] for message in channel.of("error")] == ["invalid_request"]
