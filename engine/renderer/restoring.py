"""Restores faces as far as there is time: each session's live pictures, and avatars once, in the background.

Place in the flow: Drawn -> ``Restoring.restore`` (render threads, asks the governor) -> picture;
avatar -> ``Restoring.look`` (a thread of its own) -> the avatar with restored pictures, prepared by the lip-sync model.

Invariants:
    * nobody waits for an avatar to be restored: sessions show its pictures as they are until then;
    * a picture is improved upon the newest earlier one of its session that was restored; one that was taken back, left
      out or overtaken leaves no mark on those after it;
    * whatever the restorer does wrong costs restoring and nothing else;
    * the governor is asked under one lock; sessions are told about changes on their own event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from engine.avatar.bundle import Avatar
from engine.config import usable_cores
from engine.errors import BackendFailed, Cancelled, Closed, ModelAway, VisavisError
from engine.governor import Governor, Seat
from engine.lipsync.base import LipSync, PreparedAvatar
from engine.metrics import EngineMetrics
from engine.quality import LIVE, USUAL, Quality, QualityState, wanted_level
from engine.renderer.delivery import deliver
from engine.renderer.draw import Box, Drawn
from engine.restore.base import FaceRestorer, RestoreJob
from engine.schedule import PRIORITY, Urgency

LOOKS_LIMIT = 5
"""Restored avatars kept for sessions to come; sessions hold on to their own."""
RestoredPicture = Callable[[int, np.ndarray | None], None]
"""Told the number of a picture, and the picture restored, (H, W, 3) uint8 BGR, or None when it stays as it is."""
REACH_FRAMES = 5
"""What was restored so many frames ago or longer says nothing about the present picture."""

# How much a thread that restores avatars yields to all others, as in nice(1).
_BACKGROUND_NICE = 10
# The first restoration pays for memory that later ones find.
_CALIBRATIONS = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unrestored:
    """A picture that may be restored.

    Attributes:
        session: whose.
        drawn: the picture.
        box: where its mouth was pasted.
        sequence: which frame of its session it is.
        due_s: when it is due, monotonic seconds.
    """

    session: SessionRestoring
    drawn: Drawn
    box: Box
    sequence: int
    due_s: float


class SessionRestoring:
    """What restoring knows of one session; made by ``Restoring.open``, closed by whoever opened it."""

    def __init__(self, avatar: Avatar, seat: Seat) -> None:
        self.avatar = avatar
        self.seat = seat
        self._lock = threading.Lock()
        self._trace: tuple[int, object | None] = (-1, None)

    @property
    def state(self) -> QualityState:
        """What the session asked for, and what it has."""
        return self.seat.state

    def trace_before(self, sequence: int) -> object | None:
        """What the restorer left behind for the picture ``sequence``; None after a gap, or when frames were redone."""
        with self._lock:
            known, trace = self._trace
            return trace if 0 < sequence - known <= REACH_FRAMES else None

    def keep_trace(self, sequence: int, trace: object | None, began_with: object | None) -> None:
        """Takes what the restorer left behind, unless a later picture was finished before this one."""
        with self._lock:
            known, newest = self._trace
            # After an interrupt frames are numbered anew; what they began with tells them from latecomers.
            if sequence > known or (began_with is None and newest is not None):
                self._trace = sequence, trace


class Restoring:
    """The restorer, its governor, and the avatars it restored.

    Args:
        restorer: called from all threads at once.
        lipsync: prepares restored avatars.
        threads: pictures drawn at a time.
        metrics: where to count.

    Attributes:
        governor: who gets how much; ask it under ``lock``.
    """

    def __init__(self, restorer: FaceRestorer, lipsync: LipSync, threads: int, metrics: EngineMetrics) -> None:
        self.governor = Governor(threads, usable_cores())
        self.lock = threading.Lock()
        self._restorer = restorer
        self._lipsync = lipsync
        self._metrics = metrics
        self._batch_limit = int(getattr(restorer, "batch_limit", 1))
        self._calibrated = False
        self._closing = False
        self._looks: OrderedDict[int, tuple[Avatar, asyncio.Future[PreparedAvatar]]] = OrderedDict()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="visavis-restore", initializer=_yield_to_others)
        self._probes = ThreadPoolExecutor(1, thread_name_prefix="visavis-probe")

    # Sessions, on their event loops -------------------------------------------------------------------------------

    def open(
        self,
        avatar: Avatar,
        asked: Quality,
        on_change: Callable[[QualityState], None],
        priority: int = PRIORITY,
    ) -> SessionRestoring:
        """A session begins; must be called on a running event loop.

        Args:
            avatar: whom it shows.
            asked: the quality it asks for.
            on_change: called on this event loop with every change of its state.
            priority: 0 to 9; the lowest does without first.
        """
        loop = asyncio.get_running_loop()

        def changed(seat: Seat, before: int, after: int) -> None:
            state = seat.state
            self._metrics.moved_quality(before, after)
            deliver(loop, lambda: on_change(state))

        with self.lock:
            wanted = wanted_level(asked, self.governor.fast())
            seat = self.governor.enrol(asked, wanted, changed, time.monotonic(), priority)
        self._metrics.quality_sessions(seat.level).inc()
        return SessionRestoring(avatar, seat)

    def close_session(self, session: SessionRestoring) -> None:
        """A session ends; idempotent."""
        with self.lock:
            if self.governor.leave(session.seat):
                self._metrics.quality_sessions(session.seat.level).dec()

    def ask(self, session: SessionRestoring, asked: Quality) -> None:
        """A session asks for something else from now on."""
        with self.lock:
            self.governor.ask(session.seat, asked, wanted_level(asked, self.governor.fast()), time.monotonic())

    def missed(self, session: SessionRestoring) -> None:
        """A picture of a session went out unrestored, because restoring it took too long."""
        with self.lock:
            self.governor.missed(session.seat, time.monotonic())

    async def look(self, session: SessionRestoring) -> PreparedAvatar:
        """The session's avatar with its own pictures restored, prepared; made once and cached.

        Takes seconds to minutes. Cancelling loses nothing: the work goes on for whoever asks next.

        Raises:
            BackendFailed: the restorer or the model cannot do it; also told to the governor.
            Closed: the renderer was closed meanwhile.
        """
        try:
            prepared = await self._restored(session.avatar)
        except VisavisError:
            with self.lock:
                self.governor.prepared(session.seat, False)
            raise
        with self.lock:
            self.governor.prepared(session.seat, True)
        return prepared

    def restore_ahead(self, avatar: Avatar) -> None:
        """Begins to restore an avatar that sessions will ask for; must be called on a running event loop."""
        self._begin(avatar)

    async def _restored(self, avatar: Avatar) -> PreparedAvatar:
        work = self._begin(avatar)
        try:
            return await asyncio.shield(work)
        except Exception:
            if id(avatar) in self._looks and self._looks[id(avatar)][1] is work:
                del self._looks[id(avatar)]
            raise

    def _begin(self, avatar: Avatar) -> asyncio.Future[PreparedAvatar]:
        """Restoring an avatar, on its way or done."""
        if self._closing:
            raise Closed("renderer_closed", "The renderer is closed.")
        # An id is reused once its object is gone, so the avatar is kept with what is made of it.
        _, work = self._looks.get(id(avatar), (avatar, None))
        if work is None:
            work = asyncio.get_running_loop().run_in_executor(self._background, self._restore_avatar, avatar)
            # Nobody may be left to see a failure; looking at it here keeps asyncio from reporting it again.
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._looks[id(avatar)] = avatar, work
        self._looks.move_to_end(id(avatar))
        while len(self._looks) > LOOKS_LIMIT:
            self._looks.popitem(last=False)
        return work

    def close(self) -> None:
        """Gives up what is being restored in the background. Idempotent; does not wait."""
        self._closing = True
        self._background.shutdown(wait=False, cancel_futures=True)
        self._probes.shutdown(wait=False, cancel_futures=True)
        self._looks.clear()

    # Threads ------------------------------------------------------------------------------------------------------

    def observe(self, stage: str, seconds: float) -> None:
        """Tells the governor what a stage cost for one picture; from any thread."""
        with self.lock:
            self.governor.observe(stage, seconds)

    def calibrate(self, avatar: Avatar) -> None:
        """Finds out what restoring a picture costs, once, before anybody waits for one."""
        if self._calibrated:
            return
        self._calibrated = True
        y1, y2, x1, x2 = (round(float(edge)) for edge in avatar.boxes[0])
        job = RestoreJob(avatar.frames[0], avatar.landmarks[0], (y1, y2, x1, x2), USUAL)
        try:
            self._restorer.warmup([1 << power for power in range(self._batch_limit.bit_length())])
            took_s = min(self._timed(job) for _ in range(_CALIBRATIONS))
        except Exception as error:
            # Sessions will find out, each for itself, and say so.
            self._failed("restoring a picture of %s failed", avatar.name, error)
            return
        with self.lock:
            self.governor.learn(took_s, time.monotonic())

    def restore(
        self, pictures: Sequence[Unrestored], waiting_s: Callable[[], Sequence[float]], done: RestoredPicture
    ) -> None:
        """Restores pictures on the calling thread as well as there is time, together where the restorer gains from it.

        Args:
            pictures: the most urgent first.
            waiting_s: tells when each picture is due that waits to be drawn, the first one first.
            done: called with every picture as soon as it is as good as it gets.
        """
        together: list[_Work] = []
        for index, picture in enumerate(pictures):
            seat = picture.session.seat
            if together and not self._fits_beside(picture, together, waiting_s()):
                self._restore(together, done)
                together = []
            due_s = min([picture.due_s, *(work.picture.due_s for work in together)])
            waiting = waiting_s()
            with self.lock:
                admission = self.governor.admit(seat, time.monotonic(), due_s, waiting, len(together))
            urgency = Urgency(picture.due_s, id(picture.session), seat.priority)
            drawn = picture.drawn
            job = RestoreJob(drawn.image, drawn.landmarks, picture.box, admission.level, urgency=urgency)
            if admission.probe is not None:
                self._probe(picture.session, replace(job, level=admission.probe))
            if admission.level < LIVE:
                done(index, None)
                continue
            together.append(_Work(index, picture, replace(job, trace=picture.session.trace_before(picture.sequence))))
        if together:
            self._restore(together, done)

    def _fits_beside(self, picture: Unrestored, together: Sequence[_Work], waiting_s: Sequence[float]) -> bool:
        """Whether a picture may be restored together with others: none builds on another, and none gets late."""
        # A picture builds on the one before of its session, so that must be finished.
        if len(together) == self._batch_limit or any(work.picture.session is picture.session for work in together):
            return False
        due_s = min([picture.due_s, *(work.picture.due_s for work in together)])
        with self.lock:
            return self.governor.fits(picture.session.seat.level, time.monotonic(), due_s, waiting_s, len(together))

    def _restore(self, together: Sequence[_Work], done: RestoredPicture) -> None:
        started_s = time.monotonic()
        try:
            restored = self._restorer.restore([work.job for work in together])
        except Exception as error:
            if len(together) > 1 and not isinstance(error, ModelAway):
                # One bad picture must not cost those that happened to be beside it.
                for work in together:
                    self._restore([work], done)
                return
            self._failed("restoring a picture of %s failed", together[0].picture.session.avatar.name, error)
            now_s = time.monotonic()
            for work in together:
                with self.lock:
                    self.governor.failed(work.picture.session.seat, now_s)
                done(work.index, None)
            return
        now_s = time.monotonic()
        each_s = (now_s - started_s) / len(together)
        for work, result in zip(together, restored, strict=True):
            picture = work.picture
            picture.session.keep_trace(picture.sequence, result.trace, work.job.trace)
            self._metrics.stage_ms("restore").observe(each_s * 1000)
            with self.lock:
                self.governor.restored(picture.session.seat, work.job.level, each_s, now_s)
            done(work.index, result.image)

    def _probe(self, session: SessionRestoring, job: RestoreJob) -> None:
        """Measures beside the live path what a level costs now; what comes of it is seen by nobody."""

        def run() -> None:
            took_s: float | None = None
            try:
                took_s = self._timed(job)
            except Exception as error:
                self._failed("restoring a picture of %s failed", session.avatar.name, error)
            with self.lock:
                self.governor.probed(session.seat, job.level, took_s, time.monotonic())

        # A renderer that is closing has no use for it.
        with contextlib.suppress(RuntimeError):
            self._probes.submit(run)

    def _timed(self, job: RestoreJob) -> float:
        started_s = time.monotonic()
        self._restorer.restore([job])
        return time.monotonic() - started_s

    def _restore_avatar(self, avatar: Avatar) -> PreparedAvatar:
        try:
            return self._lipsync.prepare(self._restorer.restore_avatar(avatar, self._go_on))
        except VisavisError:
            raise
        except Exception as error:
            self._failed("restoring the avatar %s failed", avatar.name, error)
            raise BackendFailed("restore_failed", f"The restorer cannot use the avatar {avatar.name!r}.") from error

    def _go_on(self, _done: int, _of: int) -> None:
        if self._closing:
            raise Cancelled("renderer_closed", "The renderer is closed.")

    def _failed(self, message: str, name: str, error: Exception) -> None:
        # One that is away is told of by whoever waits for it to come back.
        _log.error(message, name, exc_info=None if isinstance(error, ModelAway) else error)
        self._metrics.failures("restore").inc()


@dataclass(frozen=True, slots=True)
class _Work:
    """A picture that is to be restored: its number among those it came with, and what the restorer is told."""

    index: int
    picture: Unrestored
    job: RestoreJob


def _yield_to_others() -> None:
    """Lets live pictures go first; on Linux a thread has a priority of its own."""
    if hasattr(os, "setpriority"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICE)
