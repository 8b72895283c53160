"""One utterance on its way to the lips: its sound, the captions that belong to it, and how much of it was heard.

Place in the flow: voice, file, stream or microphone -> Speech -> producer.

Invariants:
    * frames come out in order, each with its 40 ms of sound; none is lost unless the speech is live;
    * no more than ``AHEAD_S`` of sound waits here (``LIVE_AHEAD_FRAMES`` when live);
    * after ``abort`` no frame comes out and whoever still has sound for it is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.audio.window import MelWindow, RollingWindows
from engine.conversation.tts.base import Word
from engine.errors import AudioInvalid, Closed
from engine.types import FRAME_MS, FRAME_SAMPLES, PLAYOUT_RATE

AHEAD_S = 20.0
"""Sound that may wait: a slow voice gets far enough ahead, and memory stays at a few megabytes."""
LIVE_AHEAD_FRAMES = 25
"""Frames of live sound that may wait, e.g. behind another utterance; what is older is of no use any more."""

_AHEAD_SAMPLES = int(AHEAD_S * PLAYOUT_RATE)
_BRIDGE_SAMPLES = PLAYOUT_RATE // 200


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence and when it sounds, from the start of its utterance.

    Attributes:
        text: what is said.
        start_ms, end_ms: when.
        words: with times from the start of the utterance; empty when the voice does not tell.
    """

    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...] = ()


Taken = tuple[int, np.ndarray, np.ndarray]
"""A frame that was taken: (index, mel (80, columns) float32, audio (1920,) int16)."""


class Speech:
    """The sound of one utterance, pushed by its source, taken frame by frame by the producer.

    Args:
        utterance_id: positive.
        window: the model's mel window.
        live: the sound is being made now, so delay matters more than completeness.
        label: what kind of source it has, for people.
        created_s: when it was asked for, monotonic seconds.

    Attributes:
        on_change: called when new sound, an end or an abort may change what the producer does next.
        patience_s: how long its source may leave listeners without sound before it is ended; None: for ever.
    """

    def __init__(
        self, utterance_id: int, window: MelWindow, *, live: bool = False, label: str = "", created_s: float = 0.0
    ) -> None:
        self.utterance_id = utterance_id
        self.label = label
        self.live = live
        self.created_s = created_s
        self.on_change: Callable[[], None] = lambda: None
        self.patience_s: float | None = None
        self._heard_frames = 0
        # By how much the last frame heard is shorter than a frame; only the very last one can be.
        self._heard_short_samples = 0
        self._windows = RollingWindows(window)
        self._captions: deque[Caption] = deque()
        self._aborted = False
        self._bridge_from: np.ndarray | None = None
        self._put_back: deque[Taken] = deque()
        self._room: asyncio.Event = asyncio.Event()

    @property
    def started(self) -> bool:
        """True once a frame was taken."""
        return self._windows.index > 0

    @property
    def closed(self) -> bool:
        """True once no more sound can be pushed."""
        return self._aborted or self._windows.ended

    @property
    def finished(self) -> bool:
        """True once no frame will come any more."""
        return self._aborted or (self._windows.ended and self.frames_ready <= 0)

    @property
    def played_out(self) -> bool:
        """True once its last frame left the producer, or none will."""
        return self._aborted or (self.finished and self.heard_samples >= self.total_samples)

    @property
    def frames_ready(self) -> int:
        """Frames that can be taken now."""
        return 0 if self._aborted else len(self._put_back) + max(0, self._windows.frames_ready)

    @property
    def total_samples(self) -> int:
        """Sound pushed so far, 48 kHz samples."""
        return self._windows.total_samples

    @property
    def taken_samples(self) -> int:
        """Sound taken by the producer or skipped, 48 kHz samples; whole frames."""
        return (self._windows.index - len(self._put_back)) * FRAME_SAMPLES

    @property
    def ahead_ms(self) -> int:
        """Sound that waits, milliseconds."""
        return max(0, self.total_samples - self.taken_samples) * 1000 // PLAYOUT_RATE

    def push(self, samples: np.ndarray) -> None:
        """Appends (n,) int16 mono 48 kHz without waiting; live sound that is too old makes room.

        Raises:
            Closed: after ``end`` or ``abort``.
        """
        if self.closed:
            raise Closed("utterance_closed", "This utterance has ended or was interrupted.")
        self._windows.push(samples)
        while self.live and self._windows.frames_ready > LIVE_AHEAD_FRAMES:
            self.skip()
        self.on_change()

    async def feed(self, samples: np.ndarray) -> None:
        """Appends (n,) int16 mono 48 kHz, any n, waiting while too much is ahead.

        Cancelling loses what was not appended yet.

        Raises:
            Closed: the utterance has ended or was aborted, before or during the wait.
        """
        start = 0
        while True:
            room = max(0, _AHEAD_SAMPLES - (self.total_samples - self.taken_samples))
            if self.closed or room or not len(samples):
                self.push(samples[start : start + room])
                start += room
                if start >= len(samples):
                    return
            self._room.clear()
            await self._room.wait()

    def caption(self, caption: Caption) -> None:
        """Adds the text of sound that is about to be pushed; in order."""
        self._captions.append(caption)

    def captions_until(self, time_ms: int) -> list[Caption]:
        """Takes the captions that start before ``time_ms`` of the utterance."""
        due = []
        while self._captions and self._captions[0].start_ms < time_ms:
            due.append(self._captions.popleft())
        return due

    async def run_down(self, ahead_ms: int) -> None:
        """Waits until no more than ``ahead_ms`` of sound waits to be taken, or nothing can be pushed any more."""
        while not self.closed and self.ahead_ms > ahead_ms:
            self._room.clear()
            await self._room.wait()

    def put_back(self, taken: list[Taken]) -> None:
        """Takes back the last frames that were taken, in order; they come out again, as they were."""
        self._put_back.extendleft(reversed(taken))

    def next(self) -> Taken:
        """The next frame.

        Raises:
            IndexError: none is ready.
        """
        if self._put_back:
            self._room.set()
            return self._put_back.popleft()
        index, mel, audio = self._windows.next()
        if self._bridge_from is not None:
            # The ear expects what was skipped; fading from it into what follows leaves no click.
            fade = np.linspace(0, 1, _BRIDGE_SAMPLES, dtype=np.float32)
            expected = self._bridge_from.astype(np.float32)
            audio[:_BRIDGE_SAMPLES] = expected + (audio[:_BRIDGE_SAMPLES] - expected) * fade
            self._bridge_from = None
        self._room.set()
        return index, mel, audio

    def skip(self) -> None:
        """Drops the next frame, to catch up."""
        _, _, audio = self._put_back.popleft() if self._put_back else self._windows.next()
        if self._bridge_from is None:
            self._bridge_from = audio[:_BRIDGE_SAMPLES]
        self._room.set()

    def end(self) -> None:
        """No more sound will come; what is there plays to its end. Idempotent."""
        if not self.closed:
            self._windows.end()
            self._wake()

    def abort(self) -> None:
        """No frame will come out any more. Idempotent."""
        self._aborted = True
        self._captions.clear()
        self._wake()

    def heard(self, index: int) -> None:
        """Notes that frame ``index`` left the producer."""
        self._heard_frames += 1
        self._heard_short_samples = max(0, (index + 1) * FRAME_SAMPLES - self.total_samples)

    def retract(self, frames: int) -> None:
        """Notes that the last ``frames`` heard were silenced after all."""
        if frames:
            self._heard_frames -= frames
            self._heard_short_samples = 0

    @property
    def heard_samples(self) -> int:
        """Sound that left the producer, 48 kHz samples; frames that were skipped to catch up did not."""
        return self._heard_frames * FRAME_SAMPLES - self._heard_short_samples

    @property
    def heard_ms(self) -> int:
        """Sound that left the producer, milliseconds."""
        return self.heard_samples * 1000 // PLAYOUT_RATE

    @property
    def unheard_ms(self) -> int:
        """Sound that was pushed but did not leave the producer, milliseconds."""
        return (self.total_samples - self.heard_samples) * 1000 // PLAYOUT_RATE

    def _wake(self) -> None:
        self._room.set()
        self.on_change()


class SpeechStream:
    """Sound that arrives while it is played; from ``Session.open_stream``.

    Attributes:
        utterance_id: of everything pushed here.
    """

    def __init__(self, speech: Speech) -> None:
        self.utterance_id = speech.utterance_id
        self._speech = speech

    async def push(self, samples: np.ndarray) -> None:
        """Appends (n,) int16 mono 48 kHz, any n.

        A live stream never waits: what is too late to be played is dropped, so the delay stays small. Any other
        waits while much is ahead, so memory stays bounded and nothing is lost. Cancelling loses what was not
        appended yet.

        Raises:
            AudioInvalid: ``audio_format``, not int16 mono.
            Closed: the stream was ended or interrupted, or the session closed.
        """
        require_playout(samples)
        if self._speech.live:
            self._speech.push(samples)
        else:
            await self._speech.feed(samples)

    async def end(self) -> None:
        """No more sound will come; what is there plays to its end. Idempotent."""
        self._speech.end()


def require_playout(samples: np.ndarray) -> None:
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise AudioInvalid("audio_format", "Sound must be int16, mono, 48 kHz.")


class Catchup:
    """Tells how many live frames to skip, from how long frames have been waiting at least.

    A frame's slack is the time between its sound being there and the last moment it could be taken. Slack that
    never fell below a frame for half a second is delay that nobody needs.
    """

    WINDOW = 12
    SILENT_SLACK_MS = 55.0
    """From here on a silent frame is skipped: nobody hears it."""
    ANY_SLACK_MS = 110.0
    """From here on frames are skipped whatever they hold."""

    def __init__(self) -> None:
        self._slack_ms: deque[float] = deque(maxlen=self.WINDOW)

    def frames_to_skip(self, slack_ms: float, *, silent: bool) -> int:
        """Call once per frame taken.

        Args:
            slack_ms: of the frame about to be taken.
            silent: the frame about to be taken holds next to no sound.

        Returns:
            Frames to skip before taking one; 0 most of the time.
        """
        self._slack_ms.append(slack_ms)
        if len(self._slack_ms) < self.WINDOW:
            return 0
        least_ms = min(self._slack_ms)
        if least_ms < (self.SILENT_SLACK_MS if silent else self.ANY_SLACK_MS):
            return 0
        # What remains is half a frame, so that the next chunk may be a little late.
        self._slack_ms.clear()
        return 1 if least_ms < self.ANY_SLACK_MS else int((least_ms - FRAME_MS / 2) // FRAME_MS)
