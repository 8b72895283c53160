"""What one session may hold, what it refuses at the door, and how much it matters beside others.

Place in the flow: texts and sounds of callers -> SessionLimits -> session.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.conversation.tts.base import is_speakable
from engine.errors import AudioInvalid, TextInvalid
from engine.schedule import PRIORITY
from engine.speech import require_playout
from engine.types import PLAYOUT_RATE


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may hold.

    Attributes:
        text_chars: longest text of one ``say`` or ``ask``.
        queued: utterances waiting or playing; one more raises Busy.
        audio_s: longest sound of one ``play``, and of all that wait to be played together, seconds: whole sounds are
            held in memory, 96 kB a second.
        priority: 0 to 9; where time is short, sessions of the lowest one do without first.
    """

    text_chars: int = 2000
    queued: int = 16
    audio_s: float = 600.0
    priority: int = PRIORITY

    def require_text(self, text: str) -> None:
        """Raises TextInvalid: ``text_empty`` or ``text_too_long``."""
        if len(text) > self.text_chars:
            raise TextInvalid(
                "text_too_long",
                f"The text has {len(text)} characters; at most {self.text_chars} can be said at once.",
            )
        if not is_speakable(text):
            raise TextInvalid("text_empty", "There is no text to say; send words.")

    def require_sound(self, samples: np.ndarray) -> None:
        """Raises AudioInvalid: ``audio_format``, ``audio_empty`` or ``audio_too_long``."""
        require_playout(samples)
        if not len(samples):
            raise AudioInvalid("audio_empty", "The sound has no samples.")
        if len(samples) > self.audio_s * PLAYOUT_RATE:
            raise AudioInvalid("audio_too_long", f"The sound is longer than {self.audio_s:.0f} s.")
