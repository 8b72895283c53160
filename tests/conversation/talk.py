"""A turn taker under a virtual clock, for tests of taking turns."""

from engine.conversation.turn import BLOCK_S, TurnTaker
from engine.conversation.turn_events import TurnEvent
from engine.conversation.turn_options import TurnOptions


class Talk:
    """A turn taker under a virtual clock, and all that it told."""

    def __init__(self, **options) -> None:
        self.taker = TurnTaker(TurnOptions(**options))
        self.now_s = 100.0
        self.events: list[TurnEvent] = []

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def _told(self, events: list[TurnEvent]) -> list[str]:
        self.events += events
        return [event.kind for event in events]

    def hear(self, probability: float, seconds: float = BLOCK_S) -> list[str]:
        return [kind for p in [probability] * max(1, round(seconds / BLOCK_S)) for kind in self.block(p)]

    def block(self, probability: float) -> list[str]:
        self.now_s += BLOCK_S
        return self._told(self.taker.heard(probability, self.now_s))

    def voice(self, seconds: float) -> list[str]:
        return self.hear(0.9, seconds)

    def silence(self, seconds: float) -> list[str]:
        return self.hear(0.02, seconds)

    def wait(self, seconds: float) -> list[str]:
        """Time without any sound."""
        self.now_s += seconds
        return self._told(self.taker.tick(self.now_s))

    def words(self, text: str, final: bool = False, turn: int | None = None) -> list[str]:
        return self._told(self.taker.transcript(text, final, self.now_s, turn))

    def avatar(self, speaking: bool = True, uninterruptible: bool = False) -> list[str]:
        return self._told(self.taker.avatar(speaking, uninterruptible, self.now_s))

    def key(self, down: bool) -> list[str]:
        return self._told(self.taker.push_to_talk(down, self.now_s))

    def mode(self, mode) -> list[str]:
        return self._told(self.taker.set_mode(mode, self.now_s))

    def at(self, kind: str) -> TurnEvent:
        return next(event for event in self.events if event.kind == kind)


def over_avatar(**options) -> Talk:
    """The avatar has been speaking for a second."""
    talk = Talk(**options)
    talk.avatar()
    talk.silence(1)
    return talk
