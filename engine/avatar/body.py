"""What the body does, frame by frame: it rests, listens or acts, and passes from one to the other without a jump.

Place in the flow: ``Wishes`` + whether the frame speaks -> ``Body.step`` -> ``Pose`` -> the planner's frame plan.

The idle loop is shown unless something else is wished. An action is a clip: one that loops lasts until another wish or
until speech begins, any other is played once. While somebody else speaks the ``listening`` clip is shown, or, where
an avatar has none, the idle loop with the head leaning in.

Invariants:
    * consecutive frames show consecutive pictures, or are a cross-fade of ``FADE_FRAMES`` between two such sequences;
    * a fade is never cut short: a wish that comes during one waits for its end;
    * a step depends on the state, the wishes and nothing else, so frames can be taken back and planned again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.avatar.bundle import Avatar
from engine.avatar.card import LISTENING
from engine.avatar.head_move import ease
from engine.avatar.tracks import FADE_FRAMES, IDLE, tracks_of

LEAN_FRAMES = 20
"""Leaning in, and back, takes 0.8 s."""
ATTENTIVE_FRAMES = 20
"""Silence of its own (0.8 s) after which an avatar listens again: pauses between sentences are shorter."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What somebody wants the body to do.

    Attributes:
        listening: somebody else has the floor.
        action: the clip asked for last; empty when it was asked to stop.
        serial: grows with each request for an action, so that the same one can be asked for twice.
    """

    listening: bool = False
    action: str = ""
    serial: int = 0

    def act(self, name: str) -> Wishes:
        """The wishes after an action was asked for; an empty name ends the one that plays."""
        return replace(self, action=name, serial=self.serial + 1)


@dataclass(frozen=True, slots=True)
class Doing:
    """What is shown: a track, and for a clip that plays once the request it answers.

    Attributes:
        track: its name; ``IDLE`` for the idle loop.
        serial: of the request; 0 for loops.
    """

    track: str = IDLE
    serial: int = 0


IDLE_DOING = Doing()
"""Nothing but resting."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Which pictures of the avatar a frame is made of, and what it does in them.

    Attributes:
        index: number of a picture, see ``Avatar``.
        other: the picture it is passing into; None outside a cross-fade.
        weight: of ``other``, in (0, 1).
        lean: how far the head leans in to listen, 0 to 1.
        action: the request that plays or fades in; its track is empty when none does.
        listening: somebody has the floor, and the avatar lets them have it.
    """

    index: int
    other: int | None = None
    weight: float = 0.0
    lean: float = 0.0
    action: Doing = IDLE_DOING
    listening: bool = False

    @property
    def plain(self) -> bool:
        """Whether the frame is one picture as it is."""
        return self.other is None and self.lean == 0

    @property
    def nearest(self) -> int:
        """The one picture that comes closest to the frame."""
        return self.index if self.other is None or self.weight < 0.5 else self.other

    def simplified(self) -> Pose:
        """The same body in the one picture that comes closest, as it is."""
        return replace(self, index=self.nearest, other=None, weight=0.0, lean=0.0)


@dataclass(frozen=True, slots=True)
class BodyState:
    """What one frame hands on to the next; all positions are those of the picture that is due.

    Attributes:
        doing: what is shown.
        position: on its track.
        next: what is passed into, or waited for; None outside a fade.
        next_position: on its track.
        fade: pictures of the fade shown so far, plus one; 0 or less while the fade is waited for.
        action: the request that is being answered; its track is empty when none is.
        serial: of the last request that was seen.
        speaking: whether the frame before spoke.
        silent_frames: frames since it spoke.
        lean: how far it leans in, of ``LEAN_FRAMES``.
    """

    doing: Doing = IDLE_DOING
    position: int = 0
    next: Doing | None = None
    next_position: int = 0
    fade: int = 0
    action: Doing = IDLE_DOING
    serial: int = 0
    speaking: bool = False
    silent_frames: int = ATTENTIVE_FRAMES
    lean: int = 0


class Body:
    """The movements of one avatar.

    Args:
        avatar: whose.
        start: idle picture shown first.

    Attributes:
        initial: the state before the first frame.
    """

    def __init__(self, avatar: Avatar, start: int = 0) -> None:
        self._tracks = tracks_of(avatar)
        self._leans = LISTENING not in avatar.clips
        self.initial = BodyState(position=start % len(avatar.frames))

    def step(self, state: BodyState, wishes: Wishes, speaking: bool) -> tuple[Pose, BodyState]:
        """The pose of the next frame.

        Args:
            state: after the frame before.
            wishes: as they are now.
            speaking: the frame has sound of an utterance, or belongs to one that waits for more.

        Returns:
            The pose, and the state after it.
        """
        if not speaking and self.settled(state, wishes):
            # The same as below, of a crowd that mostly does nothing else.
            doing, position = state.doing, state.position
            action = state.action if state.action == doing else IDLE_DOING
            pose = Pose(
                self._tracks.by_name[doing.track].picture(position), action=action, listening=wishes.listening
            )
            return pose, BodyState(doing, position + 1, action=state.action, serial=state.serial)
        state = self._begin(self._obey(state, wishes, speaking), wishes)
        tracks = self._tracks.by_name
        fading = state.next is not None and state.fade > 0
        action = state.action if state.action in (state.doing, state.next if fading else None) else IDLE_DOING
        pose = Pose(
            tracks[state.doing.track].picture(state.position),
            lean=ease(state.lean / LEAN_FRAMES),
            action=action,
            listening=_attentive(state, wishes),
        )
        if state.next is None or not fading:
            fade = state.fade + 1 if state.next is not None else 0
            return pose, replace(state, position=state.position + 1, fade=fade)
        other = tracks[state.next.track].picture(state.next_position)
        pose = replace(pose, other=other, weight=ease(state.fade / (FADE_FRAMES + 1)))
        if state.fade == FADE_FRAMES:
            position = state.next_position + 1
            return pose, replace(state, doing=state.next, position=position, next=None, next_position=0, fade=0)
        return pose, replace(
            state, position=state.position + 1, next_position=state.next_position + 1, fade=state.fade + 1
        )

    def settled(self, state: BodyState, wishes: Wishes) -> bool:
        """Whether the next silent frame shows the next picture of a loop and nothing else, and changes nothing else."""
        return (
            state.silent_frames == ATTENTIVE_FRAMES
            and state.lean == 0
            and state.next is None
            and state.serial == wishes.serial
            and not (self._leans and wishes.listening)
            and self._tracks.by_name[state.doing.track].loop
            and self._wanted(state, wishes) == state.doing
        )

    def restless(self, state: BodyState, wishes: Wishes) -> bool:
        """Whether the next frame may be part of a fade, which takes longer to draw than any other."""
        track = self._tracks.by_name[state.doing.track]
        ends = not track.loop and state.position >= track.count - FADE_FRAMES
        fades = state.next is not None or self._wanted(state, wishes) != state.doing
        return ends or fades or wishes.serial != state.serial

    def _obey(self, state: BodyState, wishes: Wishes, speaking: bool) -> BodyState:
        """Takes note of what has changed."""
        action = state.action
        if wishes.serial != state.serial:
            action = IDLE_DOING
            if wishes.action in self._tracks.by_name and wishes.action != IDLE:
                once = not self._tracks.by_name[wishes.action].loop
                action = Doing(wishes.action, wishes.serial if once else 0)
        elif speaking and not state.speaking and self._tracks.by_name[action.track].loop:
            action = IDLE_DOING
        silent_frames = 0 if speaking else min(ATTENTIVE_FRAMES, state.silent_frames + 1)
        state = replace(state, action=action, serial=wishes.serial, speaking=speaking, silent_frames=silent_frames)
        leaning = self._leans and _attentive(state, wishes)
        lean = min(LEAN_FRAMES, state.lean + 1) if leaning else max(0, state.lean - 1)
        return replace(state, lean=lean)

    def _begin(self, state: BodyState, wishes: Wishes) -> BodyState:
        """Begins a fade where one is due."""
        if state.next is not None and state.fade > 0:
            return state
        track = self._tracks.by_name[state.doing.track]
        if not track.loop and state.position >= track.count - FADE_FRAMES and state.action == state.doing:
            state = replace(state, action=IDLE_DOING)
        wanted = self._wanted(state, wishes)
        if wanted == state.doing:
            return state if state.next is None else replace(state, next=None, next_position=0, fade=0)
        if wanted == state.next:
            return state
        delay, entry = self._tracks.enter(state.doing.track, state.position, wanted.track)
        return replace(state, next=wanted, next_position=entry, fade=1 - delay)

    def _wanted(self, state: BodyState, wishes: Wishes) -> Doing:
        if state.action.track != IDLE:
            return state.action
        return Doing(LISTENING) if not self._leans and _attentive(state, wishes) else IDLE_DOING


def _attentive(state: BodyState, wishes: Wishes) -> bool:
    return wishes.listening and state.silent_frames >= ATTENTIVE_FRAMES
