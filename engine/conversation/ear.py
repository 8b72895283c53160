"""What a dialogue hears with: the microphone's sound for voice activity and, while somebody speaks, the recogniser.

Place in the flow: microphone (48 kHz) -> Ear -> probabilities of speech -> turns; Listening -> words.

Invariants:
    * sound that is nothing but the avatar's own voice is no speech, whatever voice activity says;
    * the recogniser gets every sample once, in order, from a little before it was asked to listen;
    * at most one Listening is open here; whoever takes it has to finish or cancel it.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from engine.audio.pcm import Decimator
from engine.conversation.asr.base import Listening, Recogniser
from engine.conversation.echo import EchoGuard
from engine.conversation.roles import VoiceActivity
from engine.types import ANALYSIS_RATE

PREROLL_S = 0.8
"""Sound the recogniser is given from before speech was noticed: that takes 0.2 s, and words begin softly."""
PLAYED_FRAMES = 50
"""What was played is kept so long for a microphone that is opened: 2 s, more than any echo takes."""


class Ear:
    """The ear of one dialogue.

    Args:
        vad: voice activity, of this ear alone; None for one that is deaf.
        recogniser: speech to words, of this ear alone. None for one that is deaf.
    """

    def __init__(self, vad: VoiceActivity | None, recogniser: Recogniser | None) -> None:
        self._vad = vad
        self._recogniser = recogniser
        self._decimator = Decimator()
        self._guard = EchoGuard()
        self._played = Decimator()
        self._unheeded: deque[np.ndarray] = deque(maxlen=PLAYED_FRAMES)
        self._recent: deque[np.ndarray] = deque()
        self._listening: Listening | None = None
        self._text = ""

    def hear(self, samples: np.ndarray) -> list[float]:
        """Takes (n,) int16 mono at 48 kHz, any n; returns the probability of speech in each 32 ms block now full."""
        if self._vad is None or self._recogniser is None:
            return []
        sound = self._decimator.push(samples)
        self._recent.append(sound)
        while sum(map(len, self._recent)) - len(self._recent[0]) > PREROLL_S * ANALYSIS_RATE:
            self._recent.popleft()
        if self._listening is not None:
            self._listening.push(sound)
        while self._unheeded:
            self._guard.played(self._played.push(self._unheeded.popleft()))
        echoes = self._guard.heard(sound)
        return [0.0 if echo else probability for probability, echo in zip(self._vad.push(sound), echoes, strict=True)]

    def played(self, audio: np.ndarray) -> None:
        """Takes one frame of what people hear of the avatar, silence too: (n,) int16 mono at 48 kHz."""
        if self._vad is not None:
            # Looked at when the microphone is heard: most of the time, in most sessions, none is open.
            self._unheeded.append(audio)

    def open(self, preroll_s: float = PREROLL_S) -> None:
        """Has the recogniser listen from now on, and from so long before, at most ``PREROLL_S``. Idempotent."""
        if self._listening is None and self._recogniser is not None:
            self._listening = self._recogniser.listen()
            self._text = ""
            before = np.concatenate([np.zeros(0, np.float32), *self._recent])
            self._listening.push(before[max(0, len(before) - round(preroll_s * ANALYSIS_RATE)) :])

    def take(self) -> Listening | None:
        """Hands over what was listened to, for its words; None when nothing was."""
        listening, self._listening = self._listening, None
        return listening

    def drop(self) -> None:
        """Forgets what is being listened to. Idempotent."""
        listening = self.take()
        if listening is not None:
            listening.cancel()

    def forget(self) -> None:
        """Forgets everything heard, as when the microphone goes to somebody else."""
        self.drop()
        if self._vad is not None:
            self._vad.reset()
        self._guard.forget_heard()
        self._recent.clear()

    @property
    def listens(self) -> bool:
        """Whether the recogniser listens."""
        return self._listening is not None

    @property
    def has_words(self) -> bool:
        """Whether there were words, at least two, of what is being listened to when ``partial`` was last asked."""
        return len(self._text.split()) > 1

    async def partial(self) -> str | None:
        """The words so far, when they are others than the last time; else None.

        Raises:
            BackendFailed: the recogniser failed.
        """
        listening = self._listening
        if listening is None:
            return None
        transcript = await listening.partial()
        if transcript is None or listening is not self._listening or transcript.text == self._text:
            return None
        self._text = transcript.text
        return transcript.text

    async def aclose(self) -> None:
        """Ends the recogniser. Idempotent."""
        if self._recogniser is not None:
            await self._recogniser.aclose()
