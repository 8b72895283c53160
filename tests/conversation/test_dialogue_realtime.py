"""A whole session whose ears, answers and voice are one Realtime service, over a real WebSocket in real time."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from engine.avatar.bundle import Avatar
from engine.conversation.answer import DialogueOptions
from engine.conversation.dialogue import Dialogue
from engine.conversation.history import History
from engine.conversation.http import Timeouts
from engine.conversation.phrases import ENGLISH
from engine.conversation.realtime.conversation import RealtimeService
from engine.conversation.realtime.link import Endpoint
from engine.conversation.tts.stream import SentenceStream
from engine.conversation.turn import TurnTaker
from engine.renderer import Renderer
from engine.session import Session
from engine.types import AvatarFrame
from tests.conversation.misbehaving_realtime import FakeRealtime, Mood
from tests.fakes import FakeLipSync, FakeVad, FakeVoice, silence, tone


class Visit:
    """A session in real time, and what it told."""

    def __init__(self, avatar: Avatar, fake: FakeRealtime, **options: object) -> None:
        self.renderer = Renderer(FakeLipSync(), 1)
        self.voice = FakeVoice()
        self.session = Session(avatar, self.renderer, self.voice)
        self.service = RealtimeService(Endpoint(fake.url, key=fake.key, timeouts=Timeouts(20.0, 20.0, 20.0)))
        conversation = self.service.converse("Be brief.", language="en")
        self.history = History("Be brief.")
        self.session.converse(
            Dialogue(
                self.session,
                vad=FakeVad(),
                turns=TurnTaker(),
                recogniser=conversation,
                model=conversation,
                history=self.history,
                sentences=SentenceStream,
                metrics=self.renderer.metrics,
                options=DialogueOptions(**options),
            )
        )
        self.told: list[tuple[str, dict]] = []
        self.frames: list[AvatarFrame] = []
        self._sound: list[np.ndarray] = []

    async def __aenter__(self) -> Visit:
        await self.session.start()
        self.session.set_mode("converse")
        self._events = self.session.events()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._events.aclose()
        await self.session.aclose()
        await self.service.aclose()
        await self.renderer.aclose()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("realtime")]

    def say(self, seconds: float) -> None:
        sound = tone(seconds)
        self._sound += [sound[start : start + 1920] for start in range(0, len(sound), 1920)]

    async def until(self, condition, timeout_s: float = 50.0) -> None:
        """Lets frames pass and the microphone run."""
        end_s = time.monotonic() + timeout_s
        frames = self.session.__aiter__()
        while not condition():
            assert time.monotonic() < end_s, self.told
            self.frames.append(await frames.__anext__())
            self.session.hear(self._sound.pop(0) if self._sound else silence(0.04))
            while len(self._events):
                event = await self._events.get()
                self.told.append((event.type, dict(event.data)))

    def states(self) -> list[str]:
        return [data["state"] for kind, data in self.told if kind == "turn"]

    def of(self, kind: str) -> list[dict]:
        return [data for told, data in self.told if told == kind]


async def test_a_spoken_turn_is_heard_answered_and_spoken_by_one_service(avatar: Avatar) -> None:
    async with FakeRealtime() as fake, Visit(avatar, fake) as visit:
        visit.say(0.6)
        await visit.until(lambda: "answered" in visit.states())
        assert [data["text"] for data in visit.of("transcript") if data["final"]] == ["what time is it"]
        assert [data["text"] for data in visit.of("caption")] == ["It is noon.", "Really."]
        assert not visit.voice.spoken
        spoken = [frame for frame in visit.frames if frame.speaking]
        assert len(spoken) == 10  # four words of 100 ms
        assert np.abs(np.concatenate([frame.audio for frame in spoken]).astype(int)).max() > 6000
        said = [(message.role, message.text) for message in visit.history.messages()][1:]
        assert said == [("user", "what time is it"), ("assistant", "It is noon. Really.")] == fake.texts()
        [latency] = [data["stages_ms"] for data in visit.of("latency")]
        assert len(latency) == 5 and len(fake.asked) == 1 and not fake.errors


async def test_whoever_speaks_over_it_stops_it_and_both_sides_remember_what_was_heard(avatar: Avatar) -> None:
    async with FakeRealtime() as fake, Visit(avatar, fake) as visit:
        fake.transcripts = ["tell me a story", "no stop please"]
        fake.answers = [" ".join(f"word{number}" for number in range(150)) + ".", "All right."]
        visit.say(0.6)
        await visit.until(lambda: sum(frame.speaking for frame in visit.frames) > 20)
        visit.say(1.0)
        await visit.until(lambda: "answered" in visit.states())
        [cut] = visit.of("interrupted")
        heard = len([frame for frame in visit.frames if frame.speaking])
        item = next(item for item in fake.last.items if item.role == "assistant")
        assert item.heard_ms is not None and 800 <= item.heard_ms <= 40 * heard
        words = cut["played_text"].split()
        assert abs(len(words) * 100 - item.heard_ms) <= 250
        assert words == [f"word{number}" for number in range(len(words))]
        roles = [message.role for message in visit.history.messages()][1:]
        assert roles == ["user", "assistant", "user", "assistant"]
        assert [role for role, _ in fake.texts()] == roles and not fake.errors


async def test_typed_text_is_answered_aloud(avatar: Avatar) -> None:
    async with FakeRealtime() as fake, Visit(avatar, fake) as visit:
        await visit.session.ask("Hello?")
        await visit.until(lambda: "answered" in visit.states())
        assert fake.asked == [[("user", "Hello?")]]
        assert [data["text"] for data in visit.of("caption")] == ["It is noon.", "Really."]


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (Mood(status=401), "service_rejected_key"),
        (Mood(answer_error="rate_limit_exceeded"), "service_rate_limited"),
        (Mood(die_after=2, between_s=0.02), "service_failed"),
        (Mood(silent_answers=True), "model_said_nothing"),
    ],
)
async def test_a_service_that_fails_costs_one_apology_and_the_next_turn_works(
    avatar: Avatar, mood: Mood, code: str
) -> None:
    async with FakeRealtime(mood) as fake, Visit(avatar, fake) as visit:
        await visit.session.ask("Hello?")
        await visit.until(lambda: "failed" in visit.states())
        assert [data["code"] for data in visit.of("error")] == [code]
        assert "".join(ENGLISH.apology.split()[0]) in " ".join(visit.voice.spoken)
        assert fake.key not in str(visit.told)
        fake.moods = [Mood()]
        for connection in fake.connections:
            connection.mood = Mood()
        await visit.session.ask("Again?")
        await visit.until(lambda: "answered" in visit.states())


async def test_a_session_that_hears_again_after_the_service_was_away_goes_on_where_it_was(avatar: Avatar) -> None:
    async with FakeRealtime() as fake, Visit(avatar, fake) as visit:
        visit.say(0.6)
        await visit.until(lambda: visit.states().count("answered") == 1)
        await fake.hang_up(fake.last)
        frames = len(visit.frames) + 50
        await visit.until(lambda: len(visit.frames) >= frames)  # what comes sooner may be the avatar's own echo
        visit.say(0.6)
        await visit.until(lambda: visit.states().count("answered") == 2)
        assert len(fake.connections) == 2 and not visit.of("error")
        assert [role for role, _ in fake.asked[-1]] == ["user", "assistant", "user"]
