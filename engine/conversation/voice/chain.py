"""Two changes of a voice, one after the other.

Place in the flow: another person's voice -> its formants moved.

Invariant: as of ``VoiceStage``; what is held back adds up.
"""

from __future__ import annotations

import numpy as np

from engine.conversation.voice.base import VoiceStage, VoiceStream


class Chain:
    """A ``VoiceStage`` of two.

    Args:
        first: takes what goes in.
        second: takes what comes out of the first.
    """

    def __init__(self, first: VoiceStage, second: VoiceStage) -> None:
        self._first = first
        self._second = second

    def open(self, sample_rate: int, *, live: bool = True) -> VoiceStream:
        """See ``VoiceStage.open``."""
        return _ChainStream(self._first.open(sample_rate, live=live), self._second.open(sample_rate, live=live))


class _ChainStream:
    """A ``VoiceStream`` through two."""

    def __init__(self, first: VoiceStream, second: VoiceStream) -> None:
        self.delay_s = first.delay_s + second.delay_s
        self._first = first
        self._second = second

    async def push(self, samples: np.ndarray) -> np.ndarray:
        """See ``VoiceStream.push``."""
        return await self._second.push(await self._first.push(samples))

    async def flush(self) -> np.ndarray:
        """See ``VoiceStream.flush``."""
        last = await self._second.push(await self._first.flush())
        return np.concatenate([last, await self._second.flush()])
