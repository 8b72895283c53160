"""A session whose recogniser and language model are services over real HTTP, which fail in every way."""

from __future__ import annotations

import time

import pytest

from engine.avatar.bundle import Avatar
from engine.conversation.answer import DialogueOptions
from engine.conversation.asr.openai import OpenAiRecogniser
from engine.conversation.dialogue import Dialogue
from engine.conversation.history import History
from engine.conversation.http import Timeouts
from engine.conversation.llm.openai import OpenAiModel
from engine.conversation.phrases import ENGLISH
from engine.conversation.tts.stream import SentenceStream
from engine.conversation.turn import TurnTaker
from engine.renderer import Renderer
from engine.session import Session
from tests.conversation.misbehaving import RUBBISH, FakeService, Mood
from tests.fakes import FakeLipSync, FakeVad, FakeVoice, silence, tone

QUICK = Timeouts(connect_s=0.3, first_byte_s=0.3, next_byte_s=0.3)


class Visit:
    """A session in real time, and what it told."""

    def __init__(self, avatar: Avatar, service: FakeService) -> None:
        self.renderer = Renderer(FakeLipSync(), 1)
        self.session = Session(avatar, self.renderer, FakeVoice())
        self.model = OpenAiModel(service.url, "fake", service.key, QUICK)
        self.dialogue = Dialogue(
            self.session,
            vad=FakeVad(),
            turns=TurnTaker(),
            recogniser=OpenAiRecogniser(service.url, "fake", service.key, "en", QUICK),
            model=self.model,
            history=History("Be brief."),
            sentences=SentenceStream,
            metrics=self.renderer.metrics,
            options=DialogueOptions(),
        )
        self.session.converse(self.dialogue)

    async def __aenter__(self) -> Visit:
        await self.session.start()
        self.session.set_mode("converse")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.session.aclose()
        await self.model.aclose()
        await self.renderer.aclose()

    async def turn(self, *, spoken: bool) -> list[tuple[str, dict]]:
        """One turn of the person, and the events until it has ended."""
        told: list[tuple[str, dict]] = []
        events = self.session.events()
        sound = [tone(0.6), silence(6.0)]
        if not spoken:
            await self.session.ask("Hello?")
        end_s, position = time.monotonic() + 30, 0
        frames = self.session.__aiter__()
        while time.monotonic() < end_s:
            await frames.__anext__()
            if spoken:
                chunk = (sound[0] if position < len(sound[0]) else sound[1])[:1920]
                self.session.hear(chunk)
                position += len(chunk)
            while len(events):
                event = await events.get()
                told.append((event.type, dict(event.data)))
                if event.type == "turn" and event.data["state"] in ("answered", "failed", "empty"):
                    await events.aclose()
                    return told
        raise AssertionError(f"the turn did not end: {told}")


@pytest.mark.parametrize(
    ("mood", "code"),
    [
        (Mood(status=401), "service_rejected_key"),
        (Mood(status=400), "service_failed"),
        (Mood(hang_up=True), "service_unreachable"),
        (Mood(first_byte_s=5.0), "service_timeout"),
        (Mood(body=RUBBISH), "service_garbled"),
        (Mood(die_after=2), "service_failed"),
    ],
)
async def test_a_language_model_that_fails_costs_one_apology_and_the_next_turn_works(
    avatar: Avatar, mood: Mood, code: str
) -> None:
    service = FakeService()
    service.key = "sk-very-secret"
    async with service, Visit(avatar, service) as visit:
        service.moods["chat"] = [mood] * 8
        told = await visit.turn(spoken=False)
        errors = [data for kind, data in told if kind == "error"]
        assert len(errors) == 1 and (errors[0]["code"] == code or mood.hang_up)
        assert service.key not in str(told)
        said = [data["text"] for kind, data in told if kind == "caption"]
        assert any(ENGLISH.apology.startswith(text) for text in said)
        service.moods["chat"] = [Mood()]
        assert (await visit.turn(spoken=False))[-1][1]["state"] == "answered"


async def test_a_spoken_turn_goes_through_both_services(avatar: Avatar) -> None:
    async with FakeService() as service, Visit(avatar, service) as visit:
        told = await visit.turn(spoken=True)
        [words] = [data["text"] for kind, data in told if kind == "transcript" and data["final"]]
        assert words == service.transcript
        assert told[-1][1]["state"] == "answered"
        [latency] = [data["stages_ms"] for kind, data in told if kind == "latency"]
        assert sorted(latency.values()) == list(latency.values()) and len(latency) == 5
