"""The sound of one PCM socket that was read and not handed over yet.

Place in the flow: reader of ``pcm_socket`` -> ``Backlog`` -> its pusher.

Invariants:
    * it never waits to take sound in: what does not fit is refused, so whoever reads can go on reading;
    * it is bounded in bytes however small the messages are, and in utterances;
    * order is kept, and an utterance's end survives when its sound is dropped, because somebody waits for the answer.
"""

from __future__ import annotations

import asyncio
from collections import deque

from engine.errors import Busy

MAX_UTTERANCES = 64
"""Ends that may wait; an utterance can be empty, so bytes alone bound nothing."""


class Backlog:
    """Bytes and the ends of utterances, in order. One writer, one reader."""

    def __init__(self, limit_bytes: int) -> None:
        """Args: limit_bytes: sound that may wait."""
        self.limit_bytes = limit_bytes
        self._size = 0
        # One buffer an utterance; every one but the last has ended.
        self._utterances: deque[bytearray] = deque([bytearray()])
        self._finished = False
        self._changed = asyncio.Event()

    def put(self, data: bytes) -> bool:
        """Appends sound to the current utterance; False, and nothing is kept, when it does not fit."""
        if self._size + len(data) > self.limit_bytes:
            return False
        self._utterances[-1] += data
        self._size += len(data)
        self._changed.set()
        return True

    def end(self) -> None:
        """Ends the current utterance.

        Raises:
            Busy: ``pcm_overflow``, too many are waiting.
        """
        if len(self._utterances) > MAX_UTTERANCES:
            raise Busy("pcm_overflow", f"More than {MAX_UTTERANCES} utterances are waiting; wait for their ends.")
        self._utterances.append(bytearray())
        self._changed.set()

    def finish(self) -> None:
        """Nothing more will come."""
        self._finished = True
        self._changed.set()

    def drop_sound(self) -> None:
        """Forgets all sound; the ends stay."""
        for utterance in self._utterances:
            utterance.clear()
        self._size = 0

    async def wait(self) -> bool:
        """Returns when there is sound or an end to take; False when nothing is left and nothing will come."""
        while not self._utterances[0] and len(self._utterances) == 1:
            if self._finished:
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    def take(self, limit_bytes: int) -> bytes:
        """Takes the oldest sound, at most so many bytes; nothing when the oldest utterance has none left."""
        oldest = self._utterances[0]
        data = bytes(oldest[:limit_bytes])
        del oldest[:limit_bytes]
        self._size -= len(data)
        return data

    def take_end(self) -> None:
        """Takes the oldest end; ask ``take`` first, which returns nothing there."""
        self._utterances.popleft()
