"""Makes a session's frames, one every 40 ms: idle by default, speech when there is some, silence within a frame of an
interrupt.

Place in the flow: Playlist -> planner -> renderer -> AvatarFrame -> channel to the edge.

A frame goes through two moments. It is *committed* when its content is decided: as soon as its sound is there, at most
``pace.LEAD_S`` before it is needed; else, as idle, at the last moment that leaves time to draw it (the margin). It is
*published* at its due time, less ``HANDOUT_S`` for the edge to encode it. Only committed frames can be ahead of the
clock, and an interrupt takes them back.

Invariants:
    * the clock never slips: a picture that is late is replaced by the newest one there is, with the right sound;
    * restoring is worth no late picture: one that is still being restored goes out as it was drawn;
    * sound is never played without its frame, and waits (the mouth eases shut) when more of it is still to come;
    * a pause takes back what was committed, and what follows the pause goes on with it, so not a sample is lost;
    * after a stall of the machine frames go on from the present instead of playing a burst;
    * one task, named, cancelled and awaited by ``aclose``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from engine.aio import DropOldest, Tasks, Wake
from engine.audio.gain import Gain
from engine.avatar.body import Body, Pose
from engine.clock import FRAME_S, FrameClock
from engine.errors import VisavisError
from engine.lipsync.base import PreparedAvatar
from engine.metrics import EngineMetrics
from engine.pace import Pace, lead_s
from engine.planner import SILENCE, FramePlan, FramePlanner
from engine.playlist import Playlist
from engine.quality import AUTO, Quality, QualityState
from engine.renderer import Rendered, Renderer, SessionQuality
from engine.schedule import PRIORITY
from engine.slots import ProducerCounts, Published, Shown, Slot, Slots
from engine.speech import Catchup, Speech, Taken
from engine.types import FRAME_MS, IDLE_UTTERANCE, REST_MOUTH, AvatarFrame, Playback

HANDOUT_S = 0.010
"""How long before its due time a frame is published: encoding takes some of it, and lips leave with their sound."""
STALL_S = 5 * FRAME_S
"""Up to here late frames are caught up with; beyond, the machine stood still and frames go on from the present."""
CHANNEL_FRAMES = 5
"""Published frames a slow consumer may leave behind; then the oldest are lost."""

_SILENT_PEAK = 160  # of a frame that may be skipped unheard: -46 dBFS
_EPSILON_S = 1e-4  # timers fire early or late by less than this


class Producer:
    """The frames of one session.

    Args:
        prepared: the avatar, prepared by the renderer.
        renderer: draws mouths.
        clock: when frames are due.
        on_published: called with every frame as it is published.
        on_failure: called with the error and the utterance's id (0 while the mouth eases shut) when a picture could
            not be drawn; the frame shows a picture of the avatar as it is.
        on_starved: called with an utterance that was ended because its source gave no more sound.
        quality: what the session asks for.
        on_quality: called with every change of what it gets.
        priority: of the session, 0 to 9; where time is short, the lowest does without first.
        metrics: where to count.

    Attributes:
        playlist: what is said.
        frames: the published frames; drop-oldest, one consumer.
        counts: what happened so far.
        quality: how well faces are restored.
    """

    def __init__(
        self,
        prepared: PreparedAvatar,
        renderer: Renderer,
        clock: FrameClock,
        *,
        on_published: Callable[[Published], None],
        on_failure: Callable[[VisavisError, int], None],
        on_starved: Callable[[Speech], None],
        metrics: EngineMetrics,
        quality: Quality = AUTO,
        on_quality: Callable[[QualityState], None] = lambda state: None,
        priority: int = PRIORITY,
    ) -> None:
        self.frames: DropOldest[AvatarFrame] = DropOldest(CHANNEL_FRAMES)
        self.counts = ProducerCounts()
        self.quality = SessionQuality(prepared, renderer.restoring, quality, on_quality, metrics, priority)
        self._priority = priority
        self._renderer = renderer
        self._clock = clock
        self._on_published = on_published
        self._on_failure = on_failure
        self._on_starved = on_starved
        self._metrics = metrics
        self._avatar = prepared.avatar
        self._planner = FramePlanner(Body(prepared.avatar))
        self._playing: Speech | None = None
        self._paused: Speech | None = None
        self._gain = Gain()
        self._waiting = False
        self._slots = Slots()
        self._next_pts = 0
        self._shown = Shown(-1, self._avatar.frames[0], REST_MOUTH, Pose(0), (self._avatar, 0))
        self._pace = Pace()
        self._catchup = Catchup()
        self._last_peak = 0
        self._wake = Wake()
        self.playlist = Playlist(self._wake.set)
        self._tasks = Tasks("producer")

    def start(self) -> None:
        """Starts the frames with the one that is due about now."""
        self._next_pts = self._clock.frame_at(self._clock.now_s() + HANDOUT_S - FRAME_S / 2)
        self.quality.start()
        self._tasks.start(self._run(), "frames")

    async def aclose(self) -> None:
        """Ends the frames. Idempotent and time-limited."""
        await self._tasks.aclose()
        self.playlist.clear()
        self._slots.withdraw()
        self.frames.close()
        await self.quality.aclose()

    @property
    def render_ms(self) -> float:
        """From asking for a picture to having it, milliseconds; follows a slow one at once, forgets it in seconds."""
        return self._pace.render_s * 1000

    @property
    def margin_ms(self) -> float:
        """How long before its publication a frame is decided at the latest, milliseconds."""
        return self._margin_s() * 1000

    # Moving -------------------------------------------------------------------------------------------------------

    def act(self, name: str) -> None:
        """Plays a clip of the avatar from one of the next frames on; an empty name ends the one that plays."""
        self._commit(self._clock.now_s())
        self._planner.wishes = self._planner.wishes.act(name)
        self._wake.set()

    def set_listening(self, on: bool) -> None:
        """Whether somebody else has the floor."""
        self._commit(self._clock.now_s())
        self._planner.wishes = replace(self._planner.wishes, listening=on)
        self._wake.set()

    # Interrupting -------------------------------------------------------------------------------------------------

    def interrupt(self, keep: Collection[Speech] = ()) -> Playback:
        """Silence from the next frame on: drops what plays and what is queued but ``keep``; the mouth eases shut.

        Returns:
            What of the utterance that was playing left the producer; its id is 0 when none was.
        """
        speeches = [speech for speech in self._speeches() if speech not in keep]
        self._slots.put_back(keep)
        self._silence_unread(speeches)
        playing = self._playing or self._paused
        playback = Playback(
            playing.utterance_id if playing is not None else IDLE_UTTERANCE,
            playing.heard_ms if playing is not None else 0,
            sum(speech.unheard_ms for speech in speeches),
        )
        if playing is not None or len(self.playlist):
            self._metrics.interrupts.inc()
        for speech in speeches:
            speech.abort()
        self.playlist.clear(keep)
        self._playing = self._paused = None
        self._gain.target = 1.0
        self._take_back()
        return playback

    def pause(self) -> None:
        """Silence from the next frame on, the mouth eases shut; everything stays where it is. Idempotent."""
        if self.playlist.held:
            return
        self._paused = self._playing or (self._slots[0].speech if self._slots else None)
        self._slots.put_back(self._speeches())
        self.playlist.held = True
        self._playing = None
        self._gain.mute()
        self._take_back()

    def resume(self) -> None:
        """Goes on where ``pause`` stopped. Idempotent."""
        self._paused = None
        if self.playlist.held:
            self.playlist.held = False

    def duck(self, level: float) -> None:
        """Plays at another level, 0 to 1, from the next frame on; the mouth does not follow."""
        self._gain.target = level

    def _speeches(self) -> list[Speech]:
        """Every utterance that plays, waits, or is committed to be played."""
        every = [self._playing, *self._slots.speeches, *self.playlist]
        return list({id(speech): speech for speech in every if speech is not None}.values())

    def _silence_unread(self, speeches: list[Speech]) -> None:
        """Published frames that nobody has taken yet keep their picture and lose their sound."""

        def silenced(frame: AvatarFrame) -> AvatarFrame:
            for speech in speeches:
                if frame.speaking and speech.utterance_id == frame.utterance_id:
                    speech.retract(1)
            return replace(frame, audio=SILENCE, utterance_id=IDLE_UTTERANCE, speaking=False)

        self.frames.replace(silenced)

    def _take_back(self) -> None:
        """Replaces committed frames by the mouth easing shut."""
        if not self._slots:
            return
        count = len(self._slots)
        # The picture needed next is drawn or being drawn, and one frame more of the old mouth is what a real one does.
        first = self._slots.popleft()
        if self._slots:
            self._planner.rewind(self._slots[0].plan)
        self._slots.withdraw()
        first.plan, first.speech, first.taken = first.plan.silenced(), None, None
        self._slots.append(first)
        for _ in range(count - 1):
            self._commit_rest(None)

    # Committing ---------------------------------------------------------------------------------------------------

    def _handout_s(self, position: int) -> float:
        """When the frame ``position`` places after the next one is published."""
        return self._clock.due_s(self._next_pts + position) - HANDOUT_S

    def _margin_s(self) -> float:
        return self._pace.margin_s(self._planner.restless or self.quality.passing)

    def _commit(self, now_s: float) -> None:
        """Commits every frame that can or must be."""
        while True:
            publish_s = self._handout_s(len(self._slots))
            speech = self.playlist.current()
            if publish_s - lead_s(speech) > now_s + _EPSILON_S:
                return
            latest_s = publish_s - self._margin_s()
            if self._idles() and now_s > latest_s + _EPSILON_S:
                # Decided when it had to be, though nobody was woken for it.
                self._commit_rest(None)
            elif speech is not None and speech.frames_ready:
                self._commit_speech(speech, (latest_s - now_s) * 1000)
            elif now_s >= latest_s - _EPSILON_S:
                self._commit_rest(speech if speech is not None and speech.started else None)
            else:
                return

    def _commit_speech(self, speech: Speech, early_ms: float) -> None:
        if speech.live:
            self._catch_up(speech, early_ms)
        started_s = time.monotonic()
        taken = _, mel, audio = speech.next()
        self.quality.observe("window", time.monotonic() - started_s)
        self._waiting = False
        self._last_peak = int(np.abs(audio.astype(np.int32)).max())
        gated = speech is self.playlist.background
        self._append(self._planner.speak(mel, audio, speech.utterance_id, gated=gated), speech, taken)

    def _commit_rest(self, speech: Speech | None) -> None:
        if speech is self.playlist.background:
            speech = None
        if speech is not None and not self._waiting:
            self._waiting = True
            self.counts.underruns += 1
        plan = self._planner.rest(speech.utterance_id if speech is not None else IDLE_UTTERANCE)
        self._append(plan, speech, None)

    def _catch_up(self, speech: Speech, early_ms: float) -> None:
        slack_ms = (speech.frames_ready - 1) * FRAME_MS + early_ms
        count = self._catchup.frames_to_skip(slack_ms, silent=self._last_peak < _SILENT_PEAK)
        for _ in range(min(count, speech.frames_ready - 1)):
            speech.skip()
            self.counts.caught_up += 1
            self._metrics.frames_dropped.inc()

    def _append(self, plan: FramePlan, speech: Speech | None, taken: Taken | None) -> None:
        slot = Slot(plan, speech, taken)
        position = len(self._slots)
        # Only a picture that does not wait for others of this session tells how long one takes.
        alone = all(earlier.image is not None for earlier in self._slots)
        self._slots.append(slot)
        prepared, other, share = self.quality.look_of(plan.sequence, not self._planner.restless)
        if not plan.drawn and other is None:
            slot.show(prepared.avatar, plan.pose.index)
            return
        measured_from_s = self._clock.now_s() if alone else None
        try:
            slot.rendering = self._renderer.submit(
                plan.job(prepared, other, share), self._handout_s(position), self, self.quality.live, self._priority
            )
        except VisavisError:
            return  # too busy: the picture before it is held
        slot.rendering.result.add_done_callback(lambda result: self._rendered(slot, result, measured_from_s))

    def _rendered(self, slot: Slot, result: asyncio.Future[Rendered], measured_from_s: float | None) -> None:
        if result.cancelled():
            return
        error = result.exception()
        if error is not None:
            prepared, _, _ = self.quality.look_of(slot.plan.sequence)
            slot.show(prepared.avatar, slot.plan.pose.nearest)
            slot.plan = replace(slot.plan, pose=slot.plan.pose.simplified())
            if isinstance(error, VisavisError):
                self._on_failure(error, slot.plan.utterance_id)
            return
        rendered = result.result()
        slot.image, slot.mouth = rendered.image, rendered.mouth
        if measured_from_s is not None:
            self._pace.drew(self._clock.now_s() - measured_from_s, fading=not slot.plan.pose.plain)
        if slot.published and slot.plan.sequence > self._shown.sequence:
            # Late, but newer than what is shown: the next frame shows it if its own picture is late, too.
            self._shown = Shown(slot.plan.sequence, rendered.image, rendered.mouth, slot.plan.pose)

    # Publishing ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._make_frames()
        finally:
            # Should this task ever fail, whoever waits for a frame must not wait for ever.
            self.frames.close()

    async def _make_frames(self) -> None:
        while True:
            now_s = self._clock.now_s()
            if now_s - self._handout_s(0) > STALL_S:
                present = self._clock.frame_at(now_s + HANDOUT_S)
                self.counts.skipped += present - self._next_pts
                self._metrics.frames_dropped.inc(present - self._next_pts)
                self._next_pts = present
            self._commit(now_s)
            if now_s >= self._handout_s(0) - _EPSILON_S:
                self._publish(self._slots.popleft(), now_s)
                continue
            await self._wake.wait(self._clock, self._next_moment_s())

    def _idles(self) -> bool:
        """Whether the next frame, unless sound comes in time, is a picture as it is, which takes no time to draw."""
        return not self._slots and self._planner.settled and not self.quality.restless

    def _next_moment_s(self) -> float:
        """When there is something to do, if nothing happens before."""
        if self.playlist.current() is None and self._idles():
            return self._handout_s(0)
        publish_s = self._handout_s(len(self._slots))
        speech = self.playlist.current()
        ready = speech is not None and speech.frames_ready > 0
        commit_s = publish_s - (lead_s(speech) if ready else self._margin_s())
        return min(commit_s, self._handout_s(0)) if self._slots else commit_s

    def _publish(self, slot: Slot, now_s: float) -> None:
        plan = slot.plan
        if slot.image is None and slot.rendering is not None and (draft := slot.rendering.draft) is not None:
            slot.image, slot.mouth = draft.image, draft.mouth
            self.counts.unrestored += 1
            self.quality.unrestored()
        held = slot.image is None
        if slot.image is not None:
            self._shown = Shown(plan.sequence, slot.image, slot.mouth, plan.pose, slot.still)
        elif slot.rendering is not None:
            slot.rendering.withdraw()
        slot.published = True
        _, image, mouth, pose, still = self._shown
        audio = self._gain.apply(plan.audio) if plan.speaking else plan.audio
        frame = AvatarFrame(image, audio, self._next_pts, plan.utterance_id, plan.speaking, mouth, pose, still, held)
        lost = self.frames.dropped
        self.frames.put(frame)
        self._next_pts += 1
        late_s = now_s - self._clock.due_s(frame.pts)
        self.counts.published(frame, held, self.frames.dropped - lost, late_s, self._metrics)
        if slot.speech is not None and slot.index is not None:
            slot.speech.heard(slot.index)
        # A microphone that is open but quiet is not playing.
        self._playing = slot.speech if frame.speaking or slot.index is None else None
        self._on_published(Published(frame, self._playing, slot.index, held, plan.pose.action, plan.pose.listening))
        if (starved := self.playlist.end_starved()) is not None:
            self._on_starved(starved)
