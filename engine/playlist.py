"""What a session is about to say: utterances in the order they were asked for, and the microphone behind them.

Place in the flow: session -> Playlist of Speech -> producer, which takes the frames of the current one.

Invariants:
    * utterances play one after the other; the background plays only while none of them can;
    * whatever may change what plays next is told through ``on_change``;
    * while it is held nothing plays, and nothing is lost or ended;
    * an utterance whose source has gone silent for longer than its patience is ended, so those behind it are heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from engine.speech import Speech
from engine.types import FPS


class Playlist:
    """The utterances of one session that were not played to their end.

    Args:
        on_change: called when what plays next may have changed.

    Attributes:
        background: an endless utterance that plays whenever nothing is queued, or None.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.background: Speech | None = None
        self._held = False
        # The last utterance that was there when it was held.
        self._held_after = 0
        self._on_change = on_change
        self._queue: deque[Speech] = deque()
        # Which utterance starves, at how much sound, and for how many frames.
        self._starving: tuple[int, int] = (0, 0)
        self._starving_frames = 0

    def __len__(self) -> int:
        """Utterances that wait or play, the background not counted."""
        self._forget_finished()
        return len(self._queue)

    def __iter__(self) -> Iterator[Speech]:
        """Every utterance, the background last."""
        self._forget_finished()
        yield from self._queue
        if self.background is not None:
            yield self.background

    @property
    def backlog_ms(self) -> int:
        """Sound that waits to be played, milliseconds."""
        return sum(speech.ahead_ms for speech in self)

    @property
    def held(self) -> bool:
        """Whether nothing plays until it is released; clearing releases it."""
        return self._held

    @held.setter
    def held(self, held: bool) -> None:
        if held and not self._held:
            self._held_after = max((speech.utterance_id for speech in self), default=0)
        self._held = held
        self._on_change()

    @property
    def newcomers(self) -> list[Speech]:
        """Utterances that were asked for while it is held."""
        return [speech for speech in self._queue if speech.utterance_id > self._held_after] if self._held else []

    def add(self, speech: Speech) -> None:
        """Plays an utterance after those already queued."""
        speech.on_change = self._on_change
        self._queue.append(speech)
        self._on_change()

    def set_background(self, speech: Speech | None) -> None:
        """Replaces the background; the one before is aborted, as it is when something queued begins."""
        if self.background is not None:
            self.background.abort()
        self.background = speech
        if speech is not None:
            speech.on_change = self._on_change
        self._on_change()

    def current(self) -> Speech | None:
        """The utterance the next frame belongs to."""
        if self._held:
            return None
        self._forget_finished()
        if self._queue and (self._queue[0].started or self._queue[0].frames_ready):
            if self.background is not None:
                self.set_background(None)
            return self._queue[0]
        return self.background

    def end_starved(self) -> Speech | None:
        """Ends the first utterance once its source was silent for its ``patience_s``; call once a frame.

        Time is counted in frames, so a machine that stood still costs nobody their stream. What was pushed plays to
        its end.

        Returns:
            The utterance that was ended.
        """
        self._forget_finished()
        first = self._queue[0] if self._queue else None
        if first is None or first.patience_s is None or first.frames_ready or self._held:
            self._starving_frames = 0
            return None
        starving = (first.utterance_id, first.total_samples)
        self._starving_frames = self._starving_frames + 1 if starving == self._starving else 1
        self._starving = starving
        if self._starving_frames < first.patience_s * FPS:
            return None
        first.end()
        return first

    def clear(self, keep: Collection[Speech] = ()) -> None:
        """Aborts and forgets everything but ``keep``, and plays on."""
        for speech in list(self):
            if speech not in keep:
                speech.abort()
        self._queue = deque(speech for speech in self._queue if speech in keep)
        if self.background not in keep:
            self.background = None
        self._held = False
        self._on_change()

    def _forget_finished(self) -> None:
        while self._queue and self._queue[0].finished:
            self._queue.popleft()
