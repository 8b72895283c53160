"""How patient and how polite taking turns is: the limits of a TurnTaker.

Place in the flow: configuration -> ``TurnOptions`` -> TurnTaker.

Invariants:
    * limits that contradict each other are refused, so the state machine need not know about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.conversation.backchannel import Completeness
from engine.errors import ConfigInvalid

Mode = Literal["always", "push_to_talk", "typed"]

# Voice activity tells the end of a voice 0.15 s late, so people have been silent for that much longer. Ending a turn
# too early costs little: an answer of which nothing was heard yet is withdrawn when they go on.
_SILENCES_S: Mapping[Completeness, float] = {
    Completeness.COMPLETE: 0.25,
    Completeness.LIKELY: 0.30,
    Completeness.UNKNOWN: 0.65,
    Completeness.INCOMPLETE: 1.05,
}


@dataclass(frozen=True, slots=True)
class TurnOptions:
    """Limits of taking turns; times in seconds, rounded to whole blocks where voice is counted.

    Attributes:
        mode: ``always`` listens, ``push_to_talk`` only while a key is held, ``typed`` never.
        language: BCP 47 tag of what the user speaks; for back-channels and complete clauses.
        voice_on: probability from which a block is voice.
        voice_off: probability below which it no longer is.
        start_s: voice that begins a turn.
        duck_s: voice over the avatar that lowers its loudness.
        barge_in_s: voice over the avatar that silences it.
        confirm_s: voice over the avatar that interrupts it even without words (unless they are a back-channel).
        gap_s: pause inside a word; a longer one ends an onset.
        resume_s: voice that counts as speaking again after such a pause; shorter sounds are clicks.
        pause_s: silence after which the user is no longer shown as speaking.
        silences_s: silence that ends a turn, by how complete its words sound.
        held_silence_s: the longest such silence while the avatar waits, held.
        stand_s: how long the first words of a turn must stay the same to count before the turn has ended.
        false_interruption_s: the longest the avatar waits for words.
        tap_s: a key held for less is a slip.
        release_s: how long a released key still listens; sound arrives later than the news of the key.
        longest_turn_s: a turn that goes on for longer is ended, and what follows is another.
    """

    mode: Mode = "always"
    language: str = "en"
    voice_on: float = 0.5
    voice_off: float = 0.35
    start_s: float = 0.2
    duck_s: float = 0.1
    barge_in_s: float = 0.25
    confirm_s: float = 1.0
    gap_s: float = 0.08
    resume_s: float = 0.064
    pause_s: float = 0.2
    silences_s: Mapping[Completeness, float] = field(default_factory=lambda: dict(_SILENCES_S))
    held_silence_s: float = 0.5
    stand_s: float = 0.2
    false_interruption_s: float = 2.0
    tap_s: float = 0.25
    release_s: float = 0.2
    longest_turn_s: float = 60.0

    def __post_init__(self) -> None:
        """Raises ConfigInvalid ``turn_options`` for limits that contradict each other."""
        ordered = self.voice_off <= self.voice_on and self.duck_s <= self.start_s <= self.barge_in_s <= self.confirm_s
        if not ordered or self.gap_s > self.pause_s or set(self.silences_s) != set(Completeness):
            raise ConfigInvalid(
                "turn_options",
                "Limits of taking turns contradict each other. Needed: voice_off <= voice_on, duck_s <= start_s <= "
                "barge_in_s <= confirm_s, gap_s <= pause_s, and one silence for every completeness.",
            )
