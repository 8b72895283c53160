"""Somebody who talks with the avatar in Chromium: speaks and types when the script says so, and waits for events.

Place in the flow: conversation_script.py, conversation_live.py -> Visitor -> page/conversation.js -> the product.

Invariants: nothing happens by the clock that could happen by an event; whatever does not come in time raises
``Unmeasurable`` with what was waited for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from engine.types import PLAYOUT_RATE
from tests.benchmarks.analysis import Unmeasurable
from tests.benchmarks.browser import PREFIX, MeasuringPage
from tests.benchmarks.conversation_sounds import Spoken
from tests.benchmarks.recording import BLOCK_MS, Sound
from tests.benchmarks.serving import ServerProcess
from tests.conversation.misbehaving import FakeService

SERVER = "tests.benchmarks.conversation_server"
SOUND_LEVEL = 0.02
"""Block level that counts as sound, full scale 1: -34 dBFS."""
PATIENCE_S = 15.0
_POLL_S = 0.01
_SEARCH_MS = (-100.0, 500.0)
"""How far from the moment it was asked for an utterance may begin."""

Event = dict[str, Any]


@contextmanager
def instant_model(answer: Callable[[str], str]) -> Iterator[FakeService]:
    """An OpenAI-compatible language model on loopback that answers at once.

    Args:
        answer: from the last thing the user said to the whole answer.
    """
    fake = FakeService()
    fake.reply = lambda body: answer(body["messages"][-1]["content"])
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        await fake.__aenter__()
        ready.set()

    def run() -> None:
        loop.create_task(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, name="instant-model", daemon=True)
    thread.start()
    try:
        if not ready.wait(10):
            raise Unmeasurable("the fake language model did not come up")
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def server_options(fake: FakeService, avatar: str) -> tuple[str, ...]:
    """Arguments of a server whose language model is the fake one and which does not greet; all else is as it comes."""
    return ("--llm", "openai", "--llm-url", fake.url, "--greeting", "", *(("--avatar", avatar) if avatar else ()))


class Visitor(MeasuringPage):
    """A measuring page with somebody in front of it; times are milliseconds on the page's clock."""

    def __init__(self, browser: Browser, server: ServerProcess, folder: Path, spoken: dict[str, Spoken]) -> None:
        """
        Args:
            browser: where to open it.
            server: what to talk with.
            folder: holds ``<name>.wav`` of everything that can be said.
            spoken: the same, by name.
        """
        super().__init__(browser, server.url, folder)
        self._spoken = spoken
        self.events: list[Event] = []
        self.said: list[tuple[str, float]] = []
        self.page.add_script_tag(url=f"{server.url}{PREFIX}conversation.js", type="module")
        self.page.wait_for_function("window.person")

    def arrive(self) -> None:
        """Opens the microphone; ``connect`` and ``observe`` first."""
        # Somebody who has clicked may hear: the page measures nothing before.
        self.page.mouse.click(1, 1)
        self._do("arrive", list(self._spoken))

    def say(self, name: str) -> float:
        """Begins to say something; returns when that was, to within some tens of milliseconds."""
        at_ms = self._do("say", name)
        self.said.append((name, at_ms))
        return at_ms

    def ask(self, text: str) -> None:
        """Types something."""
        self._do("ask", text)

    def mark(self) -> int:
        """Number of the next event."""
        self._catch_up()
        return len(self.events)

    def until(
        self, what: str, wanted: Callable[[Event], bool], since: int = 0, patience_s: float = PATIENCE_S
    ) -> Event:
        """Waits for an event from number ``since`` on.

        Raises:
            Unmeasurable: it did not come in time.
        """
        end_s, at = time.monotonic() + patience_s, since
        while True:
            self._catch_up()
            for event in self.events[at:]:
                if wanted(event):
                    return event
            at = len(self.events)
            if time.monotonic() > end_s:
                raise Unmeasurable(f"{what} did not come within {patience_s:g} s; events: {short(self.events[since:])}")
            self.wait(_POLL_S)

    def until_turn(self, state: str, since: int = 0, patience_s: float = PATIENCE_S) -> Event:
        """Waits for a turn to come into a state.

        Raises:
            Unmeasurable: it did not come in time, or will not come any more.
        """
        final = {"empty", "failed", state}
        event = self.until(f"turn {state}", lambda e: e["type"] == "turn" and e["state"] in final, since, patience_s)
        if event["state"] != state:
            raise Unmeasurable(f"the turn was {event['state']}, not {state}; events: {short(self.events[since:])}")
        return event

    def until_sound(self, heard: bool = True, patience_s: float = PATIENCE_S) -> None:
        """Waits until the avatar is heard, or, for 0.4 s, is not. Raises Unmeasurable when it does not come so far."""
        end_s, silent_since_s = time.monotonic() + patience_s, None
        while True:
            now_s, loud = time.monotonic(), self._do("level", None) >= SOUND_LEVEL
            if loud == heard and heard:
                return
            silent_since_s = None if loud else silent_since_s or now_s
            if not heard and silent_since_s is not None and now_s - silent_since_s >= 0.4:
                return
            if now_s > end_s:
                what = "sound" if heard else "silence"
                raise Unmeasurable(f"{what} did not come within {patience_s:g} s; events: {short(self.events)}")
            self.wait(_POLL_S)

    def of(self, kind: str, since: int = 0) -> list[Event]:
        """Events of one kind from number ``since`` on, those known so far."""
        self._catch_up()
        return [event for event in self.events[since:] if event["type"] == kind]

    def spoken_ms(self, microphone: Sound) -> list[tuple[float, float]]:
        """When the speech of each utterance began and ended at the microphone, found in its recorded loudness."""
        return [place(microphone, self._spoken[name], at_ms) for name, at_ms in self.said]

    def _do(self, method: str, argument: Any) -> Any:
        return self.page.evaluate(f"argument => window.person.{method}(argument)", argument)

    def _catch_up(self) -> None:
        self.events += self._do("events", len(self.events))


def place(microphone: Sound, spoken: Spoken, at_ms: float) -> tuple[float, float]:
    """When the speech of an utterance began and ended at the microphone, milliseconds.

    Its loudness is laid over what was recorded; where they fit best is where it was said.

    Args:
        microphone: what was recorded.
        spoken: what was said.
        at_ms: about when its sound began.
    """
    size = round(BLOCK_MS * PLAYOUT_RATE / 1000)
    blocks = spoken.samples[: len(spoken.samples) // size * size].reshape(-1, size).astype(np.float32) / 32768
    levels = np.sqrt((blocks**2).mean(1))
    grid = np.arange(at_ms + _SEARCH_MS[0], at_ms + _SEARCH_MS[1] + len(levels) * BLOCK_MS, BLOCK_MS)
    index = np.searchsorted(microphone.times_ms, grid).clip(0, len(microphone.times_ms) - 1)
    match = np.correlate(microphone.levels[index], levels, "valid")
    start_ms = float(grid[int(match.argmax())])
    return start_ms + spoken.speech_start_ms, start_ms + spoken.speech_end_ms


def short(events: Iterable[Event]) -> str:
    """The last events in a few words, for messages."""
    told = ("state", "text", "speaking", "code")
    return "; ".join(
        " ".join([event["type"], *(str(event[key])[:40] for key in told if key in event)])
        for event in list(events)[-12:]
        if event["type"] != "caption"
    )
