"""Stand-ins for models, services and time, for tests of everything around them.

The fakes keep the contracts of what they stand for and make results visible in pixels: the idle picture carries
its own number, and the fake mouth is as tall as the sound is loud, so a test reads sync off the picture.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import heapq
import itertools
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from engine.audio.window import MelWindow
from engine.avatar.bundle import Avatar, Clip
from engine.conversation.asr.base import Transcript
from engine.conversation.llm.base import Message
from engine.conversation.tts.base import SpeechPiece, Word
from engine.errors import BackendFailed
from engine.lipsync.base import FacePatch, LipJob
from engine.metrics import EngineMetrics
from engine.renderer import PictureJob, Rendering, render_now
from engine.restore.base import LIVE_LEVEL, Progress, Restored, RestoreJob
from engine.types import FRAME_SAMPLES, MOUTH_SHAPES, PLAYOUT_RATE

TINY_SIDE = 96
TINY_FRAMES = 12

_MOUTH_BOX = (56, 80, 32, 64)
_NUMBER_STEP = 20


def tiny_avatar(frames: int = TINY_FRAMES, name: str = "tiny") -> Avatar:
    """A 96 x 96 avatar whose top left corner shows its frame number; see ``idle_number``."""
    side = TINY_SIDE
    y, x = np.mgrid[0:side, 0:side]
    pictures = np.empty((frames, side, side, 3), np.uint8)
    for index in range(frames):
        sway = 4 * np.sin(2 * np.pi * index / frames)
        shade = 110 + 60 * np.exp(-(((x - side / 2 - sway) / 30) ** 2 + ((y - side / 2) / 38) ** 2))
        pictures[index] = shade[..., None].astype(np.uint8)
        pictures[index, :16, :16] = index * _NUMBER_STEP
    pictures.flags.writeable = False
    landmarks = np.tile(np.array([[36, 40], [60, 40], [48, 54], [38, 68], [58, 68]], np.float32), (frames, 1, 1))
    boxes = np.tile(np.array([16, 88, 20, 76], np.float32), (frames, 1))
    return Avatar(
        name, "Tiny", (side, side), "CC0-1.0", "drawn by the tests", True, "", pictures, landmarks, boxes
    )  # fmt: skip


def tiny_clip(frames: int = 30, corner: int = 240, *, loop: bool = False, shift: float = 0.0) -> Clip:
    """A clip of ``tiny_avatar``: its top left corner has one shade, its face sits ``shift`` pixels further right."""
    rest = tiny_avatar(frames=1)
    move = np.array([[1, 0, shift], [0, 1, 0]], np.float32)
    picture = cv2.warpAffine(rest.frames[0], move, (TINY_SIDE, TINY_SIDE), borderMode=cv2.BORDER_REPLICATE)
    picture[:16, :16] = corner
    pictures = np.repeat(picture[None], frames, axis=0)
    landmarks = np.repeat(rest.landmarks + np.array([shift, 0], np.float32), frames, axis=0)
    return Clip(pictures, landmarks, np.repeat(rest.boxes, frames, axis=0), loop)


def idle_number(image: np.ndarray) -> int:
    """Which idle picture of ``tiny_avatar`` an image is made of."""
    return round(float(image[2:14, 2:14].mean()) / _NUMBER_STEP)


def mouth_height(image: np.ndarray) -> int:
    """Rows of the mouth that ``FakeLipSync`` drew, 0 to 24."""
    y1, y2, x1, x2 = _MOUTH_BOX
    return int((image[y1:y2, (x1 + x2) // 2].max(axis=-1) == 0).sum())


@dataclass
class FakePrepared:
    """What ``FakeLipSync.prepare`` returns."""

    avatar: Avatar


@dataclass
class FakeLipSync:
    """Draws a black bar as tall as the middle of its window is loud.

    Attributes:
        compute_s: real time one prediction takes, seconds.
        gate: when set, predictions wait until it is opened.
        failing: predictions raise RuntimeError while True.
    """

    compute_s: float = 0.0
    gate: threading.Event | None = None
    failing: bool = False
    crop_size: int = 32
    window: MelWindow = field(default_factory=lambda: MelWindow(columns=8, offset=-2))
    prepared: int = 0
    predicted: int = 0
    threads: set[str] = field(default_factory=set)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    async def first_begun(self) -> None:
        """Returns once a prediction has begun."""
        await asyncio.to_thread(self.begun.acquire, timeout=10)

    def prepare(self, avatar: Avatar) -> FakePrepared:
        self.prepared += 1
        return FakePrepared(avatar)

    def predict(self, jobs: Sequence[LipJob]) -> list[FacePatch]:
        self.threads.add(threading.current_thread().name)
        self.begun.release()
        if self.gate is not None:
            self.gate.wait(10)
        if self.compute_s:
            time.sleep(self.compute_s)
        if self.failing:
            raise RuntimeError("the fake model was told to fail")
        self.predicted += len(jobs)
        return [self._patch(job) for job in jobs]

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        pass

    @staticmethod
    def _patch(job: LipJob) -> FacePatch:
        # Column 2 + 1.6 is the middle of the 40 ms frame.
        loudness = float(np.clip((job.mel[:, 3:5].max() + 4) / 8, 0, 1)) * job.strength
        y1, y2, x1, x2 = _MOUTH_BOX
        crop = job.prepared.avatar.picture(job.frame_index)[y1:y2, x1:x2].copy()
        crop[: round(loudness * (y2 - y1))] = 0
        mouth = np.zeros(len(MOUTH_SHAPES), np.float32)
        mouth[0] = loudness
        return FacePatch(crop, _MOUTH_BOX, np.full(crop.shape[:2], 255, np.uint8), mouth)


RESTORED_SHADE = 5
"""Grey levels by which ``FakeRestorer`` brightens an avatar's own pictures."""


@dataclass
class FakeRestorer:
    """Draws a white line across the mouth's box whose height says the level, and counts pictures in its trace.

    Attributes:
        compute_s: real time of one picture, seconds; a reused one at level 2 takes none.
        avatar_gate: when set, avatars wait until it is opened.
        failing: everything raises RuntimeError while True.
        levels: of all restored pictures, in order.
        traces: what each of them began with.
    """

    compute_s: float = 0.0
    avatar_gate: threading.Event | None = None
    failing: bool = False
    levels: list[int] = field(default_factory=list)
    traces: list[object | None] = field(default_factory=list)
    avatars: int = 0

    def restore(self, jobs: Sequence[RestoreJob]) -> list[Restored]:
        return [self._restore(job) for job in jobs]

    def restore_avatar(self, avatar: Avatar, progress: Progress | None = None) -> Avatar:
        self.avatars += 1
        if self.failing:
            raise RuntimeError("the fake restorer was told to fail")
        if self.avatar_gate is not None:
            while not self.avatar_gate.wait(0.01):
                if progress is not None:
                    progress(0, len(avatar.frames))
        frames = avatar.frames.copy()
        frames[:, 20:] += RESTORED_SHADE
        return dataclasses.replace(avatar, frames=frames)

    def warmup(self, batch_sizes: Sequence[int]) -> None:
        pass

    def _restore(self, job: RestoreJob) -> Restored:
        if self.failing:
            raise RuntimeError("the fake restorer was told to fail")
        count = job.trace if isinstance(job.trace, int) else 0
        if self.compute_s and (job.level > LIVE_LEVEL or count % 2 == 0):
            time.sleep(self.compute_s)
        self.levels.append(job.level)
        self.traces.append(job.trace)
        image = job.image.copy()
        y1, _, x1, x2 = job.box
        image[y1 : y1 + job.level, x1:x2] = 255
        return Restored(image, count + 1)


def restored_level(image: np.ndarray) -> int:
    """The level at which ``FakeRestorer`` restored a picture; 0 when it did not."""
    y1, _, x1, x2 = _MOUTH_BOX
    return int((image[y1 : y1 + 6, (x1 + x2) // 2].min(axis=-1) == 255).sum())


class VirtualRenderer:
    """A renderer with one worker that takes ``compute_s`` of virtual time per picture; earliest deadline first."""

    def __init__(self, lipsync: FakeLipSync, time_source: VirtualTime, compute_s: float = 0.0) -> None:
        self.lipsync = lipsync
        self.restoring = None
        self.metrics = EngineMetrics()
        self.compute_s = compute_s
        self.submitted: list[PictureJob] = []
        self.priorities: set[int] = set()
        self._time = time_source
        self._queue: list[tuple[float, int, Rendering]] = []
        self._order = itertools.count()
        self._busy = False

    async def prepare(self, avatar: Avatar) -> FakePrepared:
        return self.lipsync.prepare(avatar)

    def submit(
        self, job: PictureJob, deadline_s: float, owner: object = None, session: object = None, priority: int = 5
    ) -> Rendering:
        rendering = Rendering(job, asyncio.get_running_loop().create_future())
        self.submitted.append(job)
        self.priorities.add(priority)
        heapq.heappush(self._queue, (deadline_s, next(self._order), rendering))
        self._next()
        return rendering

    def _next(self) -> None:
        while self._queue and not self._busy:
            _, _, rendering = heapq.heappop(self._queue)
            if rendering.begin():
                self._busy = True
                self._time.call_at(self._time.now_s() + self.compute_s, functools.partial(self._finish, rendering))

    def _finish(self, rendering: Rendering) -> None:
        self._busy = False
        if not rendering.result.done():
            try:
                rendering.result.set_result(render_now(self.lipsync, rendering.job))
            except RuntimeError as error:
                failure = BackendFailed("render_failed", "The lip-sync model failed on a picture.")
                failure.__cause__ = error
                rendering.result.set_exception(failure)
        self._next()


@dataclass
class FakeVoice:
    """Says one piece per sentence: 100 ms of swelling noise per word, at 16 kHz.

    Attributes:
        delay_s: virtual time before each piece.
        time_source: whose time ``delay_s`` is.
        failing: raises after the first piece.
        broken: raises at once.
        speaking: how many texts are being spoken now.
    """

    delay_s: float = 0.0
    time_source: VirtualTime | None = None
    failing: bool = False
    broken: bool = False
    speaking: int = 0
    spoken: list[str] = field(default_factory=list)

    async def speak(self, text: str) -> AsyncIterator[SpeechPiece]:
        self.speaking += 1
        try:
            for index, sentence in enumerate(part.strip() for part in text.split(".") if part.strip()):
                if self.time_source is not None and self.delay_s:
                    await self.time_source.sleep(self.delay_s)
                if self.broken or (self.failing and index):
                    raise BackendFailed("voice_failed", "The fake voice was told to fail.")
                words = sentence.split()
                spoken = [Word(word, 100 * at, 100 * at + 90) for at, word in enumerate(words)]
                self.spoken.append(sentence)
                yield SpeechPiece(babble(0.1 * len(words))[::3].copy(), 16_000, sentence, spoken)
        finally:
            self.speaking -= 1

    async def aclose(self) -> None:
        pass


class FakeVad:
    """Takes loud for speech."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> list[float]:
        self._rest = np.concatenate([self._rest, samples])
        count = len(self._rest) // 512
        blocks, self._rest = self._rest[: count * 512].reshape(count, 512), self._rest[count * 512 :]
        return [1.0 if np.abs(block).max() > 0.05 else 0.0 for block in blocks]

    def reset(self) -> None:
        self._rest = np.zeros(0, np.float32)


@dataclass(eq=False)
class FakeListening:
    """One turn that a ``FakeRecogniser`` hears."""

    recogniser: FakeRecogniser
    text: str
    samples: int = 0
    cancelled: bool = False
    finished: bool = False

    def push(self, samples: np.ndarray) -> None:
        self.samples += len(samples)

    async def partial(self) -> Transcript | None:
        return Transcript(self.text, False) if self.recogniser.partials and self.text else None

    async def finish(self) -> Transcript:
        await self.recogniser.time_source.sleep(self.recogniser.delay_s)
        if self.recogniser.failing:
            raise BackendFailed("asr_failed", "The fake recogniser was told to fail.")
        self.finished = True
        return Transcript("" if self.recogniser.doubts else self.text, True)

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeRecogniser:
    """Hears the texts it was given, one a turn, however long the speech; then nothing.

    Attributes:
        texts: what is heard.
        partials: tells the text while it is being spoken.
        doubts: tells it then, and in the end takes it for no words.
        delay_s: virtual time that ``finish`` takes.
        turns: everything that was listened to.
    """

    time_source: VirtualTime
    texts: list[str] = field(default_factory=list)
    partials: bool = True
    doubts: bool = False
    delay_s: float = 0.1
    failing: bool = False
    turns: list[FakeListening] = field(default_factory=list)

    def listen(self) -> FakeListening:
        text = self.texts[len(self.turns)] if len(self.turns) < len(self.texts) else ""
        self.turns.append(FakeListening(self, text))
        return self.turns[-1]

    async def aclose(self) -> None:
        pass


@dataclass
class FakeModel:
    """Answers with the texts it was given, one a turn, word by word.

    Attributes:
        delay_s: virtual time before the first word.
        asked: what it was asked, messages and all.
        open: answers that are being made.
        fails_after: words after which it fails; None: never.
    """

    time_source: VirtualTime
    texts: list[str] = field(default_factory=list)
    delay_s: float = 0.1
    asked: list[list[Message]] = field(default_factory=list)
    open: int = 0
    fails_after: int | None = None

    async def reply(self, messages: Sequence[Message], *, temperature: float | None = None) -> AsyncGenerator[str]:
        self.open += 1
        self.asked.append(list(messages))
        try:
            await self.time_source.sleep(self.delay_s)
            text = self.texts[min(len(self.asked), len(self.texts)) - 1] if self.texts else ""
            for index, word in enumerate(text.split()):
                if index == self.fails_after:
                    break
                yield word + " "
            if self.fails_after is not None:
                raise BackendFailed("service_failed", "The fake model was told to fail.")
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        pass


class VirtualTime:
    """A time source that stands still until a test moves it."""

    # Turns of the loop after which nothing is left to happen at one instant; queues and events settle in a few.
    _TURNS = 30

    def __init__(self, now_s: float = 1000.0) -> None:
        self._now_s = now_s
        self._calls: list[tuple[float, int, _VirtualTimer]] = []
        self._order = itertools.count()

    def now_s(self) -> float:
        return self._now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> _VirtualTimer:
        timer = _VirtualTimer(callback)
        heapq.heappush(self._calls, (when_s, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Waits in virtual time."""
        reached = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._now_s + seconds, lambda: None if reached.done() else reached.set_result(None))
        try:
            await reached
        finally:
            timer.cancel()

    async def settle(self) -> None:
        """Lets everything happen that can happen now."""
        for _ in range(self._TURNS):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Moves time on, stopping at every timer on the way."""
        end_s = self._now_s + seconds
        await self.settle()
        while self._calls and self._calls[0][0] <= end_s + 1e-9:
            when_s, _, timer = heapq.heappop(self._calls)
            if timer.cancelled:
                continue
            self._now_s = max(self._now_s, when_s)
            timer.callback()
            await self.settle()
        self._now_s = end_s
        await self.settle()

    def jump(self, seconds: float) -> None:
        """Moves time without anybody noticing, as a stalled machine does."""
        self._now_s += seconds


class _VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def tone(duration_s: float, *, frequency_hz: float = 300.0, amplitude: float = 0.5) -> np.ndarray:
    """A sine as playout sound: (n,) int16 mono at 48 kHz."""
    t = np.arange(round(duration_s * PLAYOUT_RATE)) / PLAYOUT_RATE
    return (amplitude * 32767 * np.sin(2 * np.pi * frequency_hz * t)).astype(np.int16)


def silence(duration_s: float) -> np.ndarray:
    """Digital silence as playout sound: (n,) int16 mono at 48 kHz."""
    return np.zeros(round(duration_s * PLAYOUT_RATE), np.int16)


def babble(duration_s: float, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades about four times a second, as syllables do: (n,) int16 mono at 48 kHz."""
    rng = np.random.default_rng(seed)
    count = round(duration_s * PLAYOUT_RATE)
    t = np.arange(count) / PLAYOUT_RATE
    return (rng.normal(0, 4000, count) * np.sin(np.pi * 4 * t) ** 2).clip(-32768, 32767).astype(np.int16)


def is_silent(audio: np.ndarray) -> bool:
    """True for digital silence."""
    return not audio.any()


def frame_count(samples: np.ndarray) -> int:
    """Frames that a sound fills."""
    return -(-len(samples) // FRAME_SAMPLES)
