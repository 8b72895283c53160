"""Half an hour of conversation in virtual time: nothing grows but the record of what was said."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from engine.avatar.bundle import Avatar
from engine.conversation.dialogue import Dialogue
from engine.conversation.history import History, estimate_tokens
from engine.conversation.tts.stream import SentenceStream
from engine.conversation.turn import TurnTaker
from engine.session import SessionLimits
from tests.fakes import FakeLipSync, FakeModel, FakeRecogniser, FakeVad, VirtualTime, silence, tone
from tests.session.stage import Stage

MINUTES = 30
BUDGET_TOKENS = 600
STORY = " ".join(f"Part {number} of a long story has eight words." for number in range(9))
CHUNK_S = 0.08


class LongTalk(Stage):
    """A session somebody converses with for hours; what the fakes write down is thrown away."""

    def __init__(self, avatar: Avatar, time: VirtualTime) -> None:
        super().__init__(avatar, FakeLipSync(), time, SessionLimits())
        self.recogniser = FakeRecogniser(time)
        self.model = FakeModel(time)
        self.history = History("Be brief.", budget_tokens=BUDGET_TOKENS)
        dialogue = Dialogue(
            self.session,
            vad=FakeVad(),
            turns=TurnTaker(),
            recogniser=self.recogniser,
            model=self.model,
            history=self.history,
            sentences=SentenceStream,
            metrics=self.renderer.metrics,
        )
        self.session.converse(dialogue)
        self.session.set_mode("converse")
        self.outcomes: dict[str, int] = {}
        self.most_tokens = 0

    async def open(self) -> None:
        await self.session.start()
        self._readers = [
            asyncio.create_task(self._drop_frames()),
            asyncio.create_task(self._count_events()),
        ]

    async def speak(self, seconds: float) -> None:
        await self._hear(tone(seconds))

    async def quiet(self, seconds: float) -> None:
        await self._hear(silence(seconds))

    async def answered(self) -> None:
        """A question, and its answer to the end."""
        self._expect("What do you think of that?", "Quite a lot, as it happens. Ask me more.")
        await self.speak(1.0)
        await self.quiet(4.0)

    async def interrupted(self) -> None:
        """A question whose answer is cut off by another question."""
        self._expect("Tell me a story.", STORY)
        await self.speak(1.0)
        await self.quiet(3.0)
        self._expect("No, something else please.", "All right.")
        await self.speak(1.2)
        await self.quiet(3.0)

    async def disturbed(self) -> None:
        """A question whose answer is stopped by a noise, accompanied by a murmur, and heard to its end."""
        self._expect("Tell me a story.", STORY)
        await self.speak(1.0)
        await self.quiet(2.0)
        self._expect("", "")
        await self.speak(0.5)
        await self.quiet(3.0)
        self._expect("mm-hm", "")
        await self.speak(0.3)
        await self.quiet(10.0)

    async def typed(self) -> None:
        """A typed question in the middle of an answer."""
        self._expect("Tell me a story.", STORY)
        await self.speak(1.0)
        await self.quiet(2.0)
        self._expect("", "A typed answer.")
        await self.session.ask("Something typed?")
        await self.quiet(3.0)

    async def withdrawn(self) -> None:
        """A question that goes on after a pause, before anything of its answer was heard."""
        self._expect("One more thing.", "Never heard.")
        self.model.delay_s = 0.6
        await self.speak(0.6)
        await self.quiet(0.4)
        self._expect("And another one.", "To both: yes.")
        self.model.delay_s = 0.1
        await self.speak(0.6)
        await self.quiet(3.0)

    def forget_records(self) -> None:
        """Throws away what the fakes wrote down."""
        self.recogniser.turns.clear()
        self.recogniser.texts.clear()
        self.model.asked.clear()
        self.voice.spoken.clear()
        self.renderer.submitted.clear()

    def _expect(self, heard: str, answer: str) -> None:
        self._note_context()
        self.forget_records()
        self.recogniser.texts = [heard]
        self.model.texts = [answer]

    def _note_context(self) -> None:
        for messages in self.model.asked:
            assert messages[0].text == "Be brief.", "the system prompt is always there"
            self.most_tokens = max(self.most_tokens, sum(estimate_tokens(message.text) for message in messages))

    async def _hear(self, samples) -> None:
        size = round(CHUNK_S * 48_000)
        for start in range(0, len(samples), size):
            self.session.hear(samples[start : start + size])
            await self.time.advance(CHUNK_S)

    async def _drop_frames(self) -> None:
        async for _ in self.session:
            pass

    async def _count_events(self) -> None:
        async with aclosing(self.session.events()) as events:
            async for event in events:
                if event.type == "turn":
                    state = str(event.data["state"])
                    self.outcomes[state] = self.outcomes.get(state, 0) + 1


@pytest.fixture
async def talk(avatar: Avatar, virtual_time: VirtualTime) -> AsyncIterator[LongTalk]:
    talk = LongTalk(avatar, virtual_time)
    await talk.open()
    yield talk
    await talk.close()


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


# Watching the loop doubles what half an hour of it costs; the other tests of conversations watch it.
@pytest.mark.may_block_loop
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_half_an_hour_of_conversation_leaves_memory_and_tasks_as_they_were(talk: LongTalk) -> None:
    started_s = talk.time.now_s()
    tasks, objects, memory_mb = [], [], []
    rounds = 0
    while talk.time.now_s() - started_s < MINUTES * 60:
        await talk.answered()
        await talk.interrupted()
        await talk.disturbed()
        await talk.typed()
        await talk.withdrawn()
        await talk.quiet(10.0)
        rounds += 1
        talk.forget_records()
        gc.collect()
        tasks.append(len(asyncio.all_tasks()))
        objects.append(len(gc.get_objects()))
        memory_mb.append(_resident_mb())
    assert rounds >= 25
    assert talk.outcomes["interrupted"] == 2 * rounds, "one by voice, one by typing"
    assert talk.outcomes["answered"] == 5 * rounds
    assert talk.outcomes["withdrawn"] == rounds
    assert "failed" not in talk.outcomes
    assert len(set(tasks)) == 1, f"tasks: {tasks}"
    settled = rounds // 5
    growth_mb = max(memory_mb[-settled:]) - max(memory_mb[settled : 2 * settled])
    assert growth_mb < 4, f"memory: {memory_mb}"
    # The record for export is all that may grow: two lines a turn.
    assert objects[-1] - objects[settled] < 40 * (rounds - settled), f"objects: {objects}"
    assert talk.most_tokens <= BUDGET_TOKENS
