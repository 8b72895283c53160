"""Decides whose turn it is: when the user began and ended to speak, and when the avatar must yield or may go on.

Place in the flow: probabilities of speech, transcripts, the avatar's doings -> ``TurnTaker`` -> TurnEvents -> dialogue.

Two regions run side by side. The user::

    quiet --voice--> onset --200 ms of it / speech_started--> speaking <--speech_resumed / speech_paused--> paused
      ^                |                                                                                       |
      +---a gap--------+       silence long enough / end_of_turn (answer it) or turn_dropped (no answer) ------+

The floor, while the avatar speaks and may be interrupted::

    clear --100 ms of voice / duck--> ducked --250 ms of voice / barge_in--> held --words / interrupted--> clear
      ^                                 |                                      |
      +---silence, back-channel / unduck+--back-channel, no words, 2 s / false_interruption--> clear

How long a silence ends a turn depends on the words so far: ``TurnOptions`` has one for each ``Completeness``. A turn
may end while the floor is held, so that the recogniser finishes and its words decide. Before that, only words whose
first two have stood for a while do, because recognisers guess wildly at noises. Words that come after a false
interruption was called still interrupt. A second of voice interrupts without words, because recognisers may be slow.
What is said over something uninterruptible waits until that ends.

Invariants:
    * pure: no clock, no input or output of its own; time comes in with every call and never runs backwards;
    * every ``speech_started`` is followed by exactly one ``end_of_turn`` or ``turn_dropped`` before the next;
    * every ``duck`` is followed by ``unduck`` or ``barge_in``; every ``barge_in`` by ``interrupted`` or
      ``false_interruption``, the latter at most 2 s after it, provided that time goes on.
"""

from __future__ import annotations

from typing import Literal

from engine.conversation.backchannel import Completeness, completeness, is_backchannel, opening
from engine.conversation.turn_events import Kind, TurnEvent
from engine.conversation.turn_options import Mode, TurnOptions

UserState = Literal["quiet", "onset", "speaking", "paused"]
FloorState = Literal["clear", "ducked", "held"]

BLOCK_S = 0.032
"""Sound one probability is about, seconds."""


class TurnTaker:
    """The state machine; every method tells what happened at ``now_s`` (any monotonic clock, seconds), in order."""

    def __init__(self, options: TurnOptions | None = None) -> None:
        self.options = options or TurnOptions()
        self._mode: Mode = self.options.mode
        self._now_s = 0.0
        self._events: list[TurnEvent] = []
        self._turn = 0
        self._user: UserState = "quiet"
        self._floor: FloorState = "clear"
        self._avatar_speaks = False
        self._uninterruptible = False
        self._pressed = False
        self._voiced = False
        self._text = ""
        self._own = self._final = False
        self._opening, self._stands_from_s = "", 0.0
        self._doubted_turn: int | None = None
        self._held_s = 0.0
        self._over_avatar = False
        self._forget_voice()

    @property
    def mode(self) -> Mode:
        """How the user takes turns."""
        return self._mode

    @property
    def user(self) -> UserState:
        """What the user does."""
        return self._user

    @property
    def floor(self) -> FloorState:
        """Whether the avatar may speak freely, must speak low, or waits."""
        return self._floor

    @property
    def turn(self) -> int:
        """Number of the user's latest turn; 0 before the first."""
        return self._turn

    def heard(self, probability: float, now_s: float) -> list[TurnEvent]:
        """Takes the probability of speech of one block of 32 ms, which ended at ``now_s``."""
        # Silence in which no sound came counts before the voice after it does.
        self._advance(now_s - BLOCK_S)
        self._decide()
        self._advance(now_s)
        if self._mode == "always":
            # What is not a number compares false, so it is no voice.
            self._voiced = probability >= (self.options.voice_off if self._voiced else self.options.voice_on)
            self._heard_s = self._now_s
            if self._voiced:
                self._take_voice()
            else:
                self._untaken_s = 0.0
        self._decide()
        return self._told()

    def transcript(
        self, text: str, final: bool, now_s: float, turn: int | None = None, *, own: bool = False
    ) -> list[TurnEvent]:
        """Takes the words of a turn so far.

        Args:
            text: all of them, not only the new ones; empty when nothing was understood.
            final: no more will come.
            now_s: seconds.
            turn: number of the turn they belong to; those of an earlier one can only interrupt. None: the latest.
            own: they are the avatar's, come back through the microphone; so far nobody has said anything.
        """
        self._advance(now_s)
        if turn is not None and turn != self._turn:
            # The words of the turn that makes the avatar wait, or made it, may come when the next has begun.
            if not own and self._is_real(text):
                if turn == self._doubted_turn and self._floor != "held" and self._is_over():
                    self._hold()
                if self._floor == "held":
                    self._interrupt()
            self._decide()
            return self._told()
        self._text, self._own, self._final = "" if own else text, own, final
        if (first := opening(self._text)) != self._opening:
            self._opening, self._stands_from_s = first, self._now_s
        silent = self._user != "speaking" and not self._voiced
        if final and not self._is_real(self._text) and self._floor == "held" and silent:
            self._let_go()
        elif self._is_meant() and self._doubted_turn == self._turn and self._floor != "held" and self._is_over():
            self._hold()
        self._decide()
        return self._told()

    def avatar(self, speaking: bool, uninterruptible: bool, now_s: float) -> list[TurnEvent]:
        """Takes whether the avatar speaks, and whether it may be interrupted.

        While the floor is held, it need not be called for the pause: only ``false_interruption`` and ``interrupted``
        end that.
        """
        self._advance(now_s)
        if speaking and not self._avatar_speaks:
            self._over_s = 0.0
        if self._uninterruptible and not (speaking and uninterruptible):
            # What had to wait is now said to an avatar that listened.
            self._over_avatar = False
        self._avatar_speaks = speaking
        self._uninterruptible = speaking and uninterruptible
        self._decide()
        return self._told()

    def tick(self, now_s: float) -> list[TurnEvent]:
        """Lets time go on, with or without sound; call it at least every 40 ms."""
        self._advance(now_s)
        self._decide()
        return self._told()

    def push_to_talk(self, down: bool, now_s: float) -> list[TurnEvent]:
        """Takes the key of push-to-talk going down or up; means nothing in the other modes."""
        self._advance(now_s)
        if self._mode == "push_to_talk" and down != self._pressed:
            self._pressed = down
            if down and self._user == "paused":
                # Said over something uninterruptible and still waiting: the new words are its continuation.
                self._user = "speaking"
                self._emit("speech_resumed")
            elif down:
                self._began_s = self._voice_s = self._now_s
                self._over_avatar = False
                self._start_turn()
            elif self._user == "speaking":
                self._release()
        self._decide()
        return self._told()

    def set_mode(self, mode: Mode, now_s: float) -> list[TurnEvent]:
        """Changes how the user takes turns; an open turn is dropped, a waiting avatar goes on."""
        self._advance(now_s)
        if mode != self._mode:
            self._drop_turn()
            self._let_go()
            self._doubted_turn = None
            self._mode = mode
            self._pressed = self._voiced = False
        self._decide()
        return self._told()

    def _take_voice(self) -> None:
        """Counts a block of voice, unless it may be a click after a pause."""
        start_s = self._now_s - BLOCK_S
        if self._user == "quiet":
            self._user = "onset"
            self._began_s = self._voice_s = start_s
            self._over_avatar = self._avatar_speaks
        if not self._untaken_s:
            self._run_began_s = start_s
        self._untaken_s += BLOCK_S
        joined = start_s - self._voice_s < self.options.gap_s
        if joined or _reached(self._untaken_s, self.options.resume_s):
            self._voice_s = self._now_s
            self._spoken_s += self._untaken_s
            if self._avatar_speaks or self._floor == "held":
                self._over_s += self._untaken_s
            self._untaken_s = 0.0

    def _forget_voice(self) -> None:
        self._began_s = self._voice_s = self._run_began_s = self._heard_s = self._now_s
        self._spoken_s = self._over_s = self._untaken_s = 0.0

    def _told(self) -> list[TurnEvent]:
        events, self._events = self._events, []
        return events

    def _decide(self) -> None:
        if self._voiced and self._now_s - self._heard_s >= self.options.pause_s:
            # The microphone fell silent in the middle of a word.
            self._voiced, self._untaken_s = False, 0.0
        self._decide_user()
        self._decide_floor()
        self._decide_end()

    def _decide_user(self) -> None:
        if self._mode != "always":
            return
        if self._user == "onset":
            if _reached(self._spoken_s, self.options.start_s):
                self._start_turn()
            elif self._silence_s() >= self.options.gap_s:
                self._user = "quiet"
                self._forget_voice()
        elif self._user == "speaking" and self._silence_s() >= self.options.pause_s:
            self._user = "paused"
            self._emit("speech_paused", self._voice_s)
        elif self._user == "paused" and self._silence_s() < self.options.pause_s:
            self._user = "speaking"
            self._emit("speech_resumed", self._run_began_s)

    def _decide_floor(self) -> None:
        options = self.options
        talking = self._user in ("onset", "speaking")
        if not talking and self._floor != "held":
            self._over_s = 0.0
        if self._floor == "clear" and self._is_over():
            if self._pressed:
                self._hold()
            elif talking and _reached(self._over_s, options.duck_s):
                self._floor = "ducked"
                self._emit("duck")
        if self._floor == "ducked":
            if not self._is_over() or not talking:
                self._floor = "clear"
                self._emit("unduck")
            elif self._user == "speaking" and _reached(self._over_s, options.barge_in_s) and not self._is_backchannel():
                self._hold()
        if self._floor == "held":
            long = _reached(self._over_s, options.confirm_s) and not self._is_backchannel()
            meant = self._pressed and self._now_s - self._began_s >= options.tap_s
            if long or meant or self._is_meant():
                self._interrupt()
            elif self._now_s - self._held_s >= options.false_interruption_s or (
                self._user == "paused" and self._is_backchannel() and self._silence_s() >= self._patience_s()
            ):
                self._let_go()

    def _decide_end(self) -> None:
        if self._user in ("speaking", "paused") and self._now_s - self._began_s >= self.options.longest_turn_s:
            self._end_turn()
            return
        if self._user != "paused" or self._voiced or self._silence_s() < self._patience_s():
            return
        if self._floor == "held":
            self._end_turn()
        elif self._uninterruptible:
            # Words wait for the end of what must not be interrupted; nods need not.
            if self._over_avatar and self._is_backchannel():
                self._drop_turn()
        elif not self._avatar_speaks or not self._over_avatar:
            self._end_turn()
        elif self._is_real(self._text) and _reached(self._spoken_s, self.options.barge_in_s):
            # Said in bits too short to silence the avatar, and yet words.
            self._hold()
            self._interrupt()
            self._end_turn()
        else:
            self._drop_turn()

    def _patience_s(self) -> float:
        """Silence that ends the turn, seconds."""
        if self._mode == "push_to_talk":
            return self.options.release_s
        if self._floor == "held" and self._is_backchannel():
            return self.options.silences_s[Completeness.COMPLETE]
        silence_s = self.options.silences_s[completeness(self._text, self.options.language)]
        return min(silence_s, self.options.held_silence_s) if self._floor == "held" else silence_s

    def _start_turn(self) -> None:
        self._turn += 1
        self._user = "speaking"
        self._text = ""
        self._own = self._final = False
        self._opening = ""
        self._emit("speech_started", self._began_s)

    def _release(self) -> None:
        """Ends what the key began."""
        if self._now_s - self._began_s < self.options.tap_s:
            self._drop_turn()
            return
        if self._floor == "held":
            self._interrupt()
        self._voice_s = self._now_s
        self._user = "paused"

    def _end_turn(self) -> None:
        self._user = "quiet"
        # A key that got stuck must not interrupt the answer.
        self._pressed = False
        self._emit("end_of_turn", self._voice_s)
        over_s = self._over_s
        self._forget_voice()
        if self._floor == "held":
            # More voice in a moment is more of the same interruption.
            self._over_s = over_s

    def _drop_turn(self) -> None:
        if self._user in ("speaking", "paused"):
            self._emit("turn_dropped", self._voice_s)
        self._user = "quiet"
        self._forget_voice()
        doubted = self._doubted_turn
        if self._floor == "held":
            self._let_go()
        # Nobody is listening for its words any more; those of an earlier turn may still come.
        self._doubted_turn = doubted if doubted != self._turn else None

    def _hold(self) -> None:
        self._floor = "held"
        self._held_s = self._now_s
        self._emit("barge_in")

    def _interrupt(self) -> None:
        self._floor = "clear"
        self._avatar_speaks = self._uninterruptible = self._over_avatar = False
        self._emit("interrupted")

    def _let_go(self) -> None:
        """Gives the floor back to the avatar, and drops the turn that made it wait unless it is still being spoken."""
        if self._floor == "held":
            self._floor = "clear"
            self._over_s = 0.0
            self._emit("false_interruption")
            if self._user == "paused" and not self._voiced:
                self._drop_turn()
            elif self._user in ("quiet", "onset"):
                self._doubted_turn = self._turn
        elif self._floor == "ducked":
            self._floor = "clear"
            self._emit("unduck")

    def _silence_s(self) -> float:
        return self._now_s - self._voice_s

    def _is_over(self) -> bool:
        """Whether the avatar speaks and may be interrupted."""
        return self._avatar_speaks and not self._uninterruptible

    def _is_backchannel(self) -> bool:
        return self._own or is_backchannel(self._text, self.options.language)

    def _is_meant(self) -> bool:
        """Whether the words so far are certain enough to interrupt."""
        stand = bool(self._opening) and self._now_s - self._stands_from_s >= self.options.stand_s
        return self._is_real(self._text) and (self._final or stand)

    def _is_real(self, text: str) -> bool:
        """Whether a text has words other than a back-channel."""
        return bool(text.strip()) and not is_backchannel(text, self.options.language)

    def _advance(self, now_s: float) -> None:
        self._now_s = max(self._now_s, now_s)

    def _emit(self, kind: Kind, since_s: float | None = None) -> None:
        self._events.append(TurnEvent(kind, self._now_s, self._turn, self._now_s if since_s is None else since_s))


def _reached(voice_s: float, limit_s: float) -> bool:
    """Whether voice counted in whole blocks comes as near to a limit as blocks can."""
    return voice_s >= limit_s - BLOCK_S / 2
