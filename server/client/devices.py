"""This machine's microphone and loudspeaker, through sounddevice.

Place in the flow: microphone -> ``TalkingHead.hear``; ``TalkingHead.audio`` -> loudspeaker.

Invariants: PortAudio's threads only copy; what they hand over is done on the event loop. The loudspeaker is never more
than ``MAX_BUFFERED_S`` behind.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine.errors import BackendFailed
from engine.types import CHUNK_SAMPLES, PLAYOUT_RATE
from server.client.head import TalkingHead

START_S = 0.06
"""Sound that is gathered before it begins to play, so that a late packet is not a gap."""
MAX_BUFFERED_S = 0.4


@contextmanager
def microphone(head: TalkingHead) -> Iterator[None]:
    """Sends what the microphone hears, as long as it lasts.

    Raises:
        BackendFailed: ``sound_device_missing``.
    """
    loop = asyncio.get_running_loop()

    def heard(block: Any, _count: int, _time: Any, _status: Any) -> None:
        loop.call_soon_threadsafe(head.hear, np.array(block[:, 0], np.int16))

    with _open("InputStream", "microphone", heard):
        yield


class Loudspeaker:
    """Plays an avatar's sound. A context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = np.zeros(0, np.int16)
        self._playing = False

    def put(self, samples: np.ndarray) -> None:
        """Appends (n,) int16 mono at 48 kHz; drops the oldest when it falls behind."""
        with self._lock:
            self._waiting = np.concatenate([self._waiting, samples])[-round(MAX_BUFFERED_S * PLAYOUT_RATE) :]

    def take(self, count: int) -> np.ndarray:
        """The next samples to play; silence while too little has come."""
        with self._lock:
            if not self._playing and len(self._waiting) < START_S * PLAYOUT_RATE:
                return np.zeros(count, np.int16)
            played = np.zeros(count, np.int16)
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            self._playing = len(taken) == count
            played[: len(taken)] = taken
            return played

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Plays as long as it lasts.

        Raises:
            BackendFailed: ``sound_device_missing``.
        """

        def wanted(block: Any, count: int, _time: Any, _status: Any) -> None:
            block[:, 0] = self.take(count)

        with _open("OutputStream", "loudspeaker", wanted):
            yield


def _open(kind: str, name: str, callback: Any) -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise BackendFailed(
            "sound_device_missing",
            "Sound devices need the package sounddevice and the library PortAudio (on Debian libportaudio2).",
        ) from error
    try:
        return getattr(sounddevice, kind)(
            samplerate=PLAYOUT_RATE, channels=1, dtype="int16", blocksize=CHUNK_SAMPLES, callback=callback
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise BackendFailed(
            "sound_device_missing",
            f"There is no {name} that can be used ({error}). In a terminal, --silent and no --mic do without.",
        ) from error
