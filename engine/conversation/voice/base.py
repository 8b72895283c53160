"""What every change of a voice is to the rest of Visavis: speech in, the same speech in another voice out.

Place in the flow: Voice -> SpeechPiece -> VoiceStream -> playout resampling -> Speech; whole files take the same way.

Invariants:
    * what comes out is as long as what went in, to the sample, and each sound keeps its place within
      ``MAX_SHIFT_MS``, so that lips and captions, made before or after, fit;
    * at most ``VoiceStream.delay_s`` of sound is held back, and all of it comes with ``flush``;
    * the work is done on threads, so frames go on while a voice is changed; cancelling gives up what is awaited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from engine.errors import InvalidInput

Device = Literal["auto", "cpu", "gpu"]
"""What other people's voices are computed on; auto is a GPU where one can be used, else the CPU."""

MAX_SEMITONES = 12.0
"""Pitch and formants move by an octave at most."""

MAX_SHIFT_MS = 8.0
"""How far a sound may be moved to join two blocks: less than a frame of video is long, by far."""


@dataclass(frozen=True, slots=True)
class VoiceChange:
    """How a voice is to be changed.

    Attributes:
        pitch: semitones; 12 is an octave higher.
        formant: semitones by which the resonances of the throat move; up is a smaller person.
        conversion: name of the weights of another person's voice; empty for none.

    Raises:
        InvalidInput: ``voice_change_invalid``.
    """

    pitch: float = 0.0
    formant: float = 0.0
    conversion: str = ""

    def __post_init__(self) -> None:
        for semitones in (self.pitch, self.formant):
            # What is not a number lies nowhere.
            if not -MAX_SEMITONES <= semitones <= MAX_SEMITONES:
                raise InvalidInput(
                    "voice_change_invalid",
                    f"Pitch and formants move by semitones from {-MAX_SEMITONES:g} to {MAX_SEMITONES:g}.",
                )

    @property
    def changes(self) -> bool:
        """Whether anything is to be changed."""
        return bool(self.pitch or self.formant or self.conversion)


class VoiceStream(Protocol):
    """One sound on its way through a stage; for one caller, and for nothing more once it failed or was cancelled."""

    delay_s: float
    """The most sound that is held back, seconds."""

    async def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes sound and returns what is certain by now.

        Args:
            samples: (n,) int16 mono, any n.

        Returns:
            (m,) int16, the next of the changed sound; m may be 0.

        Raises:
            BackendFailed: the stage cannot do it.
        """
        ...

    async def flush(self) -> np.ndarray:
        """The rest, (m,) int16: in all as many samples came out as went in. A new sound may be pushed afterwards."""
        ...


class VoiceStage(Protocol):
    """Changes a voice; shared by everything that wants the same change."""

    def open(self, sample_rate: int, *, live: bool = True) -> VoiceStream:
        """Begins a sound.

        Args:
            sample_rate: of what goes in and what comes out, Hz.
            live: somebody waits for it; else it is a whole file, and quality comes before delay.
        """
        ...


class Conversion(Protocol):
    """Another person's voice, loaded."""

    def moved(self, pitch: float) -> VoiceStage:
        """Speaks in that voice.

        Args:
            pitch: semitones from the pitch of what is spoken; the voice keeps its own resonances.
        """
        ...
