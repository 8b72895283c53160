"""A real session in virtual time that somebody converses with; the services are fake."""

from __future__ import annotations

from engine.avatar.bundle import Avatar
from engine.conversation.answer import DialogueOptions
from engine.conversation.dialogue import Dialogue
from engine.conversation.history import History
from engine.conversation.tts.stream import SentenceStream
from engine.conversation.turn import TurnTaker
from engine.session import SessionLimits
from tests.fakes import FakeLipSync, FakeModel, FakeRecogniser, FakeVad, VirtualTime, silence, tone
from tests.session.stage import Stage, hear

LONG = " ".join(f"word{index}" for index in range(40)) + "."


class Talk(Stage):
    """A session somebody converses with."""

    def __init__(self, avatar: Avatar, lipsync: FakeLipSync, time: VirtualTime) -> None:
        super().__init__(avatar, lipsync, time, SessionLimits())
        self.recogniser = FakeRecogniser(time)
        self.model = FakeModel(time)
        self.history = History("Be brief.")
        self.dialogue = self.make()

    def make(self, **options: object) -> Dialogue:
        self.dialogue = Dialogue(
            self.session,
            vad=FakeVad(),
            turns=TurnTaker(),
            recogniser=self.recogniser,
            model=self.model,
            history=self.history,
            sentences=SentenceStream,
            metrics=self.renderer.metrics,
            options=DialogueOptions(**options),
        )
        self.session.converse(self.dialogue)
        self.session.set_mode("converse")
        return self.dialogue

    async def speak(self, seconds: float) -> None:
        await hear(self, tone(seconds))

    async def quiet(self, seconds: float) -> None:
        await hear(self, silence(seconds))

    def states(self) -> list[str]:
        return [event["state"] for event in self.of("turn")]

    def remembered(self) -> list[tuple[str, str]]:
        return [(message.role, message.text) for message in self.history.messages("")][1:]
