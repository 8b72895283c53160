"""The data channel's commands and events, without a connection."""

from __future__ import annotations

import asyncio
import json

import pytest

from server.channel import LABEL, ControlChannel
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
    control = ControlChannel(session, "id")
    running = asyncio.create_task(control.run())
    await asyncio.sleep(0)
    control.attach(channel)
    channel.session = session
    yield channel
    await session.aclose()
    await running


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
