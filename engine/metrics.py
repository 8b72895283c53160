"""Every metric of the engine, declared in one place for Prometheus.

Place in the flow: renderer, producer and session count here; the server shows it at ``/metrics``.

Invariants:
    * nothing is labelled by session, avatar or text: the number of series does not grow with use;
    * times are in milliseconds, as everywhere in Visavis.

| metric | type | attribute | meaning |
|---|---|---|---|
| ``visavis_sessions`` | gauge | ``sessions`` | sessions that are started and not closed |
| ``visavis_render_queue`` | gauge | ``render_queue`` | pictures waiting for a render thread |
| ``visavis_render_ms`` | histogram | ``render_ms`` | predicting and pasting one picture, on the render thread |
| ``visavis_stage_ms{stage}`` | histogram | ``stage_ms(stage)`` | one picture in one of ``governor.STAGES`` |
| ``visavis_render_wait_ms`` | histogram | ``render_wait_ms`` | a picture's wait for a render thread |
| ``visavis_frame_late_ms`` | histogram | ``frame_late_ms`` | how long after its due time a frame left the session |
| ``visavis_first_sound_ms`` | histogram | ``first_sound_ms`` | from asking for speech to its first frame |
| ``visavis_frames_total{kind}`` | counter | ``frames_<kind>`` | kinds: see below |
| ``visavis_utterances_total`` | counter | ``utterances`` | utterances begun |
| ``visavis_interrupts_total`` | counter | ``interrupts`` | interrupts that cut something off |
| ``visavis_failures_total{stage}`` | counter | ``failures(stage)`` | what failed and was survived, see below |
| ``visavis_quality_sessions{level}`` | gauge | ``quality_sessions(level)`` | sessions by level, with a restorer |
| ``visavis_quality_steps_total{direction}`` | counter | ``moved_quality`` | levels went ``up`` or ``down`` |
| ``visavis_turn_ms{stage}`` | histogram | ``turn_ms(stage)`` | from the end of speech to a stage of the answer |
| ``visavis_turns_total{outcome}`` | counter | ``turns(outcome)`` | turns of conversations, by ``TURN_OUTCOMES`` |
| ``visavis_given_up_total{priority}`` | counter | ``given_up(priority)`` | pictures that no time was left for, 0 to 9 |
| ``visavis_avatar_bytes`` | gauge | ``avatar_bytes`` | memory that the pictures of all loaded avatars take |
| ``visavis_unrestored_total`` | counter | ``unrestored`` | pictures that could not wait for the restorer |

Kinds of frames: ``idle`` and ``speaking`` went out as meant; ``held`` went out with the previous mouth because the
new one was late; ``dropped`` never went out, because the consumer or the machine was behind. What can fail: ``render``,
``restore``, ``voice``, ``recogniser``, ``model``.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from engine.governor import STAGES
from engine.quality import MOST
from engine.schedule import PRIORITIES

_RENDER_BUCKETS_MS = (1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 120, 200)
_STAGE_BUCKETS_MS = (0.1, 0.2, 0.5, 1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 80, 200, 1000)
_LATE_BUCKETS_MS = (0.5, 1, 2, 5, 10, 20, 40, 80, 200, 1000)
TURN_STAGES = ("endpoint", "transcript", "first_token", "first_audio", "first_frame", "first_heard")
"""See ``engine.conversation.waterfall``."""
TURN_OUTCOMES = ("answered", "interrupted", "empty", "failed", "not_addressed")

_TURN_BUCKETS_MS = (50, 100, 200, 300, 400, 500, 700, 1000, 1200, 1500, 2000, 3000, 5000, 10_000, 30_000)
_FIRST_SOUND_BUCKETS_MS = (20, 50, 100, 150, 200, 300, 400, 600, 1000, 2000, 5000)


class EngineMetrics:
    """The engine's metrics in one registry; make one per process, or per test.

    Args:
        registry: where to register; a new one when None, so that engines in one process stay apart.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = CollectorRegistry() if registry is None else registry
        self.sessions = Gauge("visavis_sessions", "Sessions started and not closed", registry=registry)
        self.render_queue = Gauge("visavis_render_queue", "Pictures waiting for a render thread", registry=registry)
        self.render_ms = Histogram(
            "visavis_render_ms", "Predicting and pasting one picture", buckets=_RENDER_BUCKETS_MS, registry=registry
        )
        self.render_wait_ms = Histogram(
            "visavis_render_wait_ms", "Wait for a render thread", buckets=_RENDER_BUCKETS_MS, registry=registry
        )
        self.frame_late_ms = Histogram(
            "visavis_frame_late_ms", "Frame left after its due time", buckets=_LATE_BUCKETS_MS, registry=registry
        )
        self.first_sound_ms = Histogram(
            "visavis_first_sound_ms",
            "From asking for speech to its first frame",
            buckets=_FIRST_SOUND_BUCKETS_MS,
            registry=registry,
        )
        frames = Counter("visavis_frames", "Frames by kind", ["kind"], registry=registry)
        self.frames_idle = frames.labels("idle")
        self.frames_speaking = frames.labels("speaking")
        self.frames_held = frames.labels("held")
        self.frames_dropped = frames.labels("dropped")
        self.utterances = Counter("visavis_utterances", "Utterances begun", registry=registry)
        self.interrupts = Counter("visavis_interrupts", "Interrupts that cut something off", registry=registry)
        self._failures = Counter("visavis_failures", "Failures survived, by stage", ["stage"], registry=registry)
        for stage in ("render", "restore", "voice", "recogniser", "model"):
            self._failures.labels(stage)
        stages = Histogram(
            "visavis_stage_ms", "One picture in one stage", ["stage"], buckets=_STAGE_BUCKETS_MS, registry=registry
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        levels = Gauge("visavis_quality_sessions", "Sessions by quality level", ["level"], registry=registry)
        self._levels = [levels.labels(str(level)) for level in range(MOST + 1)]
        self._steps = Counter("visavis_quality_steps", "Quality levels stepped", ["direction"], registry=registry)
        for direction in ("up", "down"):
            self._steps.labels(direction)
        turn_ms = Histogram(
            "visavis_turn_ms", "End of speech to a stage", ["stage"], buckets=_TURN_BUCKETS_MS, registry=registry
        )
        self._turn_ms = {stage: turn_ms.labels(stage) for stage in TURN_STAGES}
        turns = Counter("visavis_turns", "Turns of conversations", ["outcome"], registry=registry)
        self._turns = {outcome: turns.labels(outcome) for outcome in TURN_OUTCOMES}
        given_up = Counter("visavis_given_up", "Pictures there was no time for", ["priority"], registry=registry)
        self._given_up = [given_up.labels(str(priority)) for priority in range(PRIORITIES)]
        self.avatar_bytes = Gauge("visavis_avatar_bytes", "Memory that avatars' pictures take", registry=registry)
        self.unrestored = Counter(
            "visavis_unrestored", "Pictures that could not wait for the restorer", registry=registry
        )

    def failures(self, stage: str) -> Counter:
        """The counter of failures of a stage: ``render``, ``restore``, ``voice``, ``recogniser`` or ``model``."""
        return self._failures.labels(stage)

    def given_up(self, priority: int) -> Counter:
        """The counter of pictures of sessions of a priority, 0 to 9, that no time was left for."""
        return self._given_up[priority]

    def stage_ms(self, stage: str) -> Histogram:
        """The histogram of one of ``governor.STAGES``."""
        return self._stages[stage]

    def turn_ms(self, stage: str) -> Histogram:
        """The histogram of one of ``TURN_STAGES``."""
        return self._turn_ms[stage]

    def turns(self, outcome: str) -> Counter:
        """The counter of one of ``TURN_OUTCOMES``."""
        return self._turns[outcome]

    def quality_sessions(self, level: int) -> Gauge:
        """The gauge of sessions at a quality level."""
        return self._levels[level]

    def moved_quality(self, before: int, after: int) -> None:
        """Counts that a session went from one quality level to another."""
        if before == after:
            return
        self._levels[before].dec()
        self._levels[after].inc()
        self._steps.labels("up" if after > before else "down").inc(abs(after - before))
