"""RTVI on the data channel: what means the same has its name, everything else still gets through."""

from __future__ import annotations

import asyncio
import json

import pytest

from engine.config import Config
from engine.conversation.history import History
from engine.persona import Persona
from engine.types import Event
from server.channel import ControlChannel
from server.character import character_of
from server.language_models import LanguageModels
from server.manner import Manner
from tests.server.fakes import FakeSession
from tests.server.serving import eventually


class FakeChannel:
    """The part of an RTCDataChannel that is used, with everything that was sent."""

    readyState, bufferedAmount = "open", 0

    def __init__(self, label: str) -> None:
        self.label = label
        self.sent: list[dict] = []

    def on(self, event: str, listener) -> None:
        self.say_text = listener

    def say(self, kind: str, data: dict | None = None, message_id: str = "1") -> None:
        message = {"label": "rtvi-ai", "type": kind, "id": message_id}
        self.say_text(json.dumps(message if data is None else {**message, "data": data}))

    def send(self, data: str) -> None:
        self.sent.append(json.loads(data))

    def of(self, kind: str) -> list[dict]:
        return [message for message in self.sent if message["type"] == kind]

    @property
    def kinds(self) -> list[str]:
        """Types in order, our own messages as what they hold."""
        return [m["data"]["type"] if m["type"] == "server-message" else m["type"] for m in self.sent]


@pytest.fixture(params=["chat", "rtvi-ai"])
async def channel(request):
    session, channel, closed = FakeSession(), FakeChannel(request.param), []
    models = LanguageModels(Config())
    manner = Manner(character_of(Persona(), "Ada", Config()), History(), models)
    control = ControlChannel(session, manner, "id", lambda: closed.append(True))
    running = asyncio.create_task(control.run())
    await asyncio.sleep(0)
    control.attach(channel)
    channel.session, channel.closed, channel.control = session, closed, control
    channel.sent.clear()
    yield channel
    await session.aclose()
    await running
    await models.aclose()


async def publish(channel: FakeChannel, *events: Event) -> None:
    for event in events:
        channel.session.publish(event)
    await eventually(lambda: channel.session.queues[0].empty())
    await asyncio.sleep(0)


async def test_a_client_that_is_ready_is_told_that_the_bot_is_too(channel):
    channel.say("client-ready", {"version": "2.1.0", "about": {"library": "x"}}, "7")
    await eventually(lambda: channel.of("bot-ready"))
    ready = channel.of("bot-ready")[0]
    assert (ready["label"], ready["id"], ready["data"]["version"]) == ("rtvi-ai", "7", "2.1.0")


async def test_speech_has_the_names_of_rtvi(channel):
    await publish(
        channel,
        Event("user_speaking", {"speaking": True}),
        Event("transcript", {"role": "user", "text": "hello", "final": False}),
        Event("user_speaking", {"speaking": False}),
        Event("transcript", {"role": "user", "text": "hello there", "final": True, "turn_id": 1}),
        Event("speaking", {"speaking": True, "utterance_id": 1, "label": "reply"}),
        Event("caption", {"utterance_id": 1, "text": "Hi.", "start_ms": 0, "end_ms": 300, "words": []}),
        Event("caption", {"utterance_id": 1, "text": "Sit down.", "start_ms": 300, "end_ms": 900, "words": []}),
    )
    assert channel.control.speaking
    await publish(channel, Event("speaking", {"speaking": False, "utterance_id": 1, "label": "reply"}))
    assert channel.kinds == [
        "user-started-speaking", "user-transcription", "user-stopped-speaking", "user-transcription",
        "bot-started-speaking", "bot-output", "bot-transcription", "bot-output", "bot-output", "bot-transcription",
        "bot-output", "bot-stopped-speaking",
    ]  # fmt: skip
    assert [m["data"]["final"] for m in channel.of("user-transcription")] == [False, True]
    outputs = [message["data"] for message in channel.of("bot-output")]
    spoken = [(output["text"], output["spoken_status"], output["segment_id"]) for output in outputs]
    assert spoken == [
        ("Hi.", "new", 1), ("Hi.", "completed", 1), ("Sit down.", "new", 2), ("Sit down.", "completed", 2),
    ]  # fmt: skip
    assert not channel.control.speaking


async def test_what_was_cut_off_is_never_said_to_be_complete(channel):
    await publish(
        channel,
        Event("speaking", {"speaking": True, "utterance_id": 1, "label": "reply"}),
        Event("caption", {"utterance_id": 1, "text": "A long story.", "start_ms": 0, "end_ms": 9000, "words": []}),
        Event("interrupted", {"utterance_id": 1, "played_text": "A long"}),
        Event("speaking", {"speaking": False, "utterance_id": 1, "label": "reply"}),
    )
    assert [m["data"]["spoken_status"] for m in channel.of("bot-output")] == ["new"]
    assert len(channel.of("bot-interrupted")) == 1


async def test_what_has_no_name_there_gets_through_as_it_is(channel):
    await publish(
        channel,
        Event("viseme", {"utterance_id": 1, "mouth": {"jawOpen": 0.5}}),
        Event("latency", {"turn_id": 1, "stages_ms": {"endpoint": 500, "first_audio": 640}}),
        Event("error", {"code": "nothing_to_say", "message": "There is nothing to say."}),
    )
    assert channel.of("server-message")[0]["data"] == {"type": "viseme", "utterance_id": 1, "mouth": {"jawOpen": 0.5}}
    assert channel.of("metrics")[0]["data"] == {"ttfb": [{"processor": "visavis", "value": 0.64}]}
    assert channel.of("error")[0]["data"] == {"error": "There is nothing to say.", "fatal": False}
    assert channel.kinds == ["viseme", "metrics", "latency", "error", "error"]


async def test_a_text_is_answered_and_silence_means_that_it_is(channel):
    channel.say("send-text", {"content": "Who are you?", "options": {"run_immediately": True}})
    await eventually(lambda: channel.session.asked_texts == ["Who are you?"])
    await asyncio.sleep(0)
    assert channel.sent == []


async def test_every_command_of_ours_can_be_sent_and_is_answered_by_its_id(channel):
    channel.say("client-message", {"t": "say", "d": {"text": "Hello."}}, "a1")
    channel.say("client-message", {"t": "interrupt"}, "a2")
    channel.say("client-message", {"t": "act", "d": {"name": "somersault"}}, "a3")
    await eventually(lambda: channel.of("error-response"))
    assert channel.session.said == ["Hello."] and channel.session.interrupts == 1
    first, second = channel.of("server-response")
    assert (first["id"], first["data"]) == ("a1", {"t": "say", "d": {"command": "say", "utterance_id": 1}})
    assert second["id"] == "a2" and second["data"]["d"]["played_ms"] == 120
    assert len(channel.of("bot-interrupted")) == 1
    assert channel.of("error-response")[0]["id"] == "a3" and "nod" in channel.of("error-response")[0]["data"]["error"]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("dance", None),
        ("client-message", {"d": {}}),
        ("client-message", {"t": "say", "d": "text"}),
        ("client-message", {"t": "somersault"}),
        ("send-text", {"content": 1}),
        ("send-text", {"content": "a", "options": {"audio_response": False}}),
        ("send-text", None),
    ],
)
async def test_what_cannot_be_done_is_refused_by_its_id(channel, kind, data):
    channel.say(kind, data, "9")
    await eventually(lambda: channel.of("error-response"))
    assert channel.of("error-response")[0]["id"] == "9" and channel.of("error-response")[0]["data"]["error"]
    assert not channel.session.asked_texts and not channel.session.said


async def test_signs_of_life_and_muted_tracks_want_no_answer(channel):
    seen_s = channel.control.last_seen_s
    await asyncio.sleep(0.01)
    channel.say_text("ping: 1700000000")
    channel.say_text(json.dumps({"type": "signalling", "message": {"type": "trackStatus", "receiver_index": 0}}))
    channel.say("disconnect-bot")
    await eventually(lambda: channel.closed)
    assert channel.sent == [] and channel.control.last_seen_s > seen_s


async def test_garbage_is_answered_and_nothing_else_happens(channel):
    for garbage in ("{", "[]", b"\x00"):
        channel.say_text(garbage)
    await eventually(lambda: len(channel.of("error-response")) == 3)
    channel.say("send-text", {"content": "still here"})
    await eventually(lambda: channel.session.asked_texts == ["still here"])


async def test_a_farewell_tells_that_the_bot_has_left(channel):
    channel.control.send("state", {"state": "ended", "reason": "idle", "message": "Nothing was said."})
    assert channel.sent[-1] == {"type": "signalling", "message": {"type": "peerLeft"}}
