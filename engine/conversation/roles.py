"""Who takes part in a dialogue, as far as the dialogue needs them: its session, its ears, its splitter of sentences.

Place in the flow: ``engine.conversation.dialogue`` is written against these; the session and the providers fit them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from engine.clock import FrameClock
from engine.reply import Reply


class VoiceActivity(Protocol):
    """Tells speech from everything else."""

    def push(self, samples: np.ndarray) -> list[float]:
        """(n,) float32 at 16 kHz -> the probability of speech in each 32 ms that are complete by now."""
        ...

    def reset(self) -> None:
        """Forgets everything heard."""
        ...


class SentenceSplitter(Protocol):
    """Cuts a growing text into sentences."""

    def feed(self, delta: str) -> list[str]:
        """Takes more text; returns the speakable sentences that are complete by now."""
        ...

    def flush(self) -> list[str]:
        """The rest, at the end of the text."""
        ...


class Speaker(Protocol):
    """The session."""

    clock: FrameClock
    """When frames are due."""

    def open_reply(self) -> Reply:
        """Queues a reply whose sentences are added while it is heard."""
        ...

    def pause(self) -> None:
        """Silence, everything kept as it is."""
        ...

    def resume(self) -> None:
        """Goes on where ``pause`` stopped."""
        ...

    def duck(self, level: float) -> None:
        """Speaks at another level, 0 to 1."""
        ...

    async def cut_off(self, reply: Reply | None = None) -> None:
        """Drops a reply, or everything but what was asked for since ``pause``; at once, before the first wait."""
        ...

    def set_listening(self, on: bool) -> None:
        """Whether the person has the floor."""
        ...

    def tell(self, kind: str, **data: object) -> None:
        """Publishes an event."""
        ...
