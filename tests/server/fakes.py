"""A stage and sessions without models: frames that can be recognised, everything else remembered."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from engine.avatar.card import AvatarCard
from engine.clock import FrameClock
from engine.config import Config
from engine.conversation.history import History, Line
from engine.conversation.voice.base import VoiceChange
from engine.errors import AudioInvalid, Busy, Closed, NotFound, TextInvalid
from engine.metrics import EngineMetrics
from engine.quality import Quality, QualityState
from engine.types import FRAME_SAMPLES, PLAYOUT_RATE, AvatarFrame, Event, Playback
from engine.voice_stages import VoiceStages
from server.character import Character, character_of
from server.language_models import LanguageModels
from server.library import Library
from server.manner import Manner
from server.stage import NO_WISHES, Poster, Wishes

SIZE = 256
FLASH_EVERY = 25
"""Every so many frames the picture is white and a tone sounds, in the same frame."""

T = TypeVar("T")


def make_frame(pts: int) -> AvatarFrame:
    """A grey picture with a moving bar and silence; on every 25th frame white and a tone."""
    flash = pts % FLASH_EVERY == 0
    image = np.full((SIZE, SIZE, 3), 255 if flash else 60, np.uint8)
    image[:, (pts * 4) % SIZE : (pts * 4) % SIZE + 8] = 128
    tone = np.sin(2 * np.pi * 1000 * np.arange(FRAME_SAMPLES) / PLAYOUT_RATE) * 16_000
    audio = tone.astype(np.int16) if flash else np.zeros(FRAME_SAMPLES, np.int16)
    return AvatarFrame(image, audio, pts)


class FakeStream:
    """Remembers what was pushed."""

    def __init__(self, utterance_id: int) -> None:
        self.utterance_id = utterance_id
        self.samples = np.zeros(0, np.int16)
        self.ended = False
        self.closed = False

    async def push(self, samples: np.ndarray) -> None:
        if self.closed:
            raise Closed("stream_closed", "The stream was interrupted.")
        self.samples = np.concatenate([self.samples, samples])

    async def end(self) -> None:
        self.ended = True


class FakeSession:
    """The session's contract with recognisable frames."""

    def __init__(self, max_text_chars: int = 2000) -> None:
        self.clock = FrameClock()
        self.max_text_chars = max_text_chars
        self.said: list[str] = []
        self.played: list[np.ndarray] = []
        self.heard: list[np.ndarray] = []
        self.streams: list[FakeStream] = []
        self.mirror = False
        self.mode = "say"
        self.asked_texts: list[str] = []
        self.keys: list[bool | None] = []
        self.voices: list[tuple[float, float, str]] = []
        self.heard_turns: list[tuple[int, float]] = []
        self.lines: list[Line] = []
        self.listening = False
        self.asked: Quality = "auto"
        self.encoded_s: list[float] = []
        self.actions: list[str] = []
        self.interrupts = 0
        self.paused = False
        self.busy = False
        self.closed = asyncio.Event()
        self.queues: list[asyncio.Queue[Event | None]] = []
        self._utterance = 0

    async def start(self) -> None:
        self.clock = FrameClock()

    def say(self, text: str) -> int:
        if not text.strip():
            raise TextInvalid("text_empty", "There is no text.")
        if len(text) > self.max_text_chars:
            raise TextInvalid("text_too_long", f"At most {self.max_text_chars} characters.")
        self._check()
        self.said.append(text)
        return self._next()

    def play(self, samples: np.ndarray, label: str = "") -> int:
        if not len(samples):
            raise AudioInvalid("audio_empty", "No sound.")
        self._check()
        self.played.append(samples)
        return self._next()

    def open_stream(self, *, live: bool = False) -> FakeStream:
        self._check()
        self.streams.append(FakeStream(self._next()))
        return self.streams[-1]

    def hear(self, samples: np.ndarray) -> None:
        self.heard.append(samples)

    def set_mirror(self, on: bool) -> None:
        self.mirror = on

    def set_mode(self, mode: str) -> None:
        self.mode, self.mirror = mode, mode == "mirror"

    async def ask(self, text: str) -> int:
        self.asked_texts.append(text)
        return len(self.asked_texts)

    def push_to_talk(self, down: bool | None) -> None:
        self.keys.append(down)

    async def set_voice(self, pitch: float = 0.0, formant: float = 0.0, conversion: str = "") -> None:
        if conversion not in ("", "singer"):
            raise NotFound("voice_conversion_unknown", "There is no such conversion; there is singer.")
        self.voices.append((pitch, formant, conversion))

    def heard_by_viewer(self, turn_id: int, at_s: float) -> None:
        self.heard_turns.append((turn_id, at_s))

    def transcript(self) -> list[Line]:
        return self.lines

    def said_so_far(self) -> list[Line]:
        return self.lines

    @property
    def voice_change(self) -> VoiceChange:
        return VoiceChange(*self.voices[-1]) if self.voices else VoiceChange()

    def act(self, name: str) -> None:
        if name != "nod":
            raise NotFound("action_unknown", "This avatar has no such action; it has: nod.")
        self.actions.append(name)

    def set_quality(self, quality: Quality) -> None:
        self.asked = quality
        self.publish(Event("quality", self.quality.to_dict()))

    @property
    def quality(self) -> QualityState:
        return QualityState(self.asked, 0 if self.asked == "auto" else self.asked, "asked")

    def encoded(self, seconds: float) -> None:
        self.encoded_s.append(seconds)

    def tell(self, kind: str, **data: object) -> None:
        self.publish(Event(kind, data))

    def stop_action(self) -> None:
        self.actions.append("")

    def set_listening(self, on: bool) -> None:
        self.listening = on

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    async def interrupt(self) -> Playback:
        self.interrupts += 1
        for stream in self.streams:
            stream.closed = True
        return Playback(self._utterance, 120, 340)

    async def events(self) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self.queues.append(queue)
        while (event := await queue.get()) is not None:
            yield event

    def publish(self, event: Event) -> None:
        for queue in self.queues:
            queue.put_nowait(event)

    async def __aiter__(self) -> AsyncIterator[AvatarFrame]:
        pts = self.clock.frame_at(self.clock.now_s())
        while not self.closed.is_set():
            await asyncio.sleep(max(0.0, self.clock.due_s(pts) - self.clock.now_s()))
            yield make_frame(pts)
            pts += 1

    async def aclose(self) -> None:
        self.closed.set()
        for queue in self.queues:
            queue.put_nowait(None)

    def require_room(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.closed.is_set():
            raise Closed("session_closed", "The session is closed.")
        if self.busy:
            raise Busy("queue_full", "Too much is waiting.")

    def _next(self) -> int:
        self._utterance += 1
        return self._utterance


class FakeStage:
    """Two avatars that exist only as cards."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.metrics = EngineMetrics()
        self.library = Library(Path(os.devnull), config.data_dir / "avatars")
        self.cards = self.library.cards
        for name in ("ada", "bob"):
            self.cards[name] = AvatarCard(name, name.title(), (SIZE, SIZE), "CC0-1.0", "made for a test", True)
        self.default = "ada"
        self.default_avatar = None
        self.sessions: list[FakeSession] = []
        self.manners: list[Manner] = []
        self.wishes: list[Wishes] = []
        self.language_models = LanguageModels(config)
        self.voice_conversions = ["singer"]
        self.stages = VoiceStages(config.weights_dir)
        self.fail_with: Exception | None = None
        self.closed = False
        self.restores = True
        self.mode, self.hears, self.note = "converse", True, ""
        self._files = ThreadPoolExecutor(1)

    async def on_file_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    def known(self, name: str | None) -> str:
        name = name or self.default
        if name not in self.cards:
            raise NotFound("avatar_unknown", "There is no such avatar.")
        return name

    def character(self, name: str) -> Character:
        return character_of(self.cards[name].persona, self.cards[name].title, self.config)

    async def create_session(self, name: str, wishes: Wishes = NO_WISHES) -> tuple[FakeSession, Manner]:
        if self.fail_with is not None:
            raise self.fail_with
        session = FakeSession(self.config.max_text_chars)
        session.asked = self.config.quality if wishes.quality is None else wishes.quality
        manner = Manner(
            self.character(name), History(), self.language_models, wishes.style, wishes.language_model
        )
        self.sessions.append(session)
        self.wishes.append(wishes)
        self.manners.append(manner)
        return session, manner

    def forget(self, name: str) -> None:
        self.library.drop(name)

    async def poster(self, name: str) -> Poster:
        data = cv2.imencode(".jpg", make_frame(1).image)[1].tobytes()
        return Poster(data, hashlib.sha256(data).hexdigest()[:24])

    async def thumbnail(self, name: str) -> bytes:
        return cv2.imencode(".webp", make_frame(1).image)[1].tobytes()

    async def aclose(self) -> None:
        self.closed = True
        self._files.shutdown()
