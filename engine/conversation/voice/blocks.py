"""Changes a stream of sound block by block, with what surrounds each block as context, and joins the blocks unheard.

Place in the flow: a stage that can only change whole sounds -> ``BlockStream`` -> ``VoiceStream``.

A block is changed together with some sound before and after it. Its pulses then lie anywhere within a period, so it is
moved until it fits the end of the block before, and faded into it (synchronised overlap-add: Roucos and Wilgus, 1985).

Invariants:
    * the result does not depend on how the sound was cut when it was pushed;
    * a block is placed anew from the clock of the sound each time, so what moves it never adds up;
    * work runs on threads that all streams of the process share, one block of a stream at a time; blocks of whole
      files have a thread of their own, so that nobody who is spoken to waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from engine.audio.pcm import INT16_SCALE, to_int16
from engine.conversation.voice.base import MAX_SHIFT_MS

Change = Callable[[np.ndarray], np.ndarray]
"""(n,) float32 in [-1, 1] -> (n,) float32, each sound where it was; called on any thread."""


def _step_back() -> None:
    """A thread that works for files leaves the processor to those that somebody waits for."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


_LIVE = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="voice-live")
_WHOLE = ThreadPoolExecutor(1, thread_name_prefix="voice-whole", initializer=_step_back)

_SHIFT_S = MAX_SHIFT_MS / 1000
_FADE_S = 0.012
# Of two places that fit equally well the nearer one is taken.
_NEARNESS = 0.05
_SILENCE = 1e-5


@dataclass(frozen=True, slots=True)
class Framing:
    """How a sound is cut, seconds.

    Attributes:
        first: length of the first block: short, because somebody waits for it.
        block: length of the others.
        before: context before a block.
        after: context after it, beyond what joining needs.
    """

    first: float
    block: float
    before: float
    after: float

    @property
    def delay_s(self) -> float:
        """The most sound that is held back."""
        return max(self.first, self.block) + self.after + _SHIFT_S + _FADE_S


class BlockStream:
    """A ``VoiceStream`` made of blocks.

    Args:
        change: changes a block and its context.
        sample_rate: Hz.
        framing: how to cut.
        live: somebody waits for it.
    """

    def __init__(self, change: Change, sample_rate: int, framing: Framing, *, live: bool) -> None:
        self._threads = _LIVE if live else _WHOLE
        self.delay_s = framing.delay_s
        self._change = change
        self._first, self._block, self._before, self._after = (
            round(seconds * sample_rate) for seconds in (framing.first, framing.block, framing.before, framing.after)
        )
        self._shift = round(_SHIFT_S * sample_rate)
        self._fade = round(_FADE_S * sample_rate)
        self._held = np.zeros(0, np.float32)  # context of the next block, and what waits
        self._past = 0  # samples of context at its start
        self._tail = np.zeros(0, np.float32)  # how the block before would have gone on

    async def push(self, samples: np.ndarray) -> np.ndarray:
        """See ``VoiceStream.push``."""
        self._held = np.concatenate([self._held, samples.astype(np.float32) / np.float32(INT16_SCALE)])
        out = []
        while self._waiting >= (size := self._next_block) + self._margin:
            out.append(await self._on_thread(size))
        return np.concatenate(out) if out else np.zeros(0, np.int16)

    async def flush(self) -> np.ndarray:
        """See ``VoiceStream.flush``."""
        out = []
        while self._waiting:
            size = min(self._waiting, self._next_block)
            out.append(await self._on_thread(size))
        self._restart()
        return np.concatenate(out) if out else np.zeros(0, np.int16)

    @property
    def _margin(self) -> int:
        return self._after + self._shift + self._fade

    @property
    def _next_block(self) -> int:
        return self._block if self._tail.size else self._first

    @property
    def _waiting(self) -> int:
        """Samples that came and were not made yet."""
        return self._held.size - self._past

    async def _on_thread(self, size: int) -> np.ndarray:
        """The next block; cancelling abandons it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._make, size)

    def _restart(self) -> None:
        self._held = self._tail = np.zeros(0, np.float32)
        self._past = 0

    def _make(self, size: int) -> np.ndarray:
        start = self._past
        end = start + size + self._margin
        block = self._held[:end]
        # After the end there is silence, and before the beginning too: shifting needs something to shift.
        block = np.pad(block, (self._shift, end - block.size))
        changed = self._change(block).astype(np.float32)
        start += self._shift
        shift, likeness = self._place(changed, start) if self._tail.size else (0, 0.0)
        made = changed[start + shift : start + shift + size + self._fade]
        fade = min(self._tail.size, size)
        if fade:
            rising = (np.arange(fade, dtype=np.float32) + 0.5) / self._fade
            falling = 1 - rising
            # What is alike adds up as it is; what is not, such as noise, would be quieter in the middle.
            level = np.sqrt(rising**2 + falling**2 + 2 * max(0.0, likeness) * rising * falling)
            made = made.copy()
            made[:fade] = (made[:fade] * rising + self._tail[:fade] * falling) / level
        self._tail = made[size:]
        forget = max(0, self._past + size - self._before)
        self._held = self._held[forget:]
        self._past = self._past + size - forget
        return to_int16(made[:size])

    def _place(self, changed: np.ndarray, start: int) -> tuple[int, float]:
        """By how many samples to move a block so that it goes on from the tail, and how alike they are, -1 to 1."""
        near = changed[start - self._shift : start + self._shift + self._fade].astype(np.float64)
        tail = self._tail.astype(np.float64)
        energy = np.convolve(near**2, np.ones(tail.size), "valid")
        floor = _SILENCE**2 * tail.size
        if tail @ tail <= floor:
            return 0, 0.0
        likeness = np.correlate(near, tail, "valid") / np.sqrt(np.maximum(energy, floor) * (tail @ tail))
        shifts = np.arange(-self._shift, self._shift + 1)
        best = int(np.argmax(likeness - _NEARNESS * np.abs(shifts) / self._shift))
        return int(shifts[best]), float(likeness[best])
