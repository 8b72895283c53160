"""Tells what happens in a session: turns the frames as they are published into events.

Place in the flow: producer -> Published -> Narrator -> Event -> data channel, logs.

Events (``Event.type`` and the keys of its data):
    * ``state``: state (``idle``, ``listening`` or ``speaking``);
    * ``speaking``: speaking, utterance_id, label (``text``, ``file``, ``stream``, ``microphone``, or as played);
    * ``caption``: utterance_id, text, start_ms, end_ms, words (text, start_ms, end_ms), sent as it is heard;
    * ``viseme``: utterance_id, mouth (weight by name), every second frame while speaking, and once at rest after it;
    * ``action_started`` and ``action_ended``: name; told when the clip fades in, and when it fades out;
    * ``quality``: asked, level, reason; told when one of them changes, see ``engine.quality``;
    * ``metrics``: see ``Narrator.report``, every two seconds and when a picture is held, at most once a second;
    * ``error``: code, message, and utterance_id or turn_id;
    * those of a conversation, told by ``engine.conversation.dialogue``: ``user_speaking``: speaking; ``transcript``:
      role, text, final, turn_id once final; ``turn``: turn_id, state (``thinking``, ``speaking``, then ``answered``,
      ``interrupted``, ``withdrawn``, ``empty`` or ``failed``); ``latency``: turn_id, stages_ms, see
      ``engine.conversation.waterfall``; ``paused``: nothing sounds while it is open whether somebody interrupts, then
      ``resumed``, or ``interrupted``: utterance_id, played_text.

Invariants:
    * an event tells what has been published, so captions and visemes come when they are heard and seen;
    * ``speaking`` true and false of one utterance come in pairs, and so do the start and the end of an action;
    * ``state`` is told when it changes; an avatar that speaks is not listening;
    * a microphone that goes quiet for a moment goes on speaking, see ``LIVE_HOLD_FRAMES``.
"""

from __future__ import annotations

import numpy as np

from engine.aio import Broadcast
from engine.avatar.body import IDLE_DOING, Doing
from engine.clock import FrameClock
from engine.errors import Closed, TextInvalid, VisavisError
from engine.metrics import EngineMetrics
from engine.producer import Producer
from engine.quality import QualityState
from engine.slots import Published
from engine.speech import Caption, Speech
from engine.types import FPS, FRAME_MS, IDLE_UTTERANCE, MOUTH_SHAPES, REST_MOUTH, Event

EVENT_LIMIT = 256
"""Events a subscriber may leave unread; then the oldest are lost."""
REPORT_FRAMES = 2 * FPS
HELD_REPORT_FRAMES = FPS
VISEME_FRAMES = 2
LIVE_HOLD_FRAMES = 8
"""Live speech that falls quiet counts as speaking for so long (320 ms): pauses within words are shorter, and whoever
shows the state must not flicker. What was cut off, or was followed by something else, has ended at once."""


class Narrator:
    """Watches one producer.

    Args:
        metrics: where to count.

    Attributes:
        events: what it tells.
    """

    def __init__(self, metrics: EngineMetrics) -> None:
        self.events: Broadcast[Event] = Broadcast(EVENT_LIMIT)
        self._metrics = metrics
        self._producer: Producer | None = None
        self._clock = FrameClock()
        self._heard: Speech | None = None
        self._state = "idle"
        self._listening = False
        self._action = IDLE_DOING
        self._quiet_frames = 0
        self._open_mouth_id = IDLE_UTTERANCE
        self._failed_id = 0
        self._held = 0
        self._frames_since_report = 0

    def watch(self, producer: Producer, clock: FrameClock) -> None:
        """Starts with a producer and its clock."""
        self._producer, self._clock = producer, clock

    def published(self, published: Published) -> None:
        """Tells about one frame."""
        frame, speech = published.frame, published.speech
        if speech is None and self._open_mouth_id:
            self._viseme(self._open_mouth_id, REST_MOUTH)
            self._open_mouth_id = IDLE_UTTERANCE
        self._quiet_frames = 0 if speech is not None else self._quiet_frames + 1
        self._listening = published.listening
        if speech is not self._heard and not self._holds():
            self._switch(speech)
        self._tell_state()
        if published.action != self._action:
            self._switch_action(published.action)
        if speech is not None and published.index is not None:
            for caption in speech.captions_until((published.index + 1) * FRAME_MS):
                self._caption(caption, speech)
        if frame.speaking and frame.pts % VISEME_FRAMES == 0:
            self._viseme(frame.utterance_id, frame.mouth)
            self._open_mouth_id = frame.utterance_id
        self._frames_since_report += 1
        if self._frames_since_report >= (HELD_REPORT_FRAMES if published.held else REPORT_FRAMES):
            self.report()

    def failed(self, error: VisavisError, utterance_id: int) -> None:
        """Tells that something failed and the session goes on."""
        self.tell("error", **error.to_dict(), utterance_id=utterance_id)

    def picture_failed(self, error: VisavisError, utterance_id: int) -> None:
        """Tells that a picture failed, once an utterance: a broken model fails 25 times a second."""
        if utterance_id > self._failed_id:
            self._failed_id = utterance_id
            self.failed(error, utterance_id)

    def quality(self, state: QualityState) -> None:
        """Tells that a session asked for another quality, or gets another one."""
        self.tell("quality", **state.to_dict())

    def nothing_said(self, speech: Speech) -> None:
        """Tells that a text ended without any sound."""
        error = TextInvalid("nothing_to_say", "The voice found nothing it can speak in this text; send words.")
        self.failed(error, speech.utterance_id)

    def starved(self, speech: Speech) -> None:
        """Tells that a stream was ended because no sound came."""
        message = f"No sound came for {speech.patience_s:g} s, so the stream was ended; open a new one."
        self.failed(Closed("stream_stalled", message), speech.utterance_id)

    def report(self) -> None:
        """Tells how the machine keeps up.

        Keys: ``frames``, ``held``, ``underruns``, ``caught_up``, ``skipped``, ``unrestored`` and ``unread`` count
        since the start (see ``ProducerCounts``; unread frames were lost by a slow consumer); ``degraded`` is True when
        pictures were held since the last report; ``backlog_ms`` is sound that waits, ``render_ms`` the wait for a
        picture and ``margin_ms`` the time kept free for it.
        """
        self._frames_since_report = 0
        producer = self._producer
        if producer is None:
            return
        counts = producer.counts
        self.tell(
            "metrics",
            frames=counts.frames,
            held=counts.held,
            degraded=counts.held > self._held,
            underruns=counts.underruns,
            caught_up=counts.caught_up,
            skipped=counts.skipped,
            unrestored=counts.unrestored,
            unread=producer.frames.dropped,
            backlog_ms=producer.playlist.backlog_ms,
            render_ms=round(producer.render_ms, 1),
            margin_ms=round(producer.margin_ms, 1),
        )
        self._held = counts.held

    def tell(self, kind: str, **data: object) -> None:
        """Tells something else that happens in the session."""
        self.events.publish(Event(kind, data, self._clock.now_s()))

    def _holds(self) -> bool:
        """Whether live speech is only quiet for a moment."""
        heard = self._heard
        return heard is not None and heard.live and not heard.closed and 0 < self._quiet_frames <= LIVE_HOLD_FRAMES

    def _switch(self, speech: Speech | None) -> None:
        before, self._heard = self._heard, speech
        if before is not None:
            self.tell("speaking", speaking=False, utterance_id=before.utterance_id, label=before.label)
        self._tell_state()
        if speech is None:
            return
        self.tell("speaking", speaking=True, utterance_id=speech.utterance_id, label=speech.label)
        if before is None and not speech.live:
            self._metrics.first_sound_ms.observe((self._clock.now_s() - speech.created_s) * 1000)
        self._metrics.utterances.inc()

    def _tell_state(self) -> None:
        state = "speaking" if self._heard is not None else "listening" if self._listening else "idle"
        if state != self._state:
            self._state = state
            self.tell("state", state=state)

    def _switch_action(self, action: Doing) -> None:
        before, self._action = self._action, action
        if before != IDLE_DOING:
            self.tell("action_ended", name=before.track)
        if action != IDLE_DOING:
            self.tell("action_started", name=action.track)

    def _caption(self, caption: Caption, speech: Speech) -> None:
        words = [{"text": word.text, "start_ms": word.start_ms, "end_ms": word.end_ms} for word in caption.words]
        self.tell(
            "caption",
            utterance_id=speech.utterance_id,
            text=caption.text,
            start_ms=caption.start_ms,
            end_ms=caption.end_ms,
            words=words,
        )

    def _viseme(self, utterance_id: int, mouth: np.ndarray | None) -> None:
        if mouth is not None:
            weights = {name: round(float(weight), 3) for name, weight in zip(MOUTH_SHAPES, mouth, strict=True)}
            self.tell("viseme", utterance_id=utterance_id, mouth=weights)
