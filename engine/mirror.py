"""The microphone as the voice of the avatar: what a person says is spoken back while nothing else is.

Place in the flow: microphone -> Mirror -> background of the playlist.

Invariants: what is queued has precedence, and takes the microphone's sound away; it comes back when that has ended.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.playlist import Playlist
from engine.speech import Speech


class Mirror:
    """The mirror of one session.

    Args:
        open_speech: makes a live utterance.

    Attributes:
        playlist: where it plays; None before the session is started.
    """

    def __init__(self, open_speech: Callable[[], Speech]) -> None:
        self.playlist: Playlist | None = None
        self._open_speech = open_speech
        self._speech: Speech | None = None

    def hear(self, samples: np.ndarray) -> None:
        """Takes (n,) int16 mono at 48 kHz, any n; never blocks."""
        if self.playlist is None:
            return
        if self._speech is None or self._speech.closed:
            if len(self.playlist):
                return
            self._speech = self._open_speech()
            self.playlist.set_background(self._speech)
        self._speech.push(samples)

    def stop(self) -> None:
        """Speaks nothing back any more. Idempotent."""
        if self._speech is not None:
            self._speech = None
            if self.playlist is not None:
                self.playlist.set_background(None)
